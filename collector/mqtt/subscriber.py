"""A subscriber to a broker of MQTT: a message is acknowledged only when its records are on disk.

The session outlives the connection, so the broker keeps what comes while nobody hears, and brings again what was not
acknowledged. What can't be stored now is tried again until it can: the broker brings no more than its window of
messages unacknowledged meanwhile. A message of QoS 0 has no such promise, from nobody.

A retained message that the broker delivers again after a subscription is not stored again (retained_messages.py). The
session keeps its subscriptions, too: those that the settings no longer name are ended, which is why they are noted.
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
from collector.protocols.mqtt_payload import Heard, read
from telemetry.codec.record_parser import Arrival
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError
from telemetry.model.mqtt_topics import Filter
from telemetry.observability import metrics

T = TypeVar("T")

log = logging.getLogger(__name__)

QOS = 1
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Between two tries to reach the broker."""

LONGEST_PING_S = 2.0
"""How long a broker may take to answer before its connection is closed anyway."""

RETRY_S = 2.0
"""Wait before Redis is asked again after it could not be."""

MAX_STORING = 1_000
MAX_WAITING = 10_000
"""Messages that may be on their way to the store, and behind them. Of QoS 0 those beyond are dropped, as it allows; of
QoS 1 the broker brings only its window, so none is."""


class Broker(NamedTuple):
    """Where to hear what. `client_id` names the session that the broker keeps."""

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
        """The name of the session among those of all brokers."""
        return f"{self.address}/{self.client_id}"


