"""What a decoder is: bytes in, values out, with no socket, clock, Redis or file of its own.

The socket calls `feed` with what it received, `quiet` after `QUIET_S` of silence if the decoder
`waits_for_quiet` (`MORE_S` if it `waits_for_more`), and `eof` when the sender has ended sending. It also calls
`quiet` of one that `waits_for_more` when the connection ends without an end of sending. Each returns the
messages that became complete, in order; each message is answered in that order. A bad message is a value, `Rejected`,
and costs only itself; only a message that is the `last` ends the connection after its answer.
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
"""Silence after which a message that has no end mark of its own is taken as whole."""

MORE_S = 1.0
"""The same where the messages of one second make one record: what belongs to a second is sent within it."""


def _unsaid(_denied: Denied) -> bytes:
    """What a protocol answers that has no word for it."""
    return b""


class Received(NamedTuple):
    """A good message. `stored` is the answer once its records are safe, `not_stored` makes the one for
    a reason why they could not be stored now.

    One of a `sender` who names itself has a `number`, above those of all its messages before. If it is not, it
    was stored before: `repeated` is the answer then.

    One of a device that would send all again for the sake of one bad record has that one in `aside`.

    One with a `token` is of who has that key; without records it is a hello, and says so for all that follow on its
    connection. `denied` makes the answer if the key does not allow it. `parts` are what it was put together from, each
    of which may be allowed by itself. `owner` is whose share it counts towards, where a key is required.
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
        """The same for who only answers it, so that records don't outlast the need for them."""
        return self._replace(records=[], parts=None) if len(self.records) > 1 else self


class Rejected(NamedTuple):
    """A message that can't be used, the kind of its fault, why, and what to answer.

    Where nothing was sent at all, as by one who looks whether the port is open, the fault is of no kind.
    """

    kind: Problem | None
    reason: str
    answer: bytes
    last: bool = False
    aside: tuple[Aside, ...] = ()


Message = Received | Rejected


class Decoder(Protocol):
    """One connection's decoder."""

    PROTOCOL: ClassVar[str]
    """The name of what it reads, as in settings, logs and metrics. Empty while the first bytes have not told."""

    @property
    def waits_for_quiet(self) -> bool:
        """Whether silence would complete a message."""
        ...

    @property
    def waits_for_more(self) -> bool:
        """Whether it holds a record of whole messages, to which a further message could add."""
        ...

    @property
    def is_mid_message(self) -> bool:
        """Whether a message has begun that is not complete: the sender's time for it is limited."""
        ...

    @property
    def held_bytes(self) -> int:
        """How much it keeps of a message that is not complete."""
        ...

    @property
    def wanted_bytes(self) -> int:
        """How much is missing of a message whose length is known: so much may be read at once, for until it is complete
        it costs no decoding. Or how much may be read since it will hardly cost any. 0 if that isn't known."""
        ...

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Take what was received."""
        ...

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Take note of silence."""
        ...

    def eof(self, arrival: Arrival) -> list[Message]:
        """Take note that nothing more will come."""
        ...
