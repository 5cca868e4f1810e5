"""A Mosquitto broker for one test."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.collector.conftest import HOST

MOSQUITTO = shutil.which("mosquitto") or next(
    (str(path) for path in (Path("/usr/sbin/mosquitto"),) if path.exists()), ""
)
needs_mosquitto = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed (scripts/install-mosquitto)")


@contextmanager
def broker(folder: Path, port: int, *more: str) -> Iterator[None]:
    """Run one on a port; `more` are further lines of its settings."""
    settings = folder / "mosquitto.conf"
    settings.write_text("\n".join((f"listener {port} {HOST}", *(more or ("allow_anonymous true",)), "")))
    with subprocess.Popen([MOSQUITTO, "-c", str(settings)], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


async def publish(
    port: int, *payloads: bytes, topic: str = "fleet/v1", qos: int = 1, retain: bool = False, **login: Any
) -> None:
    """Publish, once the broker listens."""
    for _ in range(50):
        try:
            async with aiomqtt.Client(HOST, port, **login) as client:
                for payload in payloads:
                    await client.publish(topic, payload, qos, retain)
            return
        except aiomqtt.MqttError:
            await asyncio.sleep(0.1)
    raise AssertionError("no broker")
