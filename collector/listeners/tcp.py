"""The TCP collector: moves bytes between sockets, decoders and the intake, and keeps the answers in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

from collector.framing.decoder import MORE_S, QUIET_S, Decoder, Message, Received, Rejected
from collector.framing.frame_decoder import Framed
from collector.ingest.arriving_bytes import Arriving, Upload
from collector.ingest.authorization import Pass
from collector.ingest.batch_order import Lane, Numbered
from collector.ingest.device_filter import DeviceFilter, not_now
from collector.ingest.group_commit import Intake
from collector.ingest.shard_writer import Outcome
from collector.inspection import traffic_capture
from collector.inspection.protocol_metrics import Tally, tally_for
from collector.listeners.keepalive import set_keepalive
from collector.listeners.rejected_messages import count_rejected, set_aside
from collector.listeners.tracker_logins import Login, Logins
from collector.protocols.auto_detect import Auto
from collector.protocols.http_detection import HTTP, is_http
from telemetry.access.key_cache import Keyring
from telemetry.audit import refusals as audit_refusals
from telemetry.audit.entry import ANONYMOUS, Actor
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.hot_store.entry_codec import Aside
from telemetry.http.problem_responses import busy_kind
from telemetry.limits.connections import Connections, Ticket
from telemetry.limits.rate_limits import Rates
from telemetry.model import problems
from telemetry.model.api_keys import Denied, key_id_in
from telemetry.model.errors import BusyError, StoreError
from telemetry.network.acceptor import Acceptor
from telemetry.network.client_certificates import Certified
from telemetry.network.tls import Identity
from telemetry.observability import metrics
from telemetry.observability.log_setup import of_connection
from telemetry.system.periodic import count_from_zero, run_periodically

log = logging.getLogger(__name__)

TURN_BYTES = 16 * 2**10
"""Bytes of one connection that are decoded before all others have their turn: 70 ms of the costliest nonsense."""

LONG_TURN_BYTES = 256 * 2**10
"""The most while the end of the message is known and further away, or more will hardly cost any, as the decoder says: a
frame of 1,000 records comes in two reads instead of a dozen, at 0.1 µs a record less."""

SIP_BYTES = 512
"""The same while the intake has no room: what was about to be read before all connections are held. And of connections
whose messages were tiny: one costs 10 to 30 µs, so a usual turn of single bytes would stop all others for 0.5 s."""

FIRST_TURN_BYTES = 2**11
"""The first turn of a connection, of which nothing is known."""

TINY_BYTES = 16
"""Messages of less than this on average are tiny; the shortest record has 15, and a heartbeat mostly comes alone."""

MAX_UNANSWERED = 1_000
"""Messages of one connection that may wait for their answer before it is read no further."""

LINGER_S = 2.0
"""How long a connection that we ended is still read from, so that a reset doesn't swallow our answer."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.02, 5.0
"""Between two looks whether a sender over its rate may send on."""

GIVE_WAY_S = 1.0
"""How long an older connection of a device is still read from: what it brought before the newer login may be unread."""

SWEEP_S = 0.5
SWEEP_CONNECTIONS = 500
"""Connections whose time limits are looked at before others have their turn: half a millisecond."""


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
        """That of who speaks so; one of whom a port of all protocols knows nothing yet may be a tracker."""
        is_tracker = isinstance(traffic_capture.innermost(decoder), Framed | Auto)
        return self.tracker_idle_s if is_tracker else self.idle_s


FOR_ONE = ("answers", "last answers", "idle connections", "held connections")
"""Loops in which an unexpected error ends one connection and no other."""


