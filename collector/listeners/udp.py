"""The UDP collector: each datagram is one message, answered once its records are on disk.

If the intake has no room, or the sender is over its rate limit, a datagram is dropped and counted. The device gets no
reply, so it sends the datagram again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from collector.framing.decoder import Message, Received, Rejected
from collector.framing.frame_decoder import Framed
from collector.ingest.device_filter import DeviceFilter
from collector.ingest.group_commit import Intake
from collector.inspection import traffic_capture
from collector.inspection.protocol_metrics import Tally, tally_for
from collector.listeners.rejected_messages import count_rejected, set_aside
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.http.problem_responses import busy_kind
from telemetry.limits.client_address import owner
from telemetry.limits.rate_limits import Rates
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError
from telemetry.model.problems import Problem
from telemetry.observability import metrics

log = logging.getLogger(__name__)

Address = tuple[Any, ...]

RECEIVE_BYTES = 4 * 2**20
"""Size of the socket's receive buffer, for the datagrams that arrive while a group is written."""

MAX_LOOKUPS = 1_000
"""Maximum datagrams that wait for the look-up of their device."""


class UdpCollector:
    """A UDP socket. `make_decoder` makes the decoder of one datagram, for the address of its sender."""

    def __init__(
        self,
        intake: Intake,
        make_decoder: Callable[[str], Framed],
        arrival: Callable[[], Arrival],
        rates: Rates | None = None,
        devices: DeviceFilter | None = None,
    ) -> None:
        """Without `devices` all devices are accepted."""
        self.intake = intake
        self.devices = devices
        self._looking_up: set[asyncio.Task[None]] = set()  # datagrams whose device is being looked up
        self.make_decoder = make_decoder
        self.arrival = arrival
        self.rates = rates if rates is not None and rates.count_records else None
        self.port = 0
        self._waiting: set[asyncio.Future[bool]] = set()
        self._is_over = False
        self._transport: asyncio.DatagramTransport | None = None
        self._datagrams, self._dropped = metrics.DATAGRAMS.one, metrics.DATAGRAMS_DROPPED.one

    async def start(self, listening: socket.socket) -> None:
        """Receive datagrams from a bound socket."""
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.port = listening.getsockname()[1]
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=listening)
        self._transport = transport

    async def stop(self, grace_s: float) -> None:
        """Receive nothing more, reply to the datagrams in the intake, close."""
        self._is_over = True
        if self._looking_up:
            await asyncio.wait(self._looking_up, timeout=grace_s)
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait(self._waiting, timeout=grace_s)
        if self._transport is not None:
            self._transport.close()

    def received(self, data: bytes, address: Address, send: Callable[[bytes], None]) -> None:
        """Decode a datagram; `send` sends the reply."""
        if self._is_over:
            return
        self._datagrams.value += 1
        if not self.intake.has_room:
            self._drop(problems.BUSY, address)
            return
        if self.rates is not None and self.rates.records_wait_s(owner(address[0])) > 0:
            self._drop(problems.RATE_LIMITED, address)
            return
        decoder = self.make_decoder(address[0])
        messages = decoder.datagram(data, self.arrival())
        if self.devices is None:
            self._take_all(messages, data, decoder, address, send)
        elif undecided := self.devices.undecided(messages, decoder.device_id):
            self._look_up(self.devices, undecided, partial(self._judge, messages, data, decoder, address, send))
        else:
            self._judge(messages, data, decoder, address, send)

    def _look_up(self, devices: DeviceFilter, undecided: list[str], judge: Callable[[], None]) -> None:
        """Look devices up, then check the datagram. If they cannot be looked up, it is dropped without a reply."""
        if len(self._looking_up) >= MAX_LOOKUPS:
            rejection_counts.count(problems.BUSY)
            self._dropped.value += 1
            return

        async def look_up() -> None:
            try:
                await devices.look_up(undecided)
            except (StoreError, BusyError) as error:
                rejection_counts.count(problems.BUSY)
                self._dropped.value += 1
                log.info("port %d: dropped a datagram: %s", self.port, error)
            else:
                judge()

        task = asyncio.get_running_loop().create_task(look_up())
        self._looking_up.add(task)
        task.add_done_callback(self._looking_up.discard)

    def _judge(
        self, messages: list[Message], data: bytes, decoder: Framed, address: Address, send: Callable[[bytes], None]
    ) -> None:
        """Take the messages of devices that the port accepts."""
        if self.devices is not None:
            messages = self.devices.judged(messages, decoder.device_id, traffic_capture.address(address))
        self._take_all(messages, data, decoder, address, send)

    def _take_all(
        self, messages: list[Message], data: bytes, decoder: Framed, address: Address, send: Callable[[bytes], None]
    ) -> None:
        tally = tally_for(decoder, "udp")
        records = sum(len(message.records) for message in messages if isinstance(message, Received))
        tally.count(len(messages), records)
        if traffic_capture.is_watched(self.port):
            traffic_capture.see_frame(self.port, "udp", traffic_capture.address(address), decoder, data, messages)
        if self.rates is not None:
            self.rates.spend_records(owner(address[0]), "", max(1, records))
        set_aside(
            self.intake, [aside for message in messages if isinstance(message, Rejected) for aside in message.aside]
        )
        for message in messages:
            self._take(message, send, tally, address[0])
            if isinstance(message, Rejected) and message.kind is not None and log.isEnabledFor(logging.DEBUG):
                peer, kind = traffic_capture.address(address), message.kind.name
                log.debug(
                    "%s, port %d: rejected a datagram (%s): %s",
                    peer,
                    self.port,
                    traffic_capture.speaker(decoder)[0],
                    kind,
                )

    def _drop(self, kind: Problem, address: Address) -> None:
        rejection_counts.count(kind)
        self._dropped.value += 1
        log.info("%s, port %d: dropped a datagram: %s", traffic_capture.address(address), self.port, kind.name)

    def _take(self, message: Message, send: Callable[[bytes], None], tally: Tally, address: str) -> None:
        if isinstance(message, Received):
            owner = self.intake.shares.of_address(address)
            future = self.intake.offer(message.records, message.size_bytes, None, message.aside, owner)
            self._waiting.add(future)
            tally.reject(problems.INVALID_RECORD, len(message.aside))
            future.add_done_callback(partial(self._on_stored, message.stored, send))
            return
        count_rejected(message, tally)
        if message.answer:
            send(message.answer)

    def _on_stored(self, answer: bytes, send: Callable[[bytes], None], future: asyncio.Future[bool]) -> None:
        self._waiting.discard(future)
        error = None if future.cancelled() else future.exception()
        if error is not None or future.cancelled():
            rejection_counts.count(busy_kind(error))
        elif answer:
            send(answer)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, collector: UdpCollector) -> None:
        self._collector = collector

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: Address) -> None:
        self._collector.received(data, address, partial(self._transport.sendto, addr=address))
