"""Makes records from trackers' values: one vocabulary, units and bounds for all tracker protocols.

The names of attributes are listed in docs/attributes.md. Coordinates without a valid fix are kept, with `fix` false as
the first attribute: they are part of the record, and never the device's latest position.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import NamedTuple

from collector.framing.frame_decoder import Options
from telemetry.codec.record_parser import (
    Arrival,
    check_timestamp,
    read_attributes,
    read_coordinate,
    read_device_id,
    read_number,
)
from telemetry.model.errors import RecordError
from telemetry.model.record import Record, Sent

Attributes = dict[str, object]

KMH_OF_KNOT = 1.852


class Position(NamedTuple):
    """A device's position. None = unknown; `is_fix` is false if its receiver marked it as invalid."""

    latitude: float | None
    longitude: float | None
    altitude_m: float | None = None
    speed_kmh: float | None = None
    heading_deg: float | None = None
    accuracy_m: float | None = None
    is_fix: bool = True


NOWHERE = Position(None, None)
"""The position of a message without one."""


def sent(
    device_id: str,
    source: str,
    options: Options,
    arrival: Arrival,
    at_us: int | None,
    attributes: Attributes,
    position: Position = NOWHERE,
) -> Sent:
    """A record. `at_us` is µs since the epoch; without a time from the device, None or the arrival.

    A record with the device's time is stored once, also if it is sent again. Raises `RecordError`.
    """
    if not position.is_fix and position.latitude is not None:
        attributes = {"fix": False, **attributes}
    attributes = {name: value for name, value in attributes.items() if value is not None}
    record = Record(
        timestamp_us=arrival.now_us if at_us is None else check_timestamp(at_us, at_us, arrival),
        transport=options.transport,
        source=source,
        latitude=read_coordinate("latitude", position.latitude, 90.0),
        longitude=read_coordinate("longitude", position.longitude, 180.0),
        altitude_m=read_number("altitude_m", position.altitude_m),
        speed_kmh=read_number("speed_kmh", position.speed_kmh),
        heading_deg=read_number("heading_deg", position.heading_deg),
        accuracy_m=read_number("accuracy_m", position.accuracy_m),
        attributes=read_attributes(attributes, options.max_bytes) if attributes else None,
    )
    return Sent(read_device_id(device_id), record, record.timestamp_us != arrival.now_us)


def moment_us(year: int, month: int, day: int, hour: int, minute: int, second: int, zone: tzinfo) -> int:
    """µs since the epoch of a date and time in a zone; 2000 is added to a year below 100. Raises `RecordError`."""
    full_year = year + 2_000 if year < 100 else year
    try:
        at = datetime(full_year, month, day, hour, minute, second, tzinfo=zone)
        return round(at.timestamp()) * 1_000_000
    except (ValueError, OverflowError):
        value = f"{year:02}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        raise RecordError("timestamp", value, "is not a date and time") from None


def cell(mcc: int, mnc: int, lac: int, cid: int) -> dict[str, int]:
    """A cell of the mobile network, for the attribute `cells`."""
    return {"mcc": mcc, "mnc": mnc, "lac": lac, "cid": cid}
