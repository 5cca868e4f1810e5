"""One connection of the TCP collector: bytes in, messages to the intake, replies out in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, cast

from collector.framing.decoder import MORE_S, QUIET_S, Decoder, Message, Received
from collector.framing.frame_decoder import Framed
from collector.ingest.arriving_bytes import Arriving, Upload
from collector.ingest.batch_order import Lane, Numbered
from collector.ingest.device_filter import DeviceFilter
from collector.ingest.group_commit import Intake
from collector.inspection import traffic_capture
from collector.inspection.protocol_metrics import Tally, tally_for
from collector.listeners.connection_log import ConnectionLog
from collector.listeners.message_admission import MessageAdmission
from collector.listeners.read_pacing import FIRST_TURN_BYTES, TURN_BYTES, ReadPacing, next_turn_bytes
from collector.listeners.rejected_messages import count_rejected, set_aside
from collector.listeners.reply_queue import ReplyQueue
from collector.listeners.tracker_logins import Login, Logins
from collector.protocols.auto_detect import Auto
from collector.protocols.http_detection import HTTP, is_http
from telemetry.access.key_cache import Keyring
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.operations.append import Owner
from telemetry.limits.connections import Ticket
from telemetry.limits.rate_limits import Rates
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.network.client_certificates import Certified
from telemetry.observability import metrics

LINGER_S = 2.0
"""How long a connection that we ended is still read from, so that a reset doesn't swallow our reply."""

GIVE_WAY_S = 1.0
"""How long an older connection of a device is still read from: what it brought before the newer login may be unread."""


class Timeouts(NamedTuple):
    """Seconds that a message may take to arrive; that a connection may be silent, a tracker's and any other; and those
    of keepalive.py."""

    message_s: float = 30.0
    idle_s: float = 86_400.0
    tracker_idle_s: float = 1_800.0
    keepalive_s: int = 300
    user_timeout_s: int = 600

    @property
    def shortest_idle_s(self) -> float:
        return min(self.idle_s, self.tracker_idle_s)

    def idle_s_of(self, decoder: Decoder) -> float:
        """How long a connection of this protocol may be silent. On a port of all protocols, one of which nothing is
        known yet may be a tracker's."""
        is_tracker = isinstance(traffic_capture.innermost(decoder), Framed | Auto)
        return self.tracker_idle_s if is_tracker else self.idle_s


class Collector(Protocol):
    """The collector that accepted a connection, and what its connections share."""

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
        """Where the next bytes of a connection go; at most `max_bytes` unless a message lacks `wanted_bytes`, more."""

    def certified(self, transport: asyncio.BaseTransport) -> Certified | None:
        """The client certificate of a connection; None without one."""

    def opened(self, connection: Connection) -> None:
        """Note an open connection."""

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""

    def reply_soon(self, connection: Connection) -> None:
        """Have a connection write its replies, those of one group at once."""

    def wait_for_room(self, connection: Connection) -> None:
        """Have a connection read again once the intake has room."""


