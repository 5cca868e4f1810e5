"""Interface of decoders: bytes in, values out, without socket, clock, Redis or file.

The socket calls `feed` with received bytes, `quiet` after `QUIET_S` of silence if the decoder `waits_for_quiet`
(`MORE_S` if it `waits_for_more`), and `eof` when the sender has ended its stream. It also calls `quiet` of a decoder
that `waits_for_more` when the connection is lost. Each returns the messages that became complete, in order, and each
message is answered in that order. An invalid message is a value, `Rejected`, and affects only itself; only a message
that is the `last` ends the connection after its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

from telemetry.codec.record_parser import Arrival
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.operations.append import UNLIMITED, Owner
from telemetry.model.api_keys import Denied
from telemetry.model.problems import Problem
from telemetry.model.record import Sent

QUIET_S = 0.1
"""Silence after which a message without an end mark counts as complete, s."""

MORE_S = 1.0
"""The same if all messages of one second form a record: its parts are sent within that second, s."""


def _unsaid(_denied: Denied) -> bytes:
    """The answer of a protocol that has none for this case."""
    return b""


class Received(NamedTuple):
    """A valid message. `stored` is the answer once its records are durable, `not_stored` makes the answer for a reason
    why they could not be stored now.

    A message with a `sender` has a `number` above the numbers of all its earlier messages. Otherwise it was stored
    before, and `repeated` is the answer.

    If a device would send everything again because of one invalid record, that record is in `aside`.

    A `token` is the key of the message; without records it is a hello, whose key applies to the whole connection.
    `denied` makes the answer if the key does not allow it. `parts` are the messages that it was combined from, each of
    which may be allowed separately. `owner` is the owner of its share, if a key is required.
    """

    records: list[Sent]
    size_bytes: int
    stored: bytes
    not_stored: Callable[[str], bytes]
    last: bool = False
    sender: str = ""
    number: int = 0
    repeated: bytes = b""
    aside: tuple[Aside, ...] = ()
    token: str = ""
    denied: Callable[[Denied], bytes] = _unsaid
    parts: Callable[[], list[Received]] | None = None
    owner: Owner = UNLIMITED

    def without_records(self) -> Received:
        """The message without records, for code that only answers it, so that records are freed early."""
        return self._replace(records=[], parts=None) if len(self.records) > 1 else self


class Rejected(NamedTuple):
    """A message that cannot be used: the kind of its fault, the reason, and the answer.

    If nothing was sent, as by a port scan, there is no kind.
    """

    kind: Problem | None
    reason: str
    answer: bytes
    last: bool = False
    aside: tuple[Aside, ...] = ()


Message = Received | Rejected


class Decoder(Protocol):
    """Decoder of one connection."""

    PROTOCOL: ClassVar[str]
    """Name of the protocol in settings, logs and metrics. Empty until it is detected from the first bytes."""

    @property
    def waits_for_quiet(self) -> bool:
        """True if silence would complete a message."""
        ...

    @property
    def waits_for_more(self) -> bool:
        """True if it has a record from complete messages, to which a further message could add."""
        ...

    @property
    def is_mid_message(self) -> bool:
        """True if an incomplete message has begun, whose time is limited."""
        ...

    @property
    def held_bytes(self) -> int:
        """Size of the incomplete message that it stores."""
        ...

    @property
    def wanted_bytes(self) -> int:
        """Number of missing bytes of a message whose length is known: these can be read in one call, because they need
        no decoding until it is complete. Or the bytes that may be read because they hardly cost any. 0 if unknown.
        """
        ...

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Process received bytes."""
        ...

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Process silence."""
        ...

    def eof(self, arrival: Arrival) -> list[Message]:
        """Process the end of the stream."""
        ...
