"""Response schemas of a device's latest record and of pages of latest records."""

from __future__ import annotations

from msgspec import Struct

from api.responses import record_schema
from api.responses.record_schema import RecordAnswer
from telemetry.hot_store import corruption
from telemetry.hot_store.entry_codec import Latest, Slot, decode_latest
from telemetry.model.utc import TimeText, iso


class LatestAnswer(RecordAnswer, frozen=True, gc=False):
    """A device's newest record, the time when it was last seen, and its newest record with a fix."""

    last_seen: TimeText
    position: RecordAnswer | None


class LatestPage(Struct, frozen=True):
    """Devices in the order of their ids; `next_cursor` is null on the last page."""

    records: list[LatestAnswer]
    next_cursor: str | None


def answer_of(device_id: str, value: bytes) -> LatestAnswer:
    """The response object for a device's latest record in Redis. Raises `ValueError` without a record."""
    latest = decode_latest(value)
    newest, position = newest_of(device_id, latest), latest.position
    record = record_schema.of_stored(newest.stored(device_id))
    where = None
    if position is not None:
        where = record if position is newest else record_schema.of_stored(position.stored(device_id))
    return with_position(record, iso(latest.last_seen_ms * 1_000), where)


def answer_if_decodable(device_id: str, value: bytes | None) -> LatestAnswer | None:
    """As `answer_of`; None without a value, and for one that cannot be decoded, which is counted."""
    try:
        return None if value is None else answer_of(device_id, value)
    except corruption.ERRORS as error:
        corruption.skip("latest", device_id, error)
        return None


def newest_of(device_id: str, latest: Latest) -> Slot:
    """The newest record. Raises `ValueError` if there is none."""
    newest = latest.newest
    if newest is None:
        raise ValueError(f"device {device_id} was seen but never sent a record")
    return newest


def seen_at(record: RecordAnswer) -> TimeText:
    """The time at which a record's device was seen: its arrival; for an imported record, the earlier of both times."""
    return min(record.timestamp, record.received_at) if record.transport == "import" else record.received_at


def with_position(record: RecordAnswer, last_seen: TimeText, position: RecordAnswer | None) -> LatestAnswer:
    """The response object for a device with this newest record."""
    values = {name: getattr(record, name) for name in RecordAnswer.__struct_fields__}
    return LatestAnswer(**values, last_seen=last_seen, position=position)