class Connection(asyncio.BufferedProtocol):
    """A connection to a TCP port, from `connection_made` to `connection_lost`."""

    # beyond 30 attributes a dict of its own would cost each connection memory, and each look-up time
    __slots__ = (
        "_address_owner",
        "_admission",
        "_closing_s",
        "_collector",
        "_gives_way_s",
        "_held_bytes",
        "_is_first",
        "_lane",
        "_lingers",
        "_log",
        "_login",
        "_loop",
        "_max_turn_bytes",
        "_message_began_s",
        "_owner",
        "_pacing",
        "_peer_ended",
        "_quiet_timer",
        "_received_s",
        "_replies",
        "_tally",
        "_ticket",
        "_tracker",
        "_transport",
        "_turn_bytes",
        "_upload",
        "address",
        "decoder",
        "device_id",
        "is_over",
    )

    decoder: Decoder  # made once the peer's address is known

    def __init__(self, collector: Collector, ticket: Ticket) -> None:
        self._collector = collector
        self._ticket = ticket
        self._owner = ticket.owner
        self._address_owner: Owner | None = None  # whose share counts where no key is asked for
        self._loop = asyncio.get_running_loop()
        intake = collector.intake
        self._log = ConnectionLog(collector.port, ticket.name)
        self._admission = MessageAdmission(self, collector.port, collector.keyring, intake.shares, collector.devices)
        self._replies = ReplyQueue(partial(collector.reply_soon, self))
        wait_for_room = partial(collector.wait_for_room, self)
        self._pacing = ReadPacing(intake, self._admission, self._replies, ticket.owner, self._log, wait_for_room)
        self._held_bytes = 0  # of a message that is not complete, as the collector knows it
        self._upload: Upload | None = None  # made for the first such message
        self._turn_bytes = TURN_BYTES
        self._max_turn_bytes = FIRST_TURN_BYTES  # of the next turn
        self._lane: Lane | None = None  # made for the first batch of a sender who names itself
        self.address = ""
        self._received_s = self._message_began_s = self._loop.time()
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._is_first = True  # until the first bytes have come
        self.is_over = False  # nothing further is decoded: the sender ended, or a last message came
        self._lingers = True
        self._peer_ended = False
        self._closing_s: float | None = None
        self._tally: Tally | None = None  # known once the first bytes have told the protocol
        self._tracker: Framed | None = None  # known then, too: the decoder, if a tracker speaks
        self._login: Login | None = None  # made once a tracker has named itself
        self.device_id = ""  # the device that the tracker named last
        self._gives_way_s: float | None = None  # since when there is a newer connection of its device

    @property
    def peer(self) -> str:
        """The address and port that it comes from."""
        return self._log.peer

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        if not self._admission.asks_for_key:
            self._address_owner = self._collector.intake.shares.of_address(self.address)
        self._log.peer = traffic_capture.address(peer)
        self.decoder = self._collector.make_decoder(self.address)
        self._pacing.start(self._transport)
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
        self._received_s = self._loop.time()
        was_mid_message = self.decoder.is_mid_message
        data = self._collector.received[:nbytes]
        messages = self._decode_first(data) if self._is_first else self._decode(data)
        self._max_turn_bytes = next_turn_bytes(nbytes, len(messages))
        self._log.capture(data, messages, self.decoder)
        if messages or not was_mid_message:
            self._message_began_s = self._received_s
        self._take(messages)
        if not self._may_keep():
            self._refuse_to_keep()
            return
        if self.decoder.waits_for_quiet and self._quiet_timer is None:
            self._quiet_timer = self._loop.call_later(self._quiet_s, self._on_quiet)
        if not self._pacing.may_read and not self.is_over:
            self._pacing.pause()
        elif nbytes == self._turn_bytes:
            self._pacing.yield_turn()

    def eof_received(self) -> bool:
        self._peer_ended = True
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
        if self._login is not None:
            self._login.close()
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()

    # What is kept of unfinished messages

    def _may_keep(self) -> bool:
        held_bytes = self.decoder.held_bytes + self._admission.waiting_bytes
        if held_bytes == self._held_bytes:
            return True
        self._held_bytes = held_bytes
        if self._upload is None:
            self._upload = Upload(self._owner, self._refuse_to_keep)
        return self._collector.arriving.hold(self._upload, held_bytes)

    def _refuse_to_keep(self) -> None:
        """Close without a reply: the sender keeps the message, and may send it again when there is room."""
        rejection_counts.count(problems.BUSY)
        self._log.note("closed: unfinished messages of all connections have collector.max_pending_bytes")
        self._forget()
        self.finish(linger=False)

    def _forget(self) -> None:
        """Drop what was kept."""
        if self._upload is not None:
            self._collector.arriving.hold(self._upload, 0)
        self._held_bytes = 0
        self.decoder = self._collector.make_decoder(self.address)

    # Messages in, replies out

    def _decode_first(self, data: bytearray) -> list[Message]:
        self._is_first = False
        return [HTTP] if is_http(data) else self._decode(data)

    def _decode(self, data: bytearray) -> list[Message]:
        return self._admission.admit(self.decoder.feed(data, self._collector.arrival()))

    def _take_decoded(self, messages: list[Message]) -> None:
        """Take messages that were decoded after the bytes that completed them came."""
        self._log.capture(b"", messages, self.decoder)
        self._take(messages)

    def _take(self, messages: list[Message]) -> None:
        if not messages:
            return
        records = 0
        aside: list[Aside] = []
        tally = self._tally or self._find_tally()
        for message in messages:
            if isinstance(message, Received):
                records += len(message.records)
                self._hand_over(message)
                if message.aside:
                    tally.reject(problems.INVALID_RECORD, len(message.aside))
            else:
                self._replies.add(message)
                count_rejected(message, tally)
                aside += message.aside
                self._log.note_rejected(message, self.decoder)
            self.is_over = self.is_over or message.last
        set_aside(self._collector.intake, aside)
        if self._collector.rates is not None:
            self._pacing.count(self._collector.rates, self._admission.key_id, messages)
        tally.count(len(messages), records)
        if self._tracker is not None and self._tracker.device_id != self.device_id:
            self._log_in(self._tracker.device_id, messages)
        if self._replies[0].outcome is not None:
            self.reply()

    def _hand_over(self, message: Received) -> None:
        """Give a message's records to the intake, which resolves the reply."""
        reply = self._replies.add(message.without_records())
        self._collector.intake.hand_over(
            reply.resolve,
            message.records,
            message.size_bytes,
            self._numbered(message),
            message.aside,
            self._owner_of(message),
        )

    def _find_tally(self) -> Tally:
        """The protocol's counters, once the first bytes have shown which protocol it is."""
        tally = tally_for(self.decoder, "tcp")
        if tally.is_known:
            self._tally, innermost = tally, traffic_capture.innermost(self.decoder)
            self._tracker = innermost if isinstance(innermost, Framed) else None
        return tally

    def _log_in(self, device_id: str, messages: list[Message]) -> None:
        """Note the device that a tracker has named, if the connection may send its records."""
        if self.is_over or not any(isinstance(one, Received) for one in messages):
            return
        self.device_id = device_id
        if self._collector.logins is None or not self._admission.covers(device_id):
            return
        if self._login is None:
            self._login = Login(self._collector.logins, self.give_way)
        self._login.name(device_id)

    def _numbered(self, message: Received) -> Numbered | None:
        if not message.sender:
            return None
        if self._lane is None:
            self._lane = Lane()
        return Numbered(message.sender, message.number, self._lane, self._owner_of(message))

    def _owner_of(self, message: Received) -> Owner:
        """The key or address whose share a message counts towards."""
        return self._address_owner or message.owner

    def reply(self) -> None:
        """Write the replies that are due, in the order of their messages."""
        data = self._replies.take_due()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        self.is_over = self.is_over or (self._lane is not None and self._lane.is_over)
        if self.is_over and not self._replies:
            self._end()
        else:
            self._pacing.resume()

    def read_on(self) -> None:
        """Read again, now that the intake has room."""
        self._pacing.resume()

    # Messages that wait for a look-up

    def wait_for_look_up(self) -> None:
        self._pacing.pause()

    def take_looked_up(self, messages: list[Message]) -> None:
        self._take_decoded(messages)

    def resume_after_look_up(self) -> None:
        if not self._may_keep():
            self._refuse_to_keep()
        elif self._admission.is_looking_up:
            return
        elif self.is_over and not self._replies:
            self._end()
        elif self._peer_ended:
            self._take_last()
        else:
            self._pacing.resume()

    # Messages that only silence ends

    def _on_quiet(self) -> None:
        self._quiet_timer = None
        left_s = max(self._received_s, self._pacing.resumed_s) + self._quiet_s - self._loop.time()
        if self.is_over or not self.decoder.waits_for_quiet:
            return
        if self._admission.is_looking_up:
            self._quiet_timer = self._loop.call_later(QUIET_S, self._on_quiet)
        elif left_s > 0:
            self._quiet_timer = self._loop.call_later(left_s, self._on_quiet)
        else:
            self._take_quiet()

    @property
    def _quiet_s(self) -> float:
        return MORE_S if self.decoder.waits_for_more else QUIET_S

    def _take_quiet(self) -> None:
        self._take_decoded(self._admission.admit(self.decoder.quiet(self._collector.arrival())))

    def _take_whole(self) -> None:
        """Take a message that is whole, and waits only for more that could belong to it."""
        if not self.is_over and self.decoder.waits_for_more:
            self._take_quiet()

    # The end

    def _take_last(self) -> None:
        """Take what the decoder still has once the sender has ended, and close."""
        if not self.is_over:
            self._take_decoded(self._admission.admit(self.decoder.eof(self._collector.arrival())))
        if not self._admission.is_looking_up:
            self.finish()

    def end(self, denied: Denied) -> None:
        """Close, for the key no longer counts: reply to what was taken, then as to a message of that key."""
        ending = self._admission.ending(denied)
        if ending is None or self.is_over:
            return
        if self._pacing.stalled_s is not None:  # it reads no replies
            self.abort()
        else:
            self._take([ending])

    def give_way(self) -> None:
        """Close soon: the device has logged in over a newer connection."""
        self._gives_way_s = self._loop.time()

    def _end_for_newer(self) -> None:
        self._gives_way_s = None
        if self._login is not None and self._login.is_gateway:  # it has named another device since
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
        self._lingers = linger
        if not self._replies and not self._admission.is_looking_up:
            self._end()

    def _end(self) -> None:
        """Close; but to a sender that still sends only end our side at first, or a reset would swallow the reply."""
        if self._transport.is_closing():
            return
        is_first = self._closing_s is None
        self._closing_s = self._closing_s or self._loop.time()
        if self._peer_ended or not self._lingers or not self._transport.can_write_eof():
            self._transport.close()
        elif is_first:
            self._transport.write_eof()
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def fail(self, loop_name: str) -> None:
        """Abort for the exception that is being handled, which the background loop of this name met."""
        self._log.note_error(loop_name)
        metrics.LOOP_ERRORS.of(loop_name).add()
        self.abort()

    def check(self, now_s: float) -> None:
        """Close if a time limit has passed."""
        timeouts = self._collector.timeouts
        stalled_s = self._pacing.stalled_s or self._closing_s
        if stalled_s is not None and now_s - stalled_s > LINGER_S + timeouts.message_s:
            self._log.note("closed: its replies were not read")
            self.abort()
        elif self._closing_s is not None:
            if now_s - self._closing_s > LINGER_S:
                self._transport.close()
        elif self._gives_way_s is not None and now_s - self._gives_way_s > GIVE_WAY_S:
            self._end_for_newer()
        elif self._transport.is_reading() and not self._replies:
            self._check_silence(now_s)

    def _check_silence(self, now_s: float) -> None:
        timeouts, resumed_s = self._collector.timeouts, self._pacing.resumed_s
        silent_s = now_s - max(self._received_s, resumed_s)
        message_s = now_s - max(self._message_began_s, resumed_s)
        if self.decoder.is_mid_message and message_s > timeouts.message_s:
            rejection_counts.count(problems.TIMED_OUT)
            self._log.note("closed: a message took more than %g s to arrive", timeouts.message_s)
            self._transport.close()
        elif silent_s > self._collector.shortest_idle_s and silent_s > timeouts.idle_s_of(self.decoder):
            self._log.note("closed: silent for more than %g s", timeouts.idle_s_of(self.decoder))
            self._transport.close()
