"""What a protocol over HTTP is: a request in, records and an answer out, with no socket, clock, Redis or file.

Phones try a refused request for ever, and nothing behind it is sent meanwhile. So what can never be taken is answered
as if it were, and set aside as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from collector.framing.frame_decoder import Options
from telemetry.codec.record_parser import Arrival
from telemetry.hot_store.entry_codec import Aside
from telemetry.model.errors import SenderError, TooLarge
from telemetry.model.record import Sent

MAX_RECORDS = 100_000
"""Records and refused items of a request whose caller names no other limit."""

MAX_ASIDE = 100
"""Refused items of one request that are set aside; further ones are counted. Each may keep 4 KiB of it in Redis."""


class Post(NamedTuple):
    """A request, as far as a protocol looks at it. Names of headers are in lower case; `user` is who logged in."""

    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    user: str = ""
    max_records: int = MAX_RECORDS

    @property
    def content_type(self) -> str:
        """The body's type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Told(NamedTuple):
    """What a request says, and its answer once all is stored: while the store is away it is 503."""

    records: list[Sent]
    aside: tuple[Aside, ...] = ()
    status: int = 200
    body: bytes = b""
    refused: int = 0
    """Items that can't be taken; of the first of them `aside` has the bytes."""


class Gathered:
    """The records of one request, and its refused items, as they are read.

    `add` and `refuse` raise `TooLarge` beyond `max_records` of both: short items cost much more memory than their text.
    """

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self.records: list[Sent] = []
        self.aside: list[Aside] = []
        self.refused = 0

    def add(self, record: Sent) -> None:
        """Keep a record."""
        self.records.append(record)
        self._check()

    def refuse(self, device_id: str, reason: str, raw: bytes) -> None:
        """Count an item that can't be taken, and set the first of them aside."""
        self.refused += 1
        if self.refused <= MAX_ASIDE:
            self.aside.append(Aside(device_id, reason, raw))
        self._check()

    def _check(self) -> None:
        if len(self.records) + self.refused > self._max_records:
            raise TooLarge(f"a request may have {self._max_records} records")

    def told(self, status: int = 200, body: bytes = b"") -> Told:
        """All of it, and its answer."""
        return Told(self.records, tuple(self.aside), status, body, self.refused)


class NotOurs(SenderError):
    """A request that no sender of this protocol makes: it is answered 400."""


Read = Callable[[Post, Options, Arrival], Told]
"""Reads a request. Raises `NotOurs`, or `TooLarge` beyond its `max_records`."""
