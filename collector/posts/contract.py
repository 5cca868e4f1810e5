"""What a protocol over HTTP is: a request in, records and an answer out, with no socket, clock, Redis or file.

Phones try a refused request for ever, and nothing behind it is sent meanwhile. So what can never be taken is answered
as if it were, and set aside as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from collector.protocols.framed import Options
from telemetry.entries import Aside
from telemetry.errors import SenderError
from telemetry.fields import Arrival
from telemetry.record import Sent


class Post(NamedTuple):
    """A request, as far as a protocol looks at it. Names of headers are in lower case; `user` is who logged in."""

    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    user: str = ""

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


class NotOurs(SenderError):
    """A request that no sender of this protocol makes: it is answered 400."""


Read = Callable[[Post, Options, Arrival], Told]
"""Reads a request. Raises `NotOurs`."""
