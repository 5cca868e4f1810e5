"""Subscriptions to the MQTT brokers of `[[collector.mqtt]]`."""

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
    """The subscribers of all brokers."""

    def __init__(self, settings: Settings, intake: Intake, arrival: Callable[[], Arrival]) -> None:
        """Raises `ConfigError` for a password or a certificate that cannot be read."""
        self._subscribers = [
            Subscriber(
                broker_of(entry, os.environ),
                intake,
                Options(speed_unit=entry.speed_unit),
                arrival,
                lambda: connect(settings),
            )
            for entry in settings.collector.mqtt
        ]
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Subscribe to all brokers."""
        self._running = [asyncio.create_task(subscriber.run()) for subscriber in self._subscribers]

    async def stop(self, grace_s: float) -> None:
        """Receive nothing more; acknowledge the messages that are stored within the grace period."""
        for subscriber in self._subscribers:
            subscriber.stop(grace_s)
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace_s + 1)
            for task in late:
                task.cancel()


def broker_of(entry: Mqtt, environ: Mapping[str, str]) -> Broker:
    """The broker of an entry. Raises `ConfigError` for a password or a certificate that cannot be read."""
    return Broker(
        host=entry.host,
        port=entry.port,
        client_id=entry.client_id,
        filters=[Filter.of(topic) for topic in entry.topics],
        username=entry.username or None,
        password=value_of(entry.password, environ) or None,
        tls=_tls(entry.ca_file) if entry.tls else None,
    )


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"cannot read the certificates of collector.mqtt.ca_file = {ca_file!r}: {error}") from None
