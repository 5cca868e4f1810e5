"""The brokers of MQTT that are heard, as `[[collector.mqtt]]` has them."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping

from collector.framing.frame_decoder import Options
from collector.ingest.group_commit import Intake
from collector.mqtt.subscriber import Broker, Subscriber
from telemetry.codec.record_parser import Arrival
from telemetry.config.secret_values import value_of
from telemetry.config.settings import Mqtt, Settings
from telemetry.hot_store.client import connect
from telemetry.model.errors import ConfigError
from telemetry.model.mqtt_topics import Filter


class Brokers:
    """All of them."""

    def __init__(self, settings: Settings, intake: Intake, arrival: Callable[[], Arrival]) -> None:
        """Raises `ConfigError` for a password or a certificate that can't be read."""
        self._subscribers = [
            Subscriber(
                broker_of(one, os.environ),
                intake,
                Options(speed_unit=one.speed_unit),
                arrival,
                lambda: connect(settings),
            )
            for one in settings.collector.mqtt
        ]
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Hear them."""
        self._running = [asyncio.create_task(one.run()) for one in self._subscribers]

    async def stop(self, grace_s: float) -> None:
        """Hear no more, acknowledge what gets stored in time."""
        for one in self._subscribers:
            one.stop(grace_s)
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace_s + 1)
            for task in late:
                task.cancel()


def broker_of(one: Mqtt, environ: Mapping[str, str]) -> Broker:
    """Where to hear what. Raises `ConfigError` for a password or a certificate that can't be read."""
    return Broker(
        host=one.host,
        port=one.port,
        client_id=one.client_id,
        filters=[Filter.of(topic) for topic in one.topics],
        username=one.username or None,
        password=value_of(one.password, environ) or None,
        tls=_tls(one.ca_file) if one.tls else None,
    )


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"cannot read the certificates of collector.mqtt.ca_file = {ca_file!r}: {error}") from None
