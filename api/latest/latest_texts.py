"""JSON of latest records as texts that responses share, so that a large record is in memory only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from api.latest.representation import answer_of, newest_of
from api.responses import record_schema
from api.responses.record_schema import RecordAnswer, encode
from telemetry.hot_store.entry_codec import decode_latest
from telemetry.model.utc import iso

LARGE_BYTES = 2**14
"""Values from Redis above this size are not copied into other texts."""

SHARED_BYTES = 2**23

Texts = tuple[bytes, ...]
"""JSON in consecutive pieces."""


def texts_of(device_id: str, value: bytes) -> Texts:
    """The JSON of a device's latest record, from its bytes in Redis. Raises `ValueError` without a record."""
    if len(value) <= LARGE_BYTES:
        return (encode(answer_of(device_id, value)),)
    latest = decode_latest(value)
    newest, position = newest_of(device_id, latest), latest.position
    record = _open(record_schema.of_stored(newest.stored(device_id)))
    seen = b',"last_seen":' + encode(iso(latest.last_seen_ms * 1_000)) + b',"position":'
    if position is None:
        return record, seen + b"null}"
    if position is newest:
        return record, seen, record, b"}}"
    return record, seen, _open(record_schema.of_stored(position.stored(device_id))), b"}}"


def _open(record: RecordAnswer) -> bytes:
    """JSON of a record without the closing brace."""
    return encode(record)[:-1]


class SharedTexts:
    """Cache of texts of large values that were requested last; concurrent responses share them."""

    def __init__(self, max_bytes: int = SHARED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._texts: OrderedDict[tuple[str, int, int], Texts] = OrderedDict()

    def of(self, device_id: str, value: bytes) -> Texts:
        """As `texts_of`."""
        if len(value) <= LARGE_BYTES:
            return texts_of(device_id, value)
        name = device_id, len(value), hash(value)
        texts = self._texts.pop(name, None)
        if texts is None:
            texts = texts_of(device_id, value)
            self._bytes += size_of(texts)
        self._texts[name] = texts
        while self._bytes > self._max_bytes:
            self._bytes -= size_of(self._texts.popitem(last=False)[1])
        return texts


def size_of(texts: Iterable[bytes]) -> int:
    """Size of texts in memory; a text that occurs twice counts once."""
    return sum(map(len, {id(text): text for text in texts}.values()))
