"""A receiver that is away for days, while the archive merges, gives up old days, sweeps and cleans its log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from compactor.compaction import Compactor, Sweep
from compactor.plan import Limits
from telemetry.archive import commit_log
from telemetry.archive.operations import log_maintenance
from telemetry.archive.table import Archive
from telemetry.config.settings import Forward, Settings
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError
from telemetry.system import clock
from tests.worker.conftest import Ledger
from tests.worker.courier.forwards import Forwards, received, run
from tests.worker.courier.receiver import Receiver
from worker.courier.delivery.state_db import Store
from worker.courier.forwarding.forwarder import Forwarder
from worker.saving.saver import Saver

DAYS = 12
TWO_DAYS_S = 2 * 86_400
GRACE_S = 3_600


class Box:
    """A box with one forward, whose days a test lets go by."""

    def __init__(
        self, settings: Settings, shard: Shard, store: Store, connection: duckdb.DuckDBPyConnection, entry: Forward
    ) -> None:
        self.hq: Forwarder | None = None
        self.archive = Archive(settings.archive_dir, held=self.held)
        self.shard, self.ledger, self.now_s = shard, Ledger(), 0.0
        self.saver = Saver(self.archive, connection, clock.now_ms)
        self.compactor = Compactor(
            self.archive, lambda: connection, clock.now_us, Limits(retention_max_bytes=1), is_all=True
        )
        self.sweep = Sweep(self.archive, list, lambda: self.now_s, GRACE_S, held=self.held)
        self.forwards = Forwards(self.archive, store)
        self.hq = self.forwards(entry)

    def held(self) -> int | None:
        """What the courier's note says."""
        return self.hq.report().version if self.hq is not None else None

    def a_day(self, number: int) -> None:
        """Save, merge, give up all days but the newest, sweep, clean the log; then all is two days old."""
        for name in ("a", "b"):
            self.ledger.append(self.shard, [f"{name}{number}"], days=3)
            self.saver.save(self.shard)
        while self.compactor.compact() is not None:
            pass
        self.compactor.retain()
        for _ in range(2):
            self.sweep.sweep()
            self.now_s += 2 * GRACE_S
        for file in commit_log.folder(self.archive.root).glob("*.json"):
            os.utime(file, (time.time() - TWO_DAYS_S,) * 2)

    def files(self) -> list[Path]:
        return list(self.archive.root.glob("date=*/*.parquet"))


@pytest.fixture
def make(
    settings: Settings, shard: Shard, store: Store, connection: duckdb.DuckDBPyConnection
) -> Iterator[Callable[[Forward], Box]]:
    """Makes the box."""
    made: list[Box] = []

    def box(entry: Forward) -> Box:
        made.append(Box(settings, shard, store, connection, entry))
        return made[-1]

    yield box
    for one in made:
        one.forwards.close()


@pytest.fixture(autouse=True)
def few_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint, and with it a cleaning of the log, every few commits."""
    monkeypatch.setattr(log_maintenance, "CHECKPOINT_COMMITS", 4)


def try_in_vain(hq: Forwarder) -> None:
    with pytest.raises(BusyError):
        run(hq)
    hq.look()


def test_nothing_is_lost_whatever_the_archive_does_meanwhile(
    make: Callable[[Forward], Box], receiver: Receiver
) -> None:
    hq = Forward(name="hq", url=receiver.url, start="all")
    box = make(hq)
    assert box.hq is not None
    run(box.hq)
    receiver.answer = lambda _: (503, {})
    for number in range(DAYS):
        box.a_day(number)
        try_in_vain(box.hq)
    assert commit_log.entries(commit_log.folder(box.archive.root))[0] == 0
    receiver.answer = lambda _: (200, {})
    box.hq = box.forwards(hq)
    run(box.hq)
    assert received(receiver) == box.ledger.acknowledged
    before = len(box.files())
    for number in range(DAYS, DAYS + 3):
        box.a_day(number)
        run(box.hq)
    assert commit_log.entries(commit_log.folder(box.archive.root))[0] > 0, "what is done is cleaned"
    assert len(box.files()) < before, "and swept"


def test_with_a_limit_no_more_waits_than_that_and_the_rest_is_counted(
    make: Callable[[Forward], Box], receiver: Receiver
) -> None:
    probe = Forward(name="hq", url=receiver.url, start="all", max_lag_bytes=20_000)
    box = make(probe)
    assert box.hq is not None
    run(box.hq)
    receiver.answer = lambda _: (503, {})
    held = []
    for number in range(DAYS):
        box.a_day(number)
        try_in_vain(box.hq)
        assert box.hq.report().behind_bytes <= probe.max_lag_bytes
        held.append(len(box.files()))
    assert held[-1] <= max(held[: DAYS // 2]) + 3, "it doesn't grow for ever"
    assert box.hq.report().dropped_records > 0
    receiver.answer = lambda _: (200, {})
    run(box.hq)
    found = received(receiver)
    assert found.total() + box.hq.report().dropped_records == box.ledger.acknowledged.total()
    assert found <= box.ledger.acknowledged
