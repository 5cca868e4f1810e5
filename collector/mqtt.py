"""A subscriber to a broker of MQTT: a message is acknowledged only when its records are on disk.

The session outlives the connection, so the broker keeps what comes while nobody hears, and brings again what was not
acknowledged. What can't be stored now is tried again until it can: the broker brings no more than its window of
messages unacknowledged meanwhile. A message of QoS 0 has no such promise, from nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple

import aiomqtt

from collector.intake import Intake
from collector.protocols.framed import Options
from collector.protocols.mqtt import Heard, read
from collector.tally import tally_of
from telemetry import meters, problem
from telemetry.errors import BusyError
from telemetry.fields import Arrival
from telemetry.topics import Filter

log = logging.getLogger(__name__)

QOS = 1
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Between two tries to reach the broker."""

LONGEST_PING_S = 2.0
"""How long a broker may take to answer before its connection is closed anyway."""

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


class Subscriber:
    """Hears one broker until it is stopped."""

    def __init__(self, broker: Broker, intake: Intake, options: Options, arrival: Callable[[], Arrival]) -> None:
        self._broker = broker
        self._intake = intake
        self._options = options._replace(transport="mqtt")
        self._arrival = arrival
        self._tally = tally_of("mqtt", "mqtt")
        self._storing: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._grace_s = 0.0

    async def run(self) -> None:
        """Hear, and connect again when the connection ends, until stopped."""
        wait_s, place = FIRST_WAIT_S, f"{self._broker.host}:{self._broker.port}"
        while not self._stopped.is_set():
            try:
                async with self._client() as client:
                    await client.subscribe([(one.subscription, QOS) for one in self._broker.filters])
                    log.info("hearing the broker %s", place)
                    wait_s = FIRST_WAIT_S
                    meters.BROKER_HEARD.of(place).set(True)
                    await self._hear_until_stopped(client)
            except aiomqtt.MqttError as error:
                log.warning("cannot hear the broker %s: %s; trying again in %g s", place, error, wait_s)
            finally:
                meters.BROKER_HEARD.of(place).set(False)
                for task in self._storing:
                    task.cancel()  # what isn't acknowledged comes again
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def stop(self, grace_s: float) -> None:
        """Hear no more; what is on its way to the store has so long to get there, and is acknowledged then."""
        self._grace_s = grace_s
        self._stopped.set()

    def _client(self) -> aiomqtt.Client:
        b = self._broker
        client = aiomqtt.Client(
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

    async def _hear_until_stopped(self, client: aiomqtt.Client) -> None:
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

    async def _hear(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            heard = read(str(message.topic), payload, self._broker.filters, self._options, self._arrival())
            task = asyncio.create_task(self._store(client, message, heard, len(payload)))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
            if len(self._storing) >= MAX_STORING:
                await asyncio.wait(self._storing, return_when=asyncio.FIRST_COMPLETED)

    async def _store(self, client: aiomqtt.Client, message: aiomqtt.Message, heard: Heard, size_bytes: int) -> None:
        while True:
            try:
                await self._intake.submit(heard.records, size_bytes, aside=heard.aside, limits_days=False)
                break
            except BusyError as error:
                await asyncio.sleep(error.retry_after_s)
        self._tally.count(1, len(heard.records))
        self._tally.reject(problem.INVALID_RECORD, heard.refused)
        client._client.ack(message.mid, message.qos)


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
