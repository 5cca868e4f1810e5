"""Sample frames with their expected values (tests/data/vectors), and known differences from the reference."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from collector.framing.decoder import Decoder, Received
from collector.framing.frame_decoder import Options
from telemetry.model.record import Sent
from tests.collector.protocols.three_ways import ARRIVAL, NOW_US

FOLDER = Path(__file__).parents[2] / "data" / "vectors"

NAMES = {
    "batteryLevel": "battery_percent",
    "battery": "battery_v",
    "charge": "charging",
    "coolantTemp": "coolant_c",
    "engineLoad": "engine_load_percent",
    "fuel": "fuel_percent",
    "fuel1": "fuel_percent",
    "fuelConsumption": "fuel_l_per_h",
    "hours": "engine_hours",
    "humidity": "humidity_percent",
    "driverUniqueId": "driver_id",
    "dtcs": "fault_codes",
    "in1": "input1",
    "in2": "input2",
    "in3": "input3",
    "input": "inputs",
    "obdSpeed": "obd_speed_kmh",
    "odometer": "odometer_m",
    "archive": "buffered",
    "out1": "output1",
    "out2": "output2",
    "output": "outputs",
    "power": "external_v",
    "rssi": "gsm_signal",
    "sat": "satellites",
    "temp1": "temperature_c",
    "tripOdometer": "trip_m",
    "throttle": "throttle_percent",
}
"""The reference's names of attributes, and ours where they differ."""

_FORMATS = {"yyyyMMddHHmmss": "%Y%m%d%H%M%S", "HHmmss": "%H%M%S", "yyMMddHHmmss": "%y%m%d%H%M%S"}
_MS_OF_HOUR = 3_600_000
_OF_FIX = (
    ("latitude", "lat", 1e-6),
    ("longitude", "lon", 1e-6),
    ("altitude_m", "altitude_m", 0.01),
    ("speed_kmh", "speed_kmh", 0.002),
    ("heading_deg", "course", 0.01),
)

Exceptions = Mapping[str, Mapping[str, str]]
"""Name of a vector → what is not as the reference has it → why."""


class Vector(NamedTuple):
    """Frames on one connection, and the reference's result for them."""

    name: str
    setup: list[bytes]
    frames: list[bytes]
    device_id: str | None
    positions: list[dict[str, Any]]
    responses: list[bytes]


def vectors(protocol: str) -> list[Vector]:
    """All vectors of a protocol."""
    return [_vector(value) for value in json.loads((FOLDER / f"{protocol}.json").read_text())]


def _vector(value: dict[str, Any]) -> Vector:
    encoded = bytes.fromhex if value["frame_encoding"] == "hex" else str.encode
    expect = value["expect"]
    return Vector(
        value["name"],
        [encoded(frame) for frame in value["setup_frames"]],
        [encoded(frame) for frame in value["frames"]],
        expect["device_id"],
        expect["positions"],
        [_response(response) for response in expect["responses"]],
    )


def _response(value: dict[str, str]) -> bytes:
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    now = datetime.fromtimestamp(NOW_US / 1e6, UTC)
    return re.sub(r"{now:(\w+) UTC}", lambda match: f"{now:{_FORMATS[match[1]]}}", value["text"]).encode()


def differences(vector: Vector, make: Callable[[Options], Decoder], exceptions: Exceptions) -> list[str]:
    """How a decoder's answer differs, but for the exceptions; an exception that is none is a difference too."""
    decoder = make(Options())
    for frame in vector.setup:
        decoder.feed(frame, ARRIVAL)
    messages = [message for frame in vector.frames for message in decoder.feed(frame, ARRIVAL)]
    messages += decoder.eof(ARRIVAL)
    records = [sent for message in messages if isinstance(message, Received) for sent in message.records]
    responses = [message.stored for message in messages if isinstance(message, Received) and message.stored]
    found = dict(_compared(vector, records))
    if responses != vector.responses:
        found["responses"] = f"{responses}, not {vector.responses}"
    expected = exceptions.get(vector.name, {})
    useless = [f"{name}: is no exception" for name in expected if name not in found]
    return [f"{name}: {text}" for name, text in found.items() if name not in expected] + useless


def _compared(vector: Vector, records: list[Sent]) -> list[tuple[str, str]]:
    if len(records) != len(vector.positions):
        return [("records", f"{len(records)}, not {len(vector.positions)}")]
    found = [("device_id", sent.device_id) for sent in records if sent.device_id != vector.device_id]
    for sent, position in zip(records, vector.positions, strict=True):
        found += _of_position(sent, position)
        found += _of_attributes(json.loads(sent.record.attributes or "{}"), position)
    return found


def _of_position(sent: Sent, position: dict[str, Any]) -> list[tuple[str, str]]:
    record, found = sent.record, []
    time = position["fix_time"] or position["device_time"]
    expected_us = NOW_US if time in (None, "__now__") else _us(time)
    if record.timestamp_us != expected_us:
        found.append(("timestamp", f"{record.timestamp_us}, not {expected_us}"))
    if position["outdated"]:
        return [*found, *([("position", "told")] if record.latitude is not None else [])]
    if record.has_fix != position["valid"]:
        found.append(("valid", str(record.has_fix)))
    for ours, theirs, tolerance in _OF_FIX:
        value = getattr(record, ours)
        if abs((value or 0) - position[theirs]) > tolerance:
            found.append((ours, f"{value}, not {position[theirs]}"))
    return found


def _us(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1_000) * 1_000


def _of_attributes(ours: dict[str, Any], position: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in position["attributes"].items():
        mine = ours.get(NAMES.get(name, name))
        if mine is None and _is_left_out(name, value):
            continue
        if not _same(mine, value / _MS_OF_HOUR if name == "hours" else value):
            found.append((name, f"{mine!r}, not {value!r}"))
    cells = _cells(ours.get("cells", []))
    expected = _cells(position.get("network", {}).get("cells", []))
    if expected and cells != expected:
        found.append(("cells", f"{cells}, not {expected}"))
    return found


def _cells(cells: list[dict[str, Any]]) -> list[tuple[int, ...]]:
    return sorted(tuple(cell.get(name, 0) for name in ("mcc", "mnc", "lac", "cid")) for cell in cells)


def _is_left_out(name: str, value: object) -> bool:
    """Attributes without information: not buffered, no event, and a message's number in its protocol."""
    return (name in ("archive", "event") and not value) or (name == "type" and isinstance(value, int))


def _same(ours: object, theirs: object) -> bool:
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, int | float):
        number = float(theirs.rstrip("%")) if isinstance(theirs, str) else theirs
        return isinstance(number, int | float) and abs(ours - number) < 0.001
    return ours == theirs or (isinstance(theirs, str) and ours == _snake(theirs))


def _snake(text: str) -> str:
    """`hardCornering` as we write it."""
    return re.sub(r"(?<=[a-z])[A-Z]", lambda match: f"_{match[0].lower()}", text)
