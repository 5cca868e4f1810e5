"""Subscriber to an MQTT broker: acknowledges a message only when its records are on disk.

The session outlives the connection. So the broker keeps messages while the collector is not connected, and delivers
unacknowledged messages again. A message that cannot be stored is retried until it is stored; meanwhile the broker
delivers at most its window of unacknowledged messages. MQTT gives no such guarantee for QoS 0.

A retained message that the broker delivers again after a subscription is not stored again (retained_messages.py). The
session also keeps its subscriptions. They are saved in Redis, so that subscriptions that the settings no longer name
can be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import aiomqtt
import redis

from collector.framing.frame_decoder import Options
from collector.ingest.group_commit import Intake
from collector.inspection.protocol_metrics import tally_of
from collector.mqtt.retained_messages import Retained, packet_digest, payload_digest
from collector.protocols.mqtt_payload import DecodedPayload, read
from telemetry.codec.record_parser import Arrival
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError
from telemetry.model.mqtt_topics import Filter
from telemetry.observability import metrics

T = TypeVar("T")

log = logging.getLogger(__name__)

QOS = 1
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Minimum and maximum wait between two attempts to connect to the broker."""

LONGEST_PING_S = 2.0
"""Timeout for the broker's response to a ping before the connection is closed."""

RETRY_S = 2.0
"""Wait before a failed call of Redis is repeated."""

MAX_STORING = 1_000
MAX_WAITING = 10_000
"""Maximum messages that are being stored, and that wait for it. Above them, messages of QoS 0 are dropped, as MQTT
allows. Messages of QoS 1 are not dropped: the broker delivers only its window of them."""


class Broker(NamedTuple):
    """Address, topics and login of a broker. `client_id` names the session that the broker keeps."""

    host: str
    port: int
    client_id: str
    filters: Sequence[Filter]
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def session(self) -> str:
        """The name of the session, unique among all brokers."""
        return f"{self.address}/{self.client_id}"


