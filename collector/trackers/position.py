"""From what a tracker says to a record: one vocabulary, units and bounds for all protocols of trackers.

The names of attributes are those of docs/attributes.md. Coordinates that are no fix are kept, with `fix` false as the
first attribute: they are part of the record, and never the device's latest position.
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
    """Where a device says it is. None is unknown; `is_fix` is false if its receiver was not sure."""

    latitude: float | None
    longitude: float | None
    altitude_m: float | None = None
    speed_kmh: float | None = None
    heading_deg: float | None = None
    accuracy_m: float | None = None
    is_fix: bool = True


NOWHERE = Position(None, None)
"""Of a message that tells of no position."""


def sent(
    device_id: str,
    source: str,
    options: Options,
    arrival: Arrival,
    at_us: int | None,
    attributes: Attributes,
    position: Position = NOWHERE,
) -> Sent:
    """A record. `at_us` is µs since the epoch, None or the arrival where the device gave no time.

    One with a time of its own is stored once, however often it comes. Raises `RecordError`.
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
    """µs since the epoch of a date and time in a zone; a year below 100 is of this century. Raises `RecordError`."""
    full_year = year + 2_000 if year < 100 else year
    try:
        at = datetime(full_year, month, day, hour, minute, second, tzinfo=zone)
        return round(at.timestamp()) * 1_000_000
    except (ValueError, OverflowError):
        value = f"{year:02}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        raise RecordError("timestamp", value, "is no date and time") from None


def cell(mcc: int, mnc: int, lac: int, cid: int) -> dict[str, int]:
    """A cell of the mobile network, for the attribute `cells`."""
    return {"mcc": mcc, "mnc": mnc, "lac": lac, "cid": cid}