class _Client(aiomqtt.Client):
    """A client that knows which messages have the flag "duplicate", of which aiomqtt tells nothing."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._duplicates: set[int] = set()

    def take_duplicate(self, message: aiomqtt.Message) -> bool:
        """Whether the broker brought a message of QoS 1 again. To be asked once of each."""
        is_duplicate = message.qos == QOS and message.mid in self._duplicates
        if is_duplicate:
            self._duplicates.remove(message.mid)
        return is_duplicate

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if message.dup and message.qos == QOS:
            self._duplicates.add(message.mid)
        super()._on_message(client, userdata, message)


class Subscriber:
    """Hears one broker until it is stopped. `connect` connects to the Redis that has its notes."""

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
        self._last: dict[bytes, asyncio.Task[None]] = {}  # slot → the last of `_storing` that is noted there
        self._stopped = asyncio.Event()
        self._grace_s = 0.0

    async def run(self) -> None:
        """Hear, and connect again when the connection ends, until stopped."""
        with contextlib.closing(self._retained):
            await self._run()

    async def _run(self) -> None:
        wait_s, place = FIRST_WAIT_S, self._broker.address
        while not self._stopped.is_set():
            try:
                before = await self._retained.subscriptions()
                async with self._client() as client:
                    await self._subscribe(client, before)
                    log.info("hearing the broker %s", place)
                    wait_s = FIRST_WAIT_S
                    metrics.BROKER_HEARD.of(place).set(True)
                    await self._hear_until_stopped(client)
            except (aiomqtt.MqttError, StoreError, BusyError) as error:
                log.warning("cannot hear the broker %s: %s; trying again in %g s", place, error, wait_s)
            finally:
                metrics.BROKER_HEARD.of(place).set(False)
                for task in self._storing:
                    task.cancel()  # what isn't acknowledged comes again
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def stop(self, grace_s: float) -> None:
        """Hear no more; what is on its way to the store has so long to get there, and is acknowledged then."""
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
        client._client.manual_ack_set(True)  # which aiomqtt has no name for; before the first message comes
        return client

    async def _subscribe(self, client: aiomqtt.Client, before: frozenset[str]) -> None:
        """Give the session the subscriptions of the settings instead of those before."""
        wanted = [one.subscription for one in self._broker.filters]
        possible = before.union(wanted)
        if possible != before:
            await self._retained.note_subscriptions(possible)
        granted = await client.subscribe([(one, QOS) for one in wanted])
        for one, code in zip(wanted, granted, strict=False):
            if getattr(code, "is_failure", False):
                log.warning("the broker %s refuses the subscription to %s", self._broker.address, one)
        gone = sorted(possible.difference(wanted))
        if gone:
            await client.unsubscribe(gone)
            await self._retained.note_subscriptions(frozenset(wanted))
            log.info("ended subscriptions at the broker %s: %s", self._broker.address, ", ".join(gone))

    async def _hear_until_stopped(self, client: _Client) -> None:
        hearing, stopped = asyncio.create_task(self._hear(client)), asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({hearing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                await hearing
                return
            hearing.cancel()
            await asyncio.wait({hearing})
            if self._storing:
                await asyncio.wait(self._storing, timeout=self._grace_s)
            await _all_read(client)
        finally:
            hearing.cancel()
            stopped.cancel()

    async def _hear(self, client: _Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            topic = str(message.topic)
            heard = read(topic, payload, self._broker.filters, self._options, self._arrival())
            ahead = self._ahead(topic) if message.retain else set()
            is_duplicate = client.take_duplicate(message)
            task = asyncio.create_task(self._take(client, message, payload, heard, ahead, is_duplicate))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
            if heard.records or heard.aside:
                self._note_last(self._retained.slot(topic, message.retain), task)
            if len(self._storing) >= MAX_STORING:
                await asyncio.wait(self._storing, return_when=asyncio.FIRST_COMPLETED)

    def _ahead(self, topic: str) -> set[asyncio.Task[None]]:
        """The last messages of a topic, of either kind, that are on their way to the store."""
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
        heard: Heard,
        ahead: set[asyncio.Task[None]],
        is_duplicate: bool,
    ) -> None:
        """Store a message and acknowledge it. One that is retained waits for those ahead, which may be the same."""
        if ahead:
            await asyncio.wait(ahead)
        topic = str(message.topic)
        if message.retain and await _when_possible(lambda: self._retained.is_stored(topic, payload)):
            self._repeated.add(1)
        elif is_duplicate and await _when_possible(
            lambda: self._retained.is_packet_stored(message.mid, topic, payload)
        ):
            metrics.RESENT.one.value += len(heard.records)
        else:
            await self._store(message, topic, payload, heard)
        client._client.ack(message.mid, message.qos)

    async def _store(self, message: aiomqtt.Message, topic: str, payload: bytes, heard: Heard) -> None:
        await _when_possible(
            lambda: self._intake.submit(heard.records, len(payload), aside=heard.aside, limits_days=False)
        )
        digests = {}
        slot = self._retained.slot(topic, message.retain)
        if self._last.get(slot) is asyncio.current_task():  # else a later message of the topic is noted
            digests[slot] = payload_digest(payload)
        if message.qos == QOS and not all(record.is_stored_once for record in heard.records):
            digests[self._retained.packet_slot(message.mid)] = packet_digest(topic, payload)
        if digests:
            await _when_possible(lambda: self._retained.note(digests))
        self._tally.count(1, len(heard.records))
        self._tally.reject(problems.INVALID_RECORD, heard.refused)


async def _when_possible(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of the store, asked again until it can give one."""
    while True:
        try:
            return await ask()
        except BusyError as error:
            await asyncio.sleep(error.retry_after_s)
        except StoreError as error:
            log.warning("cannot note MQTT messages: %s; trying again in %g s", error, RETRY_S)
            await asyncio.sleep(RETRY_S)


async def _all_read(client: aiomqtt.Client) -> None:
    """Return once the broker has read every acknowledgement, as its answer to a ping tells.

    A socket that is closed while messages of the broker wait in it is reset, and what the broker had not read is lost.
    """
    mqtt = client._client
    mqtt._send_pingreq()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_PING_S):
            while mqtt._ping_t:  # noqa: ASYNC110 - paho tells nobody of the answer
                await asyncio.sleep(0.005)
