"""One connection of the TCP collector: bytes in, messages to the intake, replies out in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from collector.framing.decoder import Decoder, Message
from collector.ingest.arriving_bytes import Arriving
from collector.ingest.device_filter import DeviceFilter
from collector.ingest.group_commit import Intake
from collector.inspection import traffic_capture
from collector.listeners.connection.closing import Closing
from collector.listeners.connection.connection_log import ConnectionLog
from collector.listeners.connection.held_bytes import HeldBytes
from collector.listeners.connection.message_admission import MessageAdmission
from collector.listeners.connection.read_pacing import FIRST_TURN_BYTES, TURN_BYTES, ReadPacing, next_turn_bytes
from collector.listeners.connection.reply_queue import ReplyQueue
from collector.listeners.connection.time_limits import TimeLimits, Timeouts
from collector.listeners.message_dispatch import MessageDispatch
from collector.listeners.tracker_logins import Logins
from collector.protocols.http_detection import HTTP, is_http
from telemetry.access.key_cache import Keyring
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.limits.connections import Ticket
from telemetry.limits.rate_limits import Rates
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.network.client_certificates import Certified
from telemetry.observability import metrics


class Collector(Protocol):
    """The collector that accepted a connection, and the state that its connections share."""

    port: int
    intake: Intake
    arriving: Arriving
    received: bytearray
    timeouts: Timeouts
    shortest_idle_s: float
    make_decoder: Callable[[str], Decoder]
    arrival: Callable[[], Arrival]
    keyring: Keyring | None
    devices: DeviceFilter | None
    logins: Logins | None
    rates: Rates | None

    def turn(self, wanted_bytes: int, max_bytes: int) -> memoryview:
        """Buffer for a connection's next bytes: `max_bytes` at most, unless its message lacks more, `wanted_bytes`."""

    def certified(self, transport: asyncio.BaseTransport) -> Certified | None:
        """The client certificate of a connection; None without one."""

    def opened(self, connection: Connection) -> None:
        """Note an open connection."""

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""

    def reply_soon(self, connection: Connection) -> None:
        """Schedule a connection's replies, so that the replies of one group are written together."""

    def wait_for_room(self, connection: Connection) -> None:
        """Have a connection read again once the intake has room."""