class TcpCollector:
    """A listening socket and its connections; `make_decoder` makes what reads one, of the address it comes from."""

    def __init__(
        self,
        intake: Intake,
        make_decoder: Callable[[str], Decoder],
        arrival: Callable[[], Arrival],
        timeouts: Timeouts,
        connections: Connections,
        max_held_bytes: int,
        tls: Identity | None = None,
        keyring: Keyring | None = None,
        rates: Rates | None = None,
        logins: Logins | None = None,
        devices: DeviceFilter | None = None,
    ) -> None:
        """With `logins` a tracker's older connection ends after it has logged in over a newer one. Without `devices`
        all devices are taken."""
        self.intake = intake
        self.keyring = keyring
        self.make_decoder = make_decoder
        self.arrival = arrival
        self.timeouts = timeouts
        self.shortest_idle_s = timeouts.shortest_idle_s
        self.logins = logins
        self.devices = devices
        self.received = bytearray(LONG_TURN_BYTES)  # one for all: what is read is decoded before the next read
        self._long_turn = memoryview(self.received)
        self._turn, self._sip = self._long_turn[:TURN_BYTES], self._long_turn[:SIP_BYTES]
        self.port = 0
        self.arriving = Arriving(max_held_bytes)  # messages that are not complete, of all connections
        self._admission = connections
        self._tls = tls
        self.rates = rates if rates is not None and rates.count_records else None
        self._connections: set[_Connection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._due: dict[_Connection, None] = {}  # those with answers to write, in order
        self._held: set[_Connection] = set()
        self._any_held = asyncio.Event()
        self._acceptor: Acceptor | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listening: socket.socket) -> None:
        """Take connections from a listening socket."""
        loop = asyncio.get_running_loop()
        self.port = listening.getsockname()[1]
        set_keepalive(listening, self.timeouts.keepalive_s, self.timeouts.user_timeout_s)
        metrics.HELD_BYTES.of(str(self.port)).watch(lambda: self.arriving.bytes)
        metrics.HELD_LIMIT.of(str(self.port)).set(self.arriving.max_bytes)
        self._acceptor = Acceptor(listening, self._admission, partial(_Connection, self), self._tls)
        _ = metrics.REPLACED.one
        count_from_zero(*FOR_ONE)
        self._tasks = [
            loop.create_task(run_periodically("idle connections", SWEEP_S, self._sweep)),
            loop.create_task(run_periodically("held connections", 0.0, self._release)),
        ]

    async def stop(self, grace_s: float) -> None:
        """Take no more, answer what is with the intake, close all."""
        if self._acceptor is not None:
            self._acceptor.close()
        for connection in list(self._connections):
            self._for_one(connection, "last answers", partial(connection.finish, linger=False))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), grace_s)
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    def turn(self, wanted_bytes: int, most_bytes: int) -> memoryview:
        """Where a connection's next bytes go, which lacks so many of a message; 0 if that isn't known.

        They are at most `most_bytes` unless it lacks more than a usual turn has.
        """
        if not self.intake.has_room:
            return self._sip
        if most_bytes < TURN_BYTES:
            return self._turn[:most_bytes]
        return self._turn if wanted_bytes <= TURN_BYTES else self._long_turn[:wanted_bytes]

    def certified(self, transport: asyncio.BaseTransport) -> Certified | None:
        """Who a connection is by its client certificate; None without one."""
        if self._tls is None or self._tls.clients is None:
            return None
        return self._tls.clients.certified(transport.get_extra_info("peercert"))

    def opened(self, connection: _Connection) -> None:
        """Note a connection that is open."""
        self._connections.add(connection)
        self._all_closed.clear()

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._held.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def answer_soon(self, connection: _Connection) -> None:
        """Have a connection write its answers, all of a group that are its own at once."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._answer_due)
        self._due[connection] = None

    def _answer_due(self) -> None:
        due, self._due = self._due, {}
        for connection in due:
            try:
                connection.answer()
            except Exception:
                connection.fail("answers")

    def _for_one(self, connection: _Connection, name: str, act: Callable[[], None]) -> None:
        """Do something for one of many connections: an unexpected error ends that connection and no other."""
        try:
            act()
        except Exception:
            connection.fail(name)

    def hold(self, connection: _Connection) -> None:
        """Have a connection read on once the intake has room."""
        self._held.add(connection)
        self._any_held.set()

    async def _sweep(self) -> None:
        """Close what was silent or slow for too long: one look at all is cheaper than a timer for each."""
        now_s = asyncio.get_running_loop().time()
        connections = list(self._connections)
        for start in range(0, len(connections), SWEEP_CONNECTIONS):
            for connection in connections[start : start + SWEEP_CONNECTIONS]:
                self._for_one(connection, "idle connections", partial(connection.check, now_s))
            await asyncio.sleep(0)

    async def _release(self) -> None:
        """Read on, once the intake has room, from connections that were held while it had none."""
        await self._any_held.wait()
        await self.intake.room()
        self._any_held.clear()
        held, self._held = self._held, set()
        for connection in held:
            self._for_one(connection, "held connections", connection.read_on)


class _Awaited:
    """A message of a connection, and what became of it, once that is known; of one that can't be used nothing does."""

    __slots__ = ("_connection", "message", "outcome")

    def __init__(self, connection: _Connection, message: Message) -> None:
        self._connection = connection
        self.message = message
        self.outcome: Outcome | None = None if isinstance(message, Received) else False

    def tell(self, outcome: Outcome) -> None:
        """Hear what became of it."""
        self.outcome = outcome
        self._connection.answer_soon()

    def answer(self) -> bytes:
        """What its sender hears."""
        message, outcome = self.message, self.outcome
        if isinstance(message, Rejected):
            return message.answer
        if isinstance(outcome, Exception):
            rejection_counts.count(busy_kind(outcome))
            return message.not_stored(str(outcome) if isinstance(outcome, BusyError) else "the store failed")
        return message.repeated if outcome and message.sender else message.stored


