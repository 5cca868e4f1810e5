"""The TCP collector: accepts the connections of one port, and checks all their time limits in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial

from collector.framing.decoder import Decoder
from collector.ingest.arriving_bytes import Arriving
from collector.ingest.device_filter import DeviceFilter
from collector.ingest.group_commit import Intake
from collector.listeners.connection.read_pacing import LONG_TURN_BYTES, SHORT_TURN_BYTES, TURN_BYTES
from collector.listeners.connection.time_limits import Timeouts
from collector.listeners.keepalive import set_keepalive
from collector.listeners.tcp_connection import Connection
from collector.listeners.tracker_logins import Logins
from telemetry.access.key_cache import Keyring
from telemetry.codec.record_parser import Arrival
from telemetry.limits.connections import Connections
from telemetry.limits.rate_limits import Rates
from telemetry.network.acceptor import Acceptor
from telemetry.network.client_certificates import Certified
from telemetry.network.tls import Identity
from telemetry.observability import metrics
from telemetry.system.periodic import count_from_zero, run_periodically

SWEEP_S = 0.5
SWEEP_CONNECTIONS = 500
"""Connections whose time limits are checked before other tasks have their turn."""

CONNECTION_LOOPS = ("answers", "last answers", "idle connections", "held connections")
"""Loops in which an unexpected error ends one connection and no other."""


class TcpCollector:
    """A listening socket and its connections. `make_decoder` makes a connection's decoder from the peer's address."""

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
        all devices are accepted."""
        self.intake = intake
        self.keyring = keyring
        self.make_decoder = make_decoder
        self.arrival = arrival
        self.timeouts = timeouts
        self.shortest_idle_s = timeouts.shortest_idle_s
        self.logins = logins
        self.devices = devices
        self.received = bytearray(LONG_TURN_BYTES)  # shared by all connections: bytes are decoded before the next read
        self._long_turn = memoryview(self.received)
        self._turn, self._short_turn = self._long_turn[:TURN_BYTES], self._long_turn[:SHORT_TURN_BYTES]
        self.port = 0
        self.arriving = Arriving(max_held_bytes)  # unfinished messages of all connections
        self._admission = connections
        self._tls = tls
        self.rates = rates if rates is not None and rates.count_records else None
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._due: dict[Connection, None] = {}  # connections with replies to write, in order
        self._waiting: set[Connection] = set()
        self._any_waiting = asyncio.Event()
        self._acceptor: Acceptor | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listening: socket.socket) -> None:
        """Accept connections from a listening socket."""
        loop = asyncio.get_running_loop()
        self.port = listening.getsockname()[1]
        set_keepalive(listening, self.timeouts.keepalive_s, self.timeouts.user_timeout_s)
        metrics.HELD_BYTES.of(str(self.port)).watch(lambda: self.arriving.bytes)
        metrics.HELD_LIMIT.of(str(self.port)).set(self.arriving.max_bytes)
        self._acceptor = Acceptor(listening, self._admission, partial(Connection, self), self._tls)
        _ = metrics.REPLACED.one
        count_from_zero(*CONNECTION_LOOPS)
        self._tasks = [
            loop.create_task(run_periodically("idle connections", SWEEP_S, self._sweep)),
            loop.create_task(run_periodically("held connections", 0.0, self._release)),
        ]

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, reply to the messages in the intake, close all connections."""
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

    def turn(self, wanted_bytes: int, max_bytes: int) -> memoryview:
        """Return the buffer for a connection's next bytes, whose message lacks `wanted_bytes`; 0 if that isn't known.

        It has at most `max_bytes` unless the message lacks more than a usual turn has.
        """
        if not self.intake.has_room:
            return self._short_turn
        if max_bytes < TURN_BYTES:
            return self._turn[:max_bytes]
        return self._turn if wanted_bytes <= TURN_BYTES else self._long_turn[:wanted_bytes]

    def certified(self, transport: asyncio.BaseTransport) -> Certified | None:
        """Return the client certificate of a connection; None without one."""
        if self._tls is None or self._tls.clients is None:
            return None
        return self._tls.clients.certified(transport.get_extra_info("peercert"))

    def opened(self, connection: Connection) -> None:
        """Note an open connection."""
        self._connections.add(connection)
        self._all_closed.clear()

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._waiting.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def reply_soon(self, connection: Connection) -> None:
        """Schedule a connection's replies, so that the replies of one group are written together."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._reply_due)
        self._due[connection] = None

    def _reply_due(self) -> None:
        due, self._due = self._due, {}
        for connection in due:
            try:
                connection.reply()
            except Exception:
                connection.fail("answers")

    def _for_one(self, connection: Connection, name: str, act: Callable[[], None]) -> None:
        """Call `act` for one of many connections: an unexpected error ends that connection and no other."""
        try:
            act()
        except Exception:
            connection.fail(name)

    def wait_for_room(self, connection: Connection) -> None:
        """Have a connection read again once the intake has room."""
        self._waiting.add(connection)
        self._any_waiting.set()

    async def _sweep(self) -> None:
        """Close connections that exceeded a time limit: one check of all is cheaper than a timer for each."""
        now_s = asyncio.get_running_loop().time()
        connections = list(self._connections)
        for start in range(0, len(connections), SWEEP_CONNECTIONS):
            for connection in connections[start : start + SWEEP_CONNECTIONS]:
                self._for_one(connection, "idle connections", partial(connection.check, now_s))
            await asyncio.sleep(0)

    async def _release(self) -> None:
        """Have connections read again that were paused while the intake had no room."""
        await self._any_waiting.wait()
        await self.intake.room()
        self._any_waiting.clear()
        waiting, self._waiting = self._waiting, set()
        for connection in waiting:
            self._for_one(connection, "held connections", connection.read_on)