class Connection(asyncio.BufferedProtocol):
    """A connection to a TCP port, from `connection_made` to `connection_lost`."""

    # a dict would cost memory for each connection, and time for each access
    __slots__ = (
        "_admission",
        "_closing",
        "_collector",
        "_dispatch",
        "_held",
        "_is_first",
        "_limits",
        "_log",
        "_max_turn_bytes",
        "_pacing",
        "_replies",
        "_ticket",
        "_transport",
        "_turn_bytes",
        "address",
        "decoder",
        "is_over",
    )

    decoder: Decoder  # made once the peer's address is known

    def __init__(self, collector: Collector, ticket: Ticket) -> None:
        self._collector = collector
        self._ticket = ticket
        intake, owner = collector.intake, ticket.owner
        self._log = ConnectionLog(collector.port, ticket.name)
        self._admission = MessageAdmission(self, collector.port, collector.keyring, intake.shares, collector.devices)
        self._replies = ReplyQueue(partial(collector.reply_soon, self))
        wait_for_room = partial(collector.wait_for_room, self)
        self._pacing = ReadPacing(intake, self._admission, self._replies, owner, self._log, wait_for_room)
        self._closing = Closing()
        self._limits = TimeLimits(
            self,
            collector.timeouts,
            collector.shortest_idle_s,
            self._admission,
            self._closing,
            self._pacing,
            self._replies,
            self._log,
        )
        self._dispatch = MessageDispatch(
            intake, self._admission, self._replies, self._log, collector.logins, self._limits
        )
        self._held = HeldBytes(self, collector.arriving, owner)
        self._turn_bytes = TURN_BYTES
        self._max_turn_bytes = FIRST_TURN_BYTES  # of the next turn
        self.address = ""
        self._is_first = True  # until the first bytes have come
        self.is_over = False
        """True if nothing further is decoded: the sender has ended its stream, or a last message came."""

    @property
    def peer(self) -> str:
        """The client's address and port."""
        return self._log.peer

    @property
    def device_id(self) -> str:
        """The device that a tracker named last."""
        return self._dispatch.device_id

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        if not self._admission.asks_for_key:
            self._dispatch.address_owner = self._collector.intake.shares.of_address(self.address)
        self._log.peer = traffic_capture.address(peer)
        self.decoder = self._collector.make_decoder(self.address)
        self._pacing.start(self._transport)
        self._closing.start(self._transport)
        self._collector.opened(self)
        certified = self._collector.certified(transport)
        if certified is not None:
            self._admission.certify(certified)
        self._log.capture_event("opened")
        self._log.note("opened, on port %d", self._collector.port, level=logging.DEBUG)

    def get_buffer(self, _sizehint: int) -> memoryview:
        turn = self._collector.turn(self.decoder.wanted_bytes, self._max_turn_bytes)
        self._turn_bytes = len(turn)
        return turn

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_over:
            return
        self._limits.received_s = asyncio.get_running_loop().time()
        was_mid_message = self.decoder.is_mid_message
        data = self._collector.received[:nbytes]
        messages = self._decode_first(data) if self._is_first else self._decode(data)
        self._max_turn_bytes = next_turn_bytes(nbytes, len(messages))
        self._log.capture(data, messages, self.decoder)
        if messages or not was_mid_message:
            self._limits.message_began_s = self._limits.received_s
        self._take(messages)
        if not self._held.set(self.decoder.held_bytes + self._admission.waiting_bytes):
            self.refuse_to_keep()
            return
        if self.decoder.waits_for_quiet:
            self._limits.await_quiet()
        if not self._pacing.may_read and not self.is_over:
            self._pacing.pause()
        elif nbytes == self._turn_bytes:
            self._pacing.yield_turn()

    def eof_received(self) -> bool:
        self._closing.peer_ended = True
        if not self._admission.is_looking_up:
            self._take_last()
        return True

    def pause_writing(self) -> None:
        self._pacing.stall()

    def resume_writing(self) -> None:
        self._pacing.unstall()

    def connection_lost(self, error: Exception | None) -> None:
        self._take_whole()
        self.is_over = True
        self._log.capture_event("closed")
        self._log.note("closed%s", f": {type(error).__name__}" if error else "", level=logging.DEBUG)
        self._forget()
        self._collector.closed(self)
        self._ticket.close()
        self._pacing.close()
        self._admission.close()
        self._dispatch.close()
        self._limits.close()

    # Unfinished messages

    def refuse_to_keep(self) -> None:
        """Close without a reply: the sender keeps the message, and can send it again when there is room."""
        rejection_counts.count(problems.BUSY)
        self._log.note("closed: unfinished messages of all connections reached collector.max_pending_bytes")
        self._forget()
        self.finish(linger=False)

    def _forget(self) -> None:
        """Drop the unfinished messages."""
        self._held.release()
        self.decoder = self._collector.make_decoder(self.address)

    # Messages in, replies out

    def _decode_first(self, data: bytearray) -> list[Message]:
        self._is_first = False
        return [HTTP] if is_http(data) else self._decode(data)

    def _decode(self, data: bytearray) -> list[Message]:
        return self._admission.admit(self.decoder.feed(data, self._collector.arrival()))

    def take_decoded(self, messages: list[Message]) -> None:
        """Take messages that no new bytes have completed, but silence, a look-up or the end of the stream."""
        self._log.capture(b"", messages, self.decoder)
        self._take(messages)

    def _take(self, messages: list[Message]) -> None:
        if not messages:
            return
        self.is_over = self._dispatch.take(messages, self.decoder, self.is_over)
        if self._collector.rates is not None:
            self._pacing.count(self._collector.rates, self._admission.key_id, messages)
        if self._replies[0].outcome is not None:
            self.reply()

    def reply(self) -> None:
        """Write the replies that are due, in the order of their messages."""
        data = self._replies.take_due()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        self.is_over = self.is_over or self._dispatch.has_failed
        if self.is_over and not self._replies:
            self._closing.close()
        else:
            self._pacing.resume()

    def read_on(self) -> None:
        """Read again, now that the intake has room."""
        self._pacing.resume()

    # Messages that wait for a look-up

    def wait_for_look_up(self) -> None:
        self._pacing.pause()

    def resume_after_look_up(self) -> None:
        if not self._held.set(self.decoder.held_bytes + self._admission.waiting_bytes):
            self.refuse_to_keep()
        elif self._admission.is_looking_up:
            return
        elif self.is_over and not self._replies:
            self._closing.close()
        elif self._closing.peer_ended:
            self._take_last()
        else:
            self._pacing.resume()

    # Messages that only silence ends

    def take_quiet(self) -> None:
        """Take the messages that silence has ended."""
        self.take_decoded(self._admission.admit(self.decoder.quiet(self._collector.arrival())))

    def _take_whole(self) -> None:
        """Take a complete message that only waits for further parts of it."""
        if not self.is_over and self.decoder.waits_for_more:
            self.take_quiet()

    # The end

    def _take_last(self) -> None:
        """Take the messages that the end of the stream completes, and close."""
        if not self.is_over:
            self.take_decoded(self._admission.admit(self.decoder.eof(self._collector.arrival())))
        if not self._admission.is_looking_up:
            self.finish()

    def end(self, denied: Denied) -> None:
        """Close, because the key is no longer valid. The pending replies are sent, then a rejection."""
        ending = self._admission.ending(denied)
        if ending is None or self.is_over:
            return
        if self._pacing.stalled_s is not None:  # it reads no replies
            self.abort()
        else:
            self._take([ending])

    def close_for_newer(self) -> None:
        """Close, because the device has logged in over a newer connection; unless it has named another one since."""
        if self._dispatch.is_gateway:
            return
        self._log.note("closed: its device has logged in over a newer connection")
        metrics.REPLACED.one.add()
        if self._pacing.stalled_s is not None:  # it reads no replies
            self.abort()
        else:
            self.finish(linger=False)

    def finish(self, linger: bool = True) -> None:
        """Decode nothing further; close once all replies are written."""
        self._take_whole()
        self.is_over = True
        self._closing.lingers = linger
        if not self._replies and not self._admission.is_looking_up:
            self._closing.close()

    def abort(self) -> None:
        """Close immediately."""
        self._closing.abort()

    def fail(self, loop_name: str) -> None:
        """Abort because of the exception that is being handled, raised in the background loop with this name."""
        self._log.note_error(loop_name)
        metrics.LOOP_ERRORS.of(loop_name).add()
        self.abort()

    def check(self, now_s: float) -> None:
        """Close if a time limit has passed."""
        self._limits.check(now_s)
