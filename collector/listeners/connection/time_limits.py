"""Time limits of a TCP connection, and the silence that ends some messages."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from collector.framing.decoder import MORE_S, QUIET_S, Decoder
from collector.framing.frame_decoder import Framed
from collector.inspection import traffic_capture
from collector.listeners.connection.closing import Closing
from collector.listeners.connection.connection_log import ConnectionLog
from collector.listeners.connection.message_admission import MessageAdmission
from collector.listeners.connection.read_pacing import ReadPacing
from collector.listeners.connection.reply_queue import ReplyQueue
from collector.protocols.auto_detect import Auto
from telemetry.coordination import rejection_counts
from telemetry.model import problems

LINGER_S = 2.0
"""Time for which a closing connection is still read, s, so that a reset does not discard our reply."""

GIVE_WAY_S = 1.0
"""Time for which an older connection of a device is still read, s: it may have unread records from before the newer
login."""


class Timeouts(NamedTuple):
    """Maximum duration of a message and of silence, of trackers and of other senders; timeouts of keepalive.py; s."""

    message_s: float = 30.0
    idle_s: float = 86_400.0
    tracker_idle_s: float = 1_800.0
    keepalive_s: int = 300
    user_timeout_s: int = 600

    @property
    def shortest_idle_s(self) -> float:
        return min(self.idle_s, self.tracker_idle_s)

    def idle_s_of(self, decoder: Decoder) -> float:
        """Maximum silence of a connection with this protocol. On a port of all protocols, a connection may be a
        tracker's until its protocol is known."""
        is_tracker = isinstance(traffic_capture.innermost(decoder), Framed | Auto)
        return self.tracker_idle_s if is_tracker else self.idle_s


class Connection(Protocol):
    """The connection that the limits apply to."""

    decoder: Decoder
    is_over: bool

    def take_quiet(self) -> None:
        """Take the messages that silence has ended."""

    def abort(self) -> None:
        """Close immediately."""

    def close_for_newer(self) -> None:
        """Close, because the device has logged in over a newer connection."""


class TimeLimits:
    """Times of one connection. `check` must be called periodically."""

    __slots__ = (
        "_admission",
        "_closing",
        "_connection",
        "_log",
        "_loop",
        "_pacing",
        "_quiet_timer",
        "_replies",
        "_shortest_idle_s",
        "_timeouts",
        "gives_way_s",
        "message_began_s",
        "received_s",
    )

    def __init__(
        self,
        connection: Connection,
        timeouts: Timeouts,
        shortest_idle_s: float,
        admission: MessageAdmission,
        closing: Closing,
        pacing: ReadPacing,
        replies: ReplyQueue,
        connection_log: ConnectionLog,
    ) -> None:
        self._connection = connection
        self._timeouts = timeouts
        self._shortest_idle_s = shortest_idle_s
        self._admission = admission
        self._closing = closing
        self._pacing = pacing
        self._replies = replies
        self._log = connection_log
        self._loop = asyncio.get_running_loop()
        self._quiet_timer: asyncio.TimerHandle | None = None
        self.received_s = self.message_began_s = self._loop.time()
        self.gives_way_s: float | None = None  # start of a newer connection of the device

    def give_way(self) -> None:
        """Close soon: the device has logged in over a newer connection."""
        self.gives_way_s = self._loop.time()

    def close(self) -> None:
        """Cancel the timer."""
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()

    # Silence

    def await_quiet(self) -> None:
        """Have the connection take a message once silence has ended it."""
        if self._quiet_timer is None:
            self._quiet_timer = self._loop.call_later(self._quiet_s, self._on_quiet)

    def _on_quiet(self) -> None:
        self._quiet_timer = None
        left_s = max(self.received_s, self._pacing.resumed_s) + self._quiet_s - self._loop.time()
        if self._connection.is_over or not self._connection.decoder.waits_for_quiet:
            return
        if self._admission.is_looking_up:
            self._quiet_timer = self._loop.call_later(QUIET_S, self._on_quiet)
        elif left_s > 0:
            self._quiet_timer = self._loop.call_later(left_s, self._on_quiet)
        else:
            self._connection.take_quiet()

    @property
    def _quiet_s(self) -> float:
        return MORE_S if self._connection.decoder.waits_for_more else QUIET_S

    # Limits

    def check(self, now_s: float) -> None:
        """Close if a time limit has passed."""
        closing, pacing = self._closing, self._pacing
        stalled_s = pacing.stalled_s or closing.began_s
        if stalled_s is not None and now_s - stalled_s > LINGER_S + self._timeouts.message_s:
            self._log.note("closed: its replies were not read")
            self._connection.abort()
        elif closing.began_s is not None:
            if now_s - closing.began_s > LINGER_S:
                closing.close_both()
        elif self.gives_way_s is not None and now_s - self.gives_way_s > GIVE_WAY_S:
            self.gives_way_s = None
            self._connection.close_for_newer()
        elif pacing.is_reading and not self._replies:
            self._check_silence(now_s)

    def _check_silence(self, now_s: float) -> None:
        decoder, resumed_s = self._connection.decoder, self._pacing.resumed_s
        silent_s = now_s - max(self.received_s, resumed_s)
        message_s = now_s - max(self.message_began_s, resumed_s)
        if decoder.is_mid_message and message_s > self._timeouts.message_s:
            rejection_counts.count(problems.TIMED_OUT)
            self._log.note("closed: a message took more than %g s to arrive", self._timeouts.message_s)
            self._closing.close_both()
        elif silent_s > self._shortest_idle_s and silent_s > self._timeouts.idle_s_of(decoder):
            self._log.note("closed: silent for more than %g s", self._timeouts.idle_s_of(decoder))
            self._closing.close_both()
