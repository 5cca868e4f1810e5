"""Brokers from the settings: the whole program, with a password, over TLS, and stopped by a signal."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from collector.mqtt.brokers import broker_of
from telemetry.config.settings import Mqtt, Settings
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import ConfigError
from tests.box import free_ports
from tests.collector.brokers import MOSQUITTO, broker, needs_mosquitto, publish
from tests.collector.conftest import HOST, numbers, tail
from tests.collector.posting import WAIT_S, Program, running

PASSWORD = "open sesame"


def entry(port: int, **more: object) -> str:
    return json.dumps([{"host": HOST, "port": port, "topics": ["fleet/{device_id}"], **more}])


def until(condition: Callable[[], object]) -> None:
    stop_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < stop_s
        time.sleep(0.05)


def message(number: int) -> bytes:
    return json.dumps({"altitude": number}).encode()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def guarded(tmp_path: Path, authority: trustme.CA) -> Iterator[int]:
    """The port of a broker that speaks TLS and asks for a password."""
    passwords = tmp_path / "passwords"
    program = Path(MOSQUITTO).parents[1] / "bin" / "mosquitto_passwd"
    subprocess.run([program, "-b", "-c", passwords, "box", PASSWORD], check=True, capture_output=True)
    passwords.chmod(0o644)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert(HOST)
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (port,) = free_ports(1)
    lines = (f"certfile {tmp_path}/cert.pem", f"keyfile {tmp_path}/key.pem", f"password_file {passwords}")
    with broker(tmp_path, port, *lines, "allow_anonymous false", "user root"):
        yield port


@needs_mosquitto
@pytest.mark.slow
def test_with_a_password_over_tls_in_one_of_two_processes(
    shard: Shard, settings: Settings, guarded: int, authority: trustme.CA, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    more: dict[str, object] = {
        "username": "box",
        "password": f"file:{tmp_path}/secret",
        "tls": True,
        "ca_file": f"{tmp_path}/ca.pem",
    }
    context = ssl.create_default_context()
    authority.configure_trust(context)
    login: dict[str, Any] = {"username": "box", "password": PASSWORD, "tls_context": context}
    with running(settings, collector__mqtt=entry(guarded, **more), collector__processes="2") as program:
        until(lambda: asyncio.run(publish(guarded, message(1), **login)) or tail(shard, "v1"))
        found = len(tail(shard, "v1"))
        asyncio.run(publish(guarded, *map(message, range(2, 50)), **login))
        until(lambda: len(tail(shard, "v1")) >= found + 48)
        assert numbers(tail(shard, "v1"))[found:] == list(range(2, 50))
        status, errors = program.terminate()
    assert status == 0
    assert PASSWORD not in errors


@needs_mosquitto
@pytest.mark.slow
def test_a_stop_acknowledges_what_was_stored(shard: Shard, settings: Settings, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with broker(tmp_path, port):
        for first in (0, 500):
            with running(settings, collector__mqtt=entry(port)) as program:
                if not first:
                    until(lambda: asyncio.run(publish(port, message(-1))) or tail(shard, "v1"))
                asyncio.run(publish(port, *map(message, range(first, first + 500))))
                assert program.terminate()[0] == 0
        with running(settings, collector__mqtt=entry(port)):
            until(lambda: set(numbers(tail(shard, "v1"))) >= set(range(1_000)))
            time.sleep(1)
    found = [number for number in numbers(tail(shard, "v1")) if number >= 0]
    assert sorted(found) == list(range(1_000))


def test_what_cannot_be_read_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    process = Program(settings, collector__mqtt=entry(1883, password=f"file:{tmp_path}/none")).start()
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert "cannot read a secret from" in errors


def test_certificates_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ConfigError, match="cannot read the certificates"):
            broker_of(Mqtt(host=HOST, topics=("a",), tls=True, ca_file=str(tmp_path / name)), {})


def test_a_user_without_a_name_gives_none() -> None:
    plain = broker_of(Mqtt(host=HOST, topics=("a",), password="env:SECRET"), {"SECRET": "x"})
    assert (plain.username, plain.password, plain.tls) == (None, "x", None)