class _Connection(asyncio.BufferedProtocol):
    # beyond 30 attributes a dict of its own would cost each connection memory, and each look-up time
    __slots__ = (
        "_answers",
        "_begun_s",
        "_closing_s",
        "_collector",
        "_decoder",
        "_device_id",
        "_gives_way_s",
        "_heard_s",
        "_held_bytes",
        "_is_first",
        "_is_held",
        "_lane",
        "_lingers",
        "_login",
        "_lookup",
        "_loop",
        "_most_bytes",
        "_no_more",
        "_owner",
        "_pass",
        "_peer_ended",
        "_quiet_timer",
        "_rate_timer",
        "_stalled_s",
        "_tally",
        "_ticket",
        "_tracker",
        "_transport",
        "_turn_bytes",
        "_upload",
        "_waiting_bytes",
        "address",
        "name",
    )

    _decoder: Decoder  # made once the peer's address is known

    def __init__(self, collector: TcpCollector, ticket: Ticket) -> None:
        self._collector = collector
        self._ticket = ticket
        self._pass: Pass | None = None
        if collector.keyring is not None:
            self._pass = Pass(collector.keyring, self, self._note_refusal, collector.intake.shares)
        self._loop = asyncio.get_running_loop()
        self._held_bytes = 0  # of a message that is not complete, as the collector knows it
        self._upload: Upload | None = None  # made for the first such message
        self._turn_bytes = TURN_BYTES
        self._most_bytes = FIRST_TURN_BYTES  # of the next turn
        self._answers: deque[_Awaited] = deque()
        self._lane: Lane | None = None  # made for the first batch of a sender who names itself
        self.address = ""
        self.name = ticket.name
        self._heard_s = self._begun_s = self._loop.time()
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._is_first = True  # until the first bytes have come
        self._no_more = False  # nothing further is decoded: the sender ended, or a last message came
        self._lingers = True
        self._peer_ended = False
        self._closing_s: float | None = None
        self._stalled_s: float | None = None  # since when the peer has not read its answers
        self._is_held = False
        self._owner = ticket.owner
        self._lookup: asyncio.Task[None] | None = None  # while messages wait for the look-up of their key
        self._waiting_bytes = 0  # of those messages
        self._rate_timer: asyncio.TimerHandle | None = None  # while its owner has sent too many records
        self._tally: Tally | None = None  # known once the first bytes have told the protocol
        self._tracker: Framed | None = None  # known then, too: the decoder, if a tracker speaks
        self._login: Login | None = None  # made once a tracker has named itself
        self._device_id = ""  # the device that it named last
        self._gives_way_s: float | None = None  # since when there is a newer connection of its device

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self._decoder = self._collector.make_decoder(self.address)
        self._collector.opened(self)
        certified = self._collector.certified(transport)
        if certified is not None and self._pass is not None:
            self._pass.certify(certified)
        self._see_event("opened")
        self._note("opened, on port %d", self._collector.port, level=logging.DEBUG)

    def get_buffer(self, _sizehint: int) -> memoryview:
        turn = self._collector.turn(self._decoder.wanted_bytes, self._most_bytes)
        self._turn_bytes = len(turn)
        return turn

    def buffer_updated(self, nbytes: int) -> None:
        if self._no_more:
            return
        self._heard_s = self._loop.time()
        was_mid_message = self._decoder.is_mid_message
        data = self._collector.received[:nbytes]
        is_first, self._is_first = self._is_first, False
        if is_first and is_http(data):
            messages: list[Message] = [HTTP]
        else:
            messages = self._allowed(self._decoder.feed(data, self._collector.arrival()))
        self._most_bytes = SIP_BYTES if len(messages) * TINY_BYTES > max(nbytes, SIP_BYTES // 2) else TURN_BYTES
        self._see(data, messages)
        if messages or not was_mid_message:
            self._begun_s = self._heard_s
        self._take(messages)
        if not self._may_keep():
            self._refuse_to_keep()
            return
        if self._decoder.waits_for_quiet and self._quiet_timer is None:
            self._quiet_timer = self._loop.call_later(self._quiet_s, self._on_quiet)
        if not self._may_read and not self._no_more:
            self._hold()
        elif nbytes == self._turn_bytes:
            self._transport.pause_reading()  # more waits in the socket: the loop would read on and on
            self._loop.call_soon(self._next_turn)

    def eof_received(self) -> bool:
        self._peer_ended = True
        if self._lookup is None:
            self._take_last()
        return True

    def _take_last(self) -> None:
        """Take what the decoder still has once the sender has ended, and close."""
        if not self._no_more:
            messages = self._allowed(self._decoder.eof(self._collector.arrival()))
            self._see(b"", messages)
            self._take(messages)
        if self._lookup is None:
            self.finish()

    def pause_writing(self) -> None:
        self._stalled_s = self._loop.time()
        self._hold()

    def resume_writing(self) -> None:
        self._stalled_s = None
        self.read_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._take_whole()
        self._no_more = True
        self._see_event("closed")
        self._note("closed%s", f": {type(error).__name__}" if error else "", level=logging.DEBUG)
        self._forget()
        if self._pass is not None:
            self._pass.release()
        self._collector.closed(self)
        self._ticket.close()
        if self._login is not None:
            self._login.close()
        for waiting in (self._quiet_timer, self._rate_timer):
            if waiting is not None:
                waiting.cancel()
        if self._lookup is not None and self._pass is not None and self._pass.unknown is not None:
            self._lookup.cancel()

    # For somebody who looks

    def _see(self, data: bytes | bytearray, messages: list[Message]) -> None:
        if traffic_capture.is_watched(self._collector.port) and (data or messages):
            traffic_capture.see_frame(self._collector.port, "tcp", self._peer, self._decoder, data, messages, self.name)

    def _see_event(self, event: str) -> None:
        if traffic_capture.is_watched(self._collector.port):
            traffic_capture.see_event(event, self._collector.port, self._peer, self.name)

    def _note(self, said: str, *values: object, level: int = logging.INFO) -> None:
        """Log what becomes of the connection, but nothing of what was sent. Lines count as alike by who calls this."""
        if log.isEnabledFor(level):
            log.log(level, f"%s: {said}", self._peer, *values, extra=of_connection(self.name), stacklevel=2)

    def _note_refused(self, message: Rejected) -> None:
        """The same of a message that can't be used, by the kind of its fault: the reason may quote the message."""
        if message.kind is None:
            return
        protocol = traffic_capture.speaker(self._decoder)[0] or "unknown protocol"
        if message.last:
            self._note("closed for a message of %s: %s", protocol, message.kind.name)
        else:
            self._note("refused a message of %s: %s", protocol, message.kind.name, level=logging.DEBUG)

    @property
    def _peer(self) -> str:
        return traffic_capture.address(self._transport.get_extra_info("peername"))

    # What is kept of unfinished messages

    def _may_keep(self) -> bool:
        held_bytes = self._decoder.held_bytes + self._waiting_bytes
        if held_bytes == self._held_bytes:
            return True
        self._held_bytes = held_bytes
        if self._upload is None:
            self._upload = Upload(self._owner, self._refuse_to_keep)
        return self._collector.arriving.hold(self._upload, held_bytes)

    def _refuse_to_keep(self) -> None:
        """The sender hears nothing, and so keeps the message; it is free to come again when there is room."""
        rejection_counts.count(problems.BUSY)
        self._note("closed: unfinished messages of all connections have collector.max_pending_bytes")
        self._forget()
        self.finish(linger=False)

    def _forget(self) -> None:
        """Let go of what was kept."""
        if self._upload is not None:
            self._collector.arriving.hold(self._upload, 0)
        self._held_bytes = 0
        self._decoder = self._collector.make_decoder(self.address)

    # Messages in, answers out

    def _allowed(self, messages: list[Message]) -> list[Message]:
        """What the sender's key allows, if one is asked for, of devices that the port takes; the rest as `Rejected`.
        Messages of devices that must be looked up are taken later."""
        devices = self._collector.devices
        if devices is not None:
            named = traffic_capture.speaker(self._decoder)[1]
            if undecided := devices.undecided(messages, named):
                self._wait_for_devices(devices, undecided, messages)
                return []
            messages = self._permitted(messages)
            is_tracker = isinstance(traffic_capture.innermost(self._decoder), Framed)
            return devices.judged(messages, named, self._peer, ends=is_tracker and not self._device_id)
        return self._permitted(messages)

    def _permitted(self, messages: list[Message]) -> list[Message]:
        """What the sender's key allows; messages of a key that may be new are taken later, once it was looked up."""
        if self._pass is None:
            return messages
        allowed = list(self._pass.judged(messages))
        if self._pass.unknown is not None:
            self._waiting_bytes = self._pass.unknown.size_bytes
            self._lookup = self._loop.create_task(self._look_up(self._pass))
            self._hold()
        return allowed

    async def _look_up(self, passing: Pass) -> None:
        """Look up the key that is not known, then take the messages that waited. Until then nothing is read."""
        waited = list(await passing.look_up(self.address))
        self._lookup, self._waiting_bytes = None, 0
        if not self._no_more:
            self._take_waited(self._allowed(waited))
        self._go_on()

    def _wait_for_devices(self, devices: DeviceFilter, undecided: list[str], messages: list[Message]) -> None:
        self._waiting_bytes = sum(one.size_bytes for one in messages if isinstance(one, Received))
        self._lookup = self._loop.create_task(self._look_up_devices(devices, undecided, messages))
        self._hold()

    async def _look_up_devices(self, devices: DeviceFilter, undecided: list[str], messages: list[Message]) -> None:
        """Look devices up, then take the messages that waited, though the connection may have ended meanwhile."""
        try:
            await devices.look_up(undecided)
        except (StoreError, BusyError) as error:
            messages, is_busy = not_now(messages, error), True
        else:
            is_busy = False
        self._lookup, self._waiting_bytes = None, 0
        self._take_waited(messages if is_busy else self._allowed(messages))
        self._go_on()

    def _take_waited(self, messages: list[Message]) -> None:
        self._see(b"", messages)
        self._take(messages)

    def _go_on(self) -> None:
        """After a look-up: read on, or end if the connection ends."""
        if not self._may_keep():
            self._refuse_to_keep()
        elif self._lookup is not None:
            return
        elif self._no_more and not self._answers:
            self._end()
        elif self._peer_ended:
            self._take_last()
        else:
            self.read_on()

    def _note_refusal(self, denied: Denied, token: str) -> None:
        target, key_id = f"TCP port {self._collector.port}", self._key_id
        actor = Actor("key", key_id) if key_id else ANONYMOUS
        audit_refusals.note(denied.kind, self.address, target, actor, "" if key_id else key_id_in(token))

    def _take(self, messages: list[Message]) -> None:
        if not messages:
            return
        records = 0
        aside: list[Aside] = []
        tally = self._tally or self._find_tally()
        for message in messages:
            if isinstance(message, Received):
                awaited = _Awaited(self, message.without_records())
                self._answers.append(awaited)
                records += len(message.records)
                self._collector.intake.hand_over(
                    awaited.tell,
                    message.records,
                    message.size_bytes,
                    self._numbered(message),
                    message.aside,
                    message.owner,
                )
                if message.aside:
                    tally.reject(problems.INVALID_RECORD, len(message.aside))
            else:
                self._answers.append(_Awaited(self, message))
                count_rejected(message, tally)
                aside += message.aside
                self._note_refused(message)
            self._no_more = self._no_more or message.last
        set_aside(self._collector.intake, aside)
        if messages and self._collector.rates is not None:
            self._pay(self._collector.rates, messages)
        tally.count(len(messages), records)
        if self._tracker is not None and self._tracker.device_id != self._device_id:
            self._log_in(self._tracker.device_id, messages)
        if self._answers[0].outcome is not None:
            self.answer()

    def _find_tally(self) -> Tally:
        """That of the protocol, once the first bytes have told it."""
        tally = tally_for(self._decoder, "tcp")
        if tally.is_known:
            self._tally, chosen = tally, traffic_capture.innermost(self._decoder)
            self._tracker = chosen if isinstance(chosen, Framed) else None
        return tally

    def _log_in(self, device_id: str, messages: list[Message]) -> None:
        """Take note of the device that a tracker has named, if it may speak for it."""
        if self._no_more or not any(isinstance(one, Received) for one in messages):
            return
        self._device_id = device_id
        if self._collector.logins is None or (self._pass is not None and not self._pass.covers(device_id)):
            return
        if self._login is None:
            self._login = Login(self._collector.logins, self.give_way)
        self._login.name(device_id)

    def _numbered(self, message: Received) -> Numbered | None:
        if not message.sender:
            return None
        if self._lane is None:
            self._lane = Lane()
        owner = message.owner if self._pass else self._collector.intake.shares.of_address(self.address)
        return Numbered(message.sender, message.number, self._lane, owner)

    def answer_soon(self) -> None:
        """Write what is due once it is known what became of all messages of a group."""
        self._collector.answer_soon(self)

    def answer(self) -> None:
        """Write the answers that are due, in the order of their messages."""
        ready = []
        while self._answers and self._answers[0].outcome is not None:
            ready.append(self._answers.popleft().answer())
        data = ready[0] if len(ready) == 1 else b"".join(ready)
        if data and not self._transport.is_closing():
            self._transport.write(data)
        self._no_more = self._no_more or (self._lane is not None and self._lane.is_over)
        if self._no_more and not self._answers:
            self._end()
        else:
            self.read_on()

    def _on_quiet(self) -> None:
        self._quiet_timer = None
        left_s = self._heard_s + self._quiet_s - self._loop.time()
        if self._no_more or not self._decoder.waits_for_quiet:
            return
        if self._lookup is not None:
            self._quiet_timer = self._loop.call_later(QUIET_S, self._on_quiet)
        elif left_s > 0:
            self._quiet_timer = self._loop.call_later(left_s, self._on_quiet)
        else:
            self._take_quiet()

    @property
    def _quiet_s(self) -> float:
        return MORE_S if self._decoder.waits_for_more else QUIET_S

    def _take_quiet(self) -> None:
        messages = self._allowed(self._decoder.quiet(self._collector.arrival()))
        self._see(b"", messages)
        self._take(messages)

    def _take_whole(self) -> None:
        """Take what was sent whole, and waits only for more that could belong to it."""
        if not self._no_more and self._decoder.waits_for_more:
            self._take_quiet()

    # Reading in turns, and no faster than storing

    def _next_turn(self) -> None:
        if not self._is_held and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def _may_read(self) -> bool:
        return (
            self._stalled_s is None
            and self._rate_timer is None
            and self._lookup is None
            and len(self._answers) < MAX_UNANSWERED
            and self._collector.intake.has_room
        )

    @property
    def _key_id(self) -> str:
        return "" if self._pass is None else self._pass.key_id

    def _pay(self, rates: Rates, messages: list[Message]) -> None:
        """Count what came; one that can't be used counts as one record. Of too much the sender reads nothing on."""
        records = sum(max(1, len(one.records)) if isinstance(one, Received) else 1 for one in messages)
        rates.spend_records(self._owner, self._key_id, records)
        if self._rate_timer is None:
            self._await_rate(rates)

    def _await_rate(self, rates: Rates) -> None:
        wait_s = rates.records_wait_s(self._owner, self._key_id)
        self._rate_timer = None
        if wait_s > 0:
            self._note("over its rate: it waits %.1f s", wait_s, level=logging.DEBUG)
            wait_s = min(max(wait_s, SHORTEST_WAIT_S), LONGEST_WAIT_S)
            self._rate_timer = self._loop.call_later(wait_s, self._await_rate, rates)
        else:
            self.read_on()

    def _hold(self) -> None:
        if not self._transport.is_closing():
            self._is_held = True
            self._transport.pause_reading()
            if not self._collector.intake.has_room:
                self._collector.hold(self)

    def read_on(self) -> None:
        """Read again after a hold, if nothing speaks against it any more."""
        if not self._is_held or self._transport.is_closing():
            return
        if self._may_read:
            self._is_held = False
            self._heard_s = self._begun_s = self._loop.time()  # it was we who made it wait
            self._transport.resume_reading()
        elif not self._collector.intake.has_room:
            self._collector.hold(self)

    # The end

    def end(self, denied: Denied) -> None:
        """Close, for the key no longer counts: answer what was taken, then say so as to a message of that key."""
        if self._pass is None or self._no_more:
            return
        if self._stalled_s is not None:  # it reads no answers
            self.abort()
        else:
            self._take([self._pass.refused(denied)])

    def give_way(self) -> None:
        """Close soon: the device has logged in over a newer connection."""
        self._gives_way_s = self._loop.time()

    def _end_for_newer(self) -> None:
        self._gives_way_s = None
        if self._login is not None and self._login.is_gateway:  # it has named another device since
            return
        self._note("closed: its device has logged in over a newer connection")
        metrics.REPLACED.one.add()
        if self._stalled_s is not None:  # it reads no answers
            self.abort()
        else:
            self.finish(linger=False)

    def finish(self, linger: bool = True) -> None:
        """Decode nothing further; close once all is answered."""
        self._take_whole()
        self._no_more = True
        self._lingers = linger
        if not self._answers and self._lookup is None:
            self._end()

    def _end(self) -> None:
        """Close; but to a sender that still sends only end our side at first, or a reset eats the answer."""
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
        self._transport.abort()

    def fail(self, name: str) -> None:
        """Abort for the exception that is being handled, which the background loop of this name met."""
        log.exception("%s: closed for an unexpected error (%s)", self._peer, name, extra=of_connection(self.name))
        metrics.LOOP_ERRORS.of(name).add()
        self.abort()

    def check(self, now_s: float) -> None:
        """Close if a time limit has passed."""
        timeouts = self._collector.timeouts
        stalled_s = self._stalled_s or self._closing_s
        if stalled_s is not None and now_s - stalled_s > LINGER_S + timeouts.message_s:
            self._note("closed: its answers were not read")
            self.abort()
        elif self._closing_s is not None:
            if now_s - self._closing_s > LINGER_S:
                self._transport.close()
        elif self._gives_way_s is not None and now_s - self._gives_way_s > GIVE_WAY_S:
            self._end_for_newer()
        elif self._transport.is_reading() and not self._answers:
            silent_s = now_s - self._heard_s
            is_slow = self._decoder.is_mid_message and now_s - self._begun_s > timeouts.message_s
            if is_slow:
                rejection_counts.count(problems.TIMED_OUT)
                self._note("closed: a message took more than %g s to arrive", timeouts.message_s)
                self._transport.close()
            elif silent_s > self._collector.shortest_idle_s and silent_s > timeouts.idle_s_of(self._decoder):
                self._note("closed: silent for more than %g s", timeouts.idle_s_of(self._decoder))
                self._transport.close()