class _Client(aiomqtt.Client):
    """A client that knows which messages have the flag "duplicate". aiomqtt does not report it."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._duplicates: set[int] = set()

    def take_duplicate(self, message: aiomqtt.Message) -> bool:
        """Return whether a message of QoS 1 was delivered again. To be called once for each message."""
        is_duplicate = message.qos == QOS and message.mid in self._duplicates
        if is_duplicate:
            self._duplicates.remove(message.mid)
        return is_duplicate

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if message.dup and message.qos == QOS:
            self._duplicates.add(message.mid)
        super()._on_message(client, userdata, message)


class Subscriber:
    """Receives from one broker until it is stopped. `connect` connects to the Redis that has its digests."""

    def __init__(
        self,
        broker: Broker,
        intake: Intake,
        options: Options,
        arrival: Callable[[], Arrival],
        connect: Callable[[], redis.Redis],
    ) -> None:
        self._broker = broker
        self._intake = intake
        self._retained = Retained(connect, broker.session)
        self._options = options._replace(transport="mqtt")
        self._arrival = arrival
        self._tally = tally_of("mqtt", "mqtt")
        self._repeated = metrics.RETAINED_REPEATED.of(broker.address)
        self._storing: set[asyncio.Task[None]] = set()
        self._last: dict[bytes, asyncio.Task[None]] = {}  # slot → the last task of `_storing` for this slot
        self._stopped = asyncio.Event()
        self._grace_s = 0.0

    async def run(self) -> None:
        """Receive, and connect again when the connection ends, until stopped."""
        with contextlib.closing(self._retained):
            await self._run()

    async def _run(self) -> None:
        wait_s, address = FIRST_WAIT_S, self._broker.address
        while not self._stopped.is_set():
            try:
                before = await self._retained.subscriptions()
                async with self._client() as client:
                    await self._subscribe(client, before)
                    log.info("subscribed to the broker %s", address)
                    wait_s = FIRST_WAIT_S
                    metrics.BROKER_CONNECTED.of(address).set(True)
                    await self._receive_until_stopped(client)
            except (aiomqtt.MqttError, StoreError, BusyError) as error:
                log.warning("cannot receive from the broker %s: %s; trying again in %g s", address, error, wait_s)
            finally:
                metrics.BROKER_CONNECTED.of(address).set(False)
                for task in self._storing:
                    task.cancel()  # the broker delivers unacknowledged messages again
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def stop(self, grace_s: float) -> None:
        """Receive nothing more. Messages that are stored within the grace period are acknowledged."""
        self._grace_s = grace_s
        self._stopped.set()

    def _client(self) -> _Client:
        b = self._broker
        client = _Client(
            b.host,
            b.port,
            username=b.username,
            password=b.password,
            identifier=b.client_id,
            clean_session=False,
            tls_context=b.tls,
            max_queued_incoming_messages=MAX_WAITING,
            logger=log.getChild(f"{b.host}:{b.port}"),
        )
        client._client.manual_ack_set(True)  # not in aiomqtt's interface; before the first message comes
        return client

    async def _subscribe(self, client: aiomqtt.Client, before: frozenset[str]) -> None:
        """Give the session the subscriptions of the settings instead of those before."""
        wanted = [topic_filter.subscription for topic_filter in self._broker.filters]
        possible = before.union(wanted)
        if possible != before:
            await self._retained.note_subscriptions(possible)
        granted = await client.subscribe([(topic, QOS) for topic in wanted])
        for topic, code in zip(wanted, granted, strict=False):
            if getattr(code, "is_failure", False):
                log.warning("the broker %s refuses the subscription to %s", self._broker.address, topic)
        gone = sorted(possible.difference(wanted))
        if gone:
            await client.unsubscribe(gone)
            await self._retained.note_subscriptions(frozenset(wanted))
            log.info("ended subscriptions at the broker %s: %s", self._broker.address, ", ".join(gone))

    async def _receive_until_stopped(self, client: _Client) -> None:
        receiving, stopped = asyncio.create_task(self._receive(client)), asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({receiving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                await receiving
                return
            receiving.cancel()
            await asyncio.wait({receiving})
            if self._storing:
                await asyncio.wait(self._storing, timeout=self._grace_s)
            await _all_read(client)
        finally:
            receiving.cancel()
            stopped.cancel()

    async def _receive(self, client: _Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            topic = str(message.topic)
            decoded = read(topic, payload, self._broker.filters, self._options, self._arrival())
            ahead = self._ahead(topic) if message.retain else set()
            is_duplicate = client.take_duplicate(message)
            task = asyncio.create_task(self._take(client, message, payload, decoded, ahead, is_duplicate))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
            if decoded.records or decoded.aside:
                self._note_last(self._retained.slot(topic, message.retain), task)
            if len(self._storing) >= MAX_STORING:
                await asyncio.wait(self._storing, return_when=asyncio.FIRST_COMPLETED)

    def _ahead(self, topic: str) -> set[asyncio.Task[None]]:
        """The last messages of a topic, of either kind, that are being stored."""
        return {self._last[slot] for slot in self._retained.slots(topic) if slot in self._last}

    def _note_last(self, slot: bytes, task: asyncio.Task[None]) -> None:
        def forget(_task: object) -> None:
            if self._last.get(slot) is task:
                del self._last[slot]

        self._last[slot] = task
        task.add_done_callback(forget)

    async def _take(
        self,
        client: _Client,
        message: aiomqtt.Message,
        payload: bytes,
        decoded: DecodedPayload,
        ahead: set[asyncio.Task[None]],
        is_duplicate: bool,
    ) -> None:
        """Store a message and acknowledge it. A retained one waits for the tasks `ahead`, which may store it."""
        if ahead:
            await asyncio.wait(ahead)
        topic = str(message.topic)
        if message.retain and await _when_possible(lambda: self._retained.is_stored(topic, payload)):
            self._repeated.add(1)
        elif is_duplicate and await _when_possible(
            lambda: self._retained.is_packet_stored(message.mid, topic, payload)
        ):
            metrics.RESENT.one.value += len(decoded.records)
        else:
            await self._store(message, topic, payload, decoded)
        client._client.ack(message.mid, message.qos)

    async def _store(self, message: aiomqtt.Message, topic: str, payload: bytes, decoded: DecodedPayload) -> None:
        await _when_possible(
            lambda: self._intake.submit(decoded.records, len(payload), aside=decoded.aside, limits_days=False)
        )
        digests = {}
        slot = self._retained.slot(topic, message.retain)
        if self._last.get(slot) is asyncio.current_task():  # else the digest of a later message is saved
            digests[slot] = payload_digest(payload)
        if message.qos == QOS and not all(record.is_stored_once for record in decoded.records):
            digests[self._retained.packet_slot(message.mid)] = packet_digest(topic, payload)
        if digests:
            await _when_possible(lambda: self._retained.note(digests))
        self._tally.count(1, len(decoded.records))
        self._tally.reject(problems.INVALID_RECORD, decoded.refused)


async def _when_possible(ask: Callable[[], Awaitable[T]]) -> T:
    """Call the store again until it can respond."""
    while True:
        try:
            return await ask()
        except BusyError as error:
            await asyncio.sleep(error.retry_after_s)
        except StoreError as error:
            log.warning("cannot save digests of MQTT messages: %s; trying again in %g s", error, RETRY_S)
            await asyncio.sleep(RETRY_S)


async def _all_read(client: aiomqtt.Client) -> None:
    """Return once the broker has read every acknowledgement, which its response to a ping shows.

    If a socket is closed while it has unread messages of the broker, it is reset. Acknowledgements that the broker has
    not read are then lost.
    """
    mqtt = client._client
    mqtt._send_pingreq()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_PING_S):
            while mqtt._ping_t:  # noqa: ASYNC110 - paho has no event for the response
                await asyncio.sleep(0.005)
