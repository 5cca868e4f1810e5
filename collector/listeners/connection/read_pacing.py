"""Pacing of reads from one TCP connection: in turns with the others, and no faster than its records are stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from collector.framing.decoder import Message, Received
from collector.ingest.group_commit import Intake
from collector.listeners.connection.connection_log import ConnectionLog
from collector.listeners.connection.message_admission import MessageAdmission
from collector.listeners.connection.reply_queue import MAX_PENDING, ReplyQueue
from telemetry.limits.rate_limits import Rates

TURN_BYTES = 16 * 2**10
"""Bytes of one connection that are decoded before the other connections have their turn."""

LONG_TURN_BYTES = 256 * 2**10
"""The longest turn, while a message lacks more bytes than a usual turn has. A large frame then needs few reads."""

FIRST_TURN_BYTES = 2**11
"""The first turn of a connection, before the size of its messages is known."""

SHORT_TURN_BYTES = 512
"""A turn while the intake has no room, until all connections are paused; and of a connection whose messages were tiny:
in a usual turn, many tiny messages would delay the other connections."""

TINY_BYTES = 16
"""Average size of a message below which messages are tiny: the shortest record has more, and a heartbeat mostly comes
alone."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.02, 5.0
"""Time between two checks whether a sender over its rate may send again."""


def next_turn_bytes(nbytes: int, messages: int) -> int:
    """Maximum bytes of a connection's next turn, after a turn of `nbytes` that completed this number of messages."""
    are_tiny = messages * TINY_BYTES > max(nbytes, SHORT_TURN_BYTES // 2)
    return SHORT_TURN_BYTES if are_tiny else TURN_BYTES


class ReadPacing:
    """Pauses and resumes reading from one connection.

    A connection is not read while the intake is full, too many of its replies are pending, its peer does not read them,
    its sender is over the rate limit, or its messages wait for a look-up. `wait_for_room` has `resume` called once the
    intake has room. `owner` is whose rate the records count towards.
    """

    __slots__ = (
        "_admission",
        "_intake",
        "_is_paused",
        "_log",
        "_loop",
        "_owner",
        "_rate_timer",
        "_replies",
        "_transport",
        "_wait_for_room",
        "resumed_s",
        "stalled_s",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        intake: Intake,
        admission: MessageAdmission,
        replies: ReplyQueue,
        owner: str,
        connection_log: ConnectionLog,
        wait_for_room: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._admission = admission
        self._replies = replies
        self._owner = owner
        self._log = connection_log
        self._wait_for_room = wait_for_room
        self._loop = asyncio.get_running_loop()
        self._is_paused = False
        self._rate_timer: asyncio.TimerHandle | None = None  # while the sender is over its rate
        self.stalled_s: float | None = None  # since when the peer does not read its replies
        self.resumed_s = 0.0  # when reading was last resumed: the connection was not silent before, it was not read

    def start(self, transport: asyncio.Transport) -> None:
        """Pace the reading of this transport."""
        self._transport = transport

    def close(self) -> None:
        """Cancel the timer."""
        if self._rate_timer is not None:
            self._rate_timer.cancel()

    @property
    def may_read(self) -> bool:
        """True if there is no reason to pause."""
        return (
            self.stalled_s is None
            and self._rate_timer is None
            and not self._admission.is_looking_up
            and len(self._replies) < MAX_PENDING
            and self._intake.has_room
        )

    @property
    def is_reading(self) -> bool:
        """True while the connection is read."""
        return self._transport.is_reading()

    def pause(self) -> None:
        """Stop reading until `resume` is called and there is no reason to pause."""
        if not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()
            if not self._intake.has_room:
                self._wait_for_room()

    def resume(self) -> None:
        """Read again after a pause, unless there is another reason to pause."""
        if not self._is_paused or self._transport.is_closing():
            return
        if self.may_read:
            self._is_paused = False
            self.resumed_s = self._loop.time()
            self._transport.resume_reading()
        elif not self._intake.has_room:
            self._wait_for_room()

    def yield_turn(self) -> None:
        """Let the other connections have their turn. The event loop would otherwise continue with this socket."""
        self._transport.pause_reading()
        self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def stall(self) -> None:
        """Pause: the peer does not read its replies."""
        self.stalled_s = self._loop.time()
        self.pause()

    def unstall(self) -> None:
        """Resume: the peer reads its replies again."""
        self.stalled_s = None
        self.resume()

    def count(self, rates: Rates, key_id: str, messages: list[Message]) -> None:
        """Count records towards the rate limit; a rejected message counts as one. Above the limit, reading pauses."""
        records = sum(max(1, len(one.records)) if isinstance(one, Received) else 1 for one in messages)
        rates.spend_records(self._owner, key_id, records)
        if self._rate_timer is None:
            self._wait_for_rate(rates, key_id)

    def _wait_for_rate(self, rates: Rates, key_id: str) -> None:
        wait_s = rates.records_wait_s(self._owner, key_id)
        self._rate_timer = None
        if wait_s > 0:
            self._log.note("over its rate: it waits %.1f s", wait_s, level=logging.DEBUG)
            wait_s = min(max(wait_s, SHORTEST_WAIT_S), LONGEST_WAIT_S)
            self._rate_timer = self._loop.call_later(wait_s, self._wait_for_rate, rates, key_id)
        else:
            self.resume()
