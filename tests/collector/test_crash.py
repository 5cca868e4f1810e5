"""Collector and Redis are killed at any moment while senders send: each record is stored once."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.sending.sender import Patience, Tally
from cli.sending.sources import Row
from cli.sending.tcp_sender import TcpSender
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import read_entry
from telemetry.hot_store.shard import Shard, attach
from tests.collector.conftest import HOST, numbers, tail
from tests.collector.program import Program, program
from tests.conftest import RedisServer

pytestmark = pytest.mark.slow

BATCHES = 1_000
SENDERS = 4


def send_all(port: int, name: str, say: Callable[[str], None]) -> Tally:
    """Send numbered records of one device, a batch each, until all are answered."""
    tally = Tally(name, say, lambda _: None)
    sender = TcpSender((HOST, port), Patience(120, time.monotonic, time.sleep, say), tally, name, 2**20)
    for number in range(BATCHES):
        sender.send([Row(number, json.dumps({"device_id": name, "altitude": number}).encode())])
        time.sleep(0.002)
    sender.finish()
    sender.close()
    return tally


def evidence(shard: Shard, name: str, collector: Program, notes: list[str]) -> str:
    """Details for a missing or duplicate record: the adjacent entries, and the log."""
    [entries] = shard.entries([(name, "-", "+")])
    rows = [(raw[0], *numbers(read_entry(name, raw, 1))) for raw in entries]
    odd = [at for at, row in enumerate(rows) if row[1:] != (at,)][:1]
    adjacent = [rows[max(at - 3, 0) : at + 5] for at in odd]
    return f"{name}: {adjacent}\n{notes}\n{collector.log()}"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (1, 2))])
def test_kill_at_any_moment_and_retry(own_redis: RedisServer, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with program(own_redis, tmp_path) as found:
        said: list[str] = []
        tallies: list[Tally] = []
        threads = [
            threading.Thread(target=lambda n=n: tallies.append(send_all(found.port, f"sender {n}", said.append)))
            for n in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        stretch = 1.0
        while any(thread.is_alive() for thread in threads):
            time.sleep(rng.uniform(0.05, 0.9) * stretch)
            stretch += 0.02  # on a busy machine a collector takes longer to start than most of the first pauses
            if rng.random() < 0.3:
                own_redis.kill()
                time.sleep(rng.uniform(0, 0.2))
                own_redis.start()
            else:
                found.kill()
                found.start()
        for thread in threads:
            thread.join()
        assert [tally.accepted for tally in tallies] == [BATCHES] * SENDERS
        with connect(found.settings) as client:
            [shard] = attach(client, 1)
            for name in (f"sender {n}" for n in range(SENDERS)):
                assert numbers(tail(shard, name)) == list(range(BATCHES)), evidence(shard, name, found, said)
        assert any("cannot send" in one for one in said)
