"""A device's latest as the API answers it, and the page of them."""

from __future__ import annotations

from msgspec import Struct

from api.responses import record_schema
from api.responses.record_schema import RecordAnswer
from telemetry.hot_store import corruption
from telemetry.hot_store.entry_codec import Latest, Slot, decode_latest
from telemetry.model.utc import TimeText, iso


class LatestAnswer(RecordAnswer, frozen=True, gc=False):
    """A device's newest record, when it was last seen, and its newest record with a fix."""

    last_seen: TimeText
    position: RecordAnswer | None


class LatestPage(Struct, frozen=True):
    """Devices in the order of their ids; `next_cursor` is null at the end."""

    records: list[LatestAnswer]
    next_cursor: str | None


def answer_of(device_id: str, value: bytes) -> LatestAnswer:
    """The answer that a device's latest in Redis makes. Raises `ValueError` if there is no record in it."""
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
    """When a record shows that its device was there: on arrival, but an imported one when it was measured."""
    return min(record.timestamp, record.received_at) if record.transport == "import" else record.received_at


def with_position(record: RecordAnswer, last_seen: TimeText, position: RecordAnswer | None) -> LatestAnswer:
    """The answer for a device whose newest record this is."""
    values = {name: getattr(record, name) for name in RecordAnswer.__struct_fields__}
    return LatestAnswer(**values, last_seen=last_seen, position=position)
