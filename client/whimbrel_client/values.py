"""Times and values as the box writes and reads them. Whoever asks and hears of times speaks aware datetimes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

Moment = datetime | date | str
"""A moment to ask for: an aware datetime; a date, which as an end includes that day; or text as docs/api.md has it."""

TIMES = ("timestamp", "received_at", "last_seen", "first_seen", "start", "end", "first", "last")
"""The members of answers that are times."""

REPEATED = ("device_id", "state")
"""The parameters that are given once for each value; a list in any other is joined with commas."""


def text_of(moment: Moment) -> str:
    """A moment as text. Raises `ValueError` for a datetime without a zone, of which nobody knows when it is."""
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise ValueError(f"{moment!r} has no time zone: say which, as with datetime.now(UTC)")
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return moment.isoformat() if isinstance(moment, date) else moment


def encoded(record: Mapping[str, Any]) -> bytes:
    """A record as JSON. Raises `ValueError` or `TypeError` for what has no form in it: NaN, sets, naive datetimes."""
    return json.dumps(record, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: object) -> object:
    if isinstance(value, (datetime, date)):
        return text_of(value)
    item = getattr(value, "item", None)  # numpy's numbers
    if callable(item):
        return item()
    raise TypeError(f"a record can't hold a {type(value).__name__}: {value!r}")


def parameters(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Parameters of a query as pairs of texts; those that are None are left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in given.items():
        many = _many(value)
        if many is not None and name in REPEATED:
            pairs += [(name, _text(one)) for one in many]
        elif many is not None:
            pairs.append((name, ",".join(_text(one) for one in many)))
        elif value is not None:
            pairs.append((name, _text(value)))
    return pairs


def _many(value: object) -> Iterable[object] | None:
    return value if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return text_of(value) if isinstance(value, (datetime, date)) else str(value)


def with_times(item: dict[str, Any]) -> dict[str, Any]:
    """The same with its times as aware datetimes; its attributes are as they were sent."""
    for name in TIMES:
        if isinstance(item.get(name), str):
            item[name] = datetime.fromisoformat(item[name])
    position = item.get("position")
    if isinstance(position, dict):
        with_times(position)
    return item
