"""`whimbrel drain` beside whoever else writes and saves."""

from __future__ import annotations

import threading
import time

import pytest

from cli.admin.drain_recover import DRAIN
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.system import clock
from tests.cli.conftest import Run


def append(shard: Shard, count: int = 1) -> None:
    sent = [Sent(f"van {n}", Record(clock.now_us(), "tcp", "json")) for n in range(count)]
    append_batches(shard, [Batch(pack(sent))], Limits())


def rows(archive: Archive) -> int:
    return sum(file.rows or 0 for file in archive.live(archive.open()))


def test_all_that_waits_is_saved(shard: Shard, archive: Archive, settings: Settings, call: Run) -> None:
    append(shard, 12)
    assert call(DRAIN, settings, "--json").json == {"saved": 12}
    assert call(DRAIN, settings).out == "saved 0 records\n"
    assert rows(archive) == 12
    assert shard.unsaved() == 0


@pytest.mark.timeout(20)
def test_an_entry_that_can_not_be_read_ends_it_too(shard: Shard, settings: Settings, call: Run) -> None:
    append(shard)
    shard.client.xadd(shard.keys.stream("van 0"), {"i": "77", "r": b"of three records\xc1"})
    shard.client.incrby(shard.keys.unsaved, 3)
    assert call(DRAIN, settings, "--json").status == 0
    assert shard.all_dirty() == []


@pytest.mark.timeout(30)
def test_what_comes_meanwhile_does_not_keep_it(shard: Shard, archive: Archive, settings: Settings, call: Run) -> None:
    append(shard, 100)
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            append(shard)
            time.sleep(0.001)

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        assert call(DRAIN, settings, "--json").json["saved"] >= 100
    finally:
        is_over.set()
        writer.join()
    assert rows(archive) >= 100
