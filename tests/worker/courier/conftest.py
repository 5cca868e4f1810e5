"""What tests of the courier share: a box's store and archive, receivers on real sockets, and a log that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest

from compactor.compaction import Compactor
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.system import clock
from tests.worker.conftest import Ledger
from tests.worker.courier.forwards import Forwards
from tests.worker.courier.receiver import Receiver
from worker.courier.delivery.state_db import Store
from worker.saving.saver import Saver


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A courier's store."""
    found = Store(tmp_path / "courier")
    yield found
    found.close()


class Made(NamedTuple):
    """What makes an archive go on."""

    shard: Shard
    archive: Archive
    ledger: Ledger
    saver: Saver
    compactor: Compactor

    def save(self, *devices: str, days: int = 1) -> None:
        """One save, of one record of each of the devices."""
        self.ledger.append(self.shard, devices or ("a", "b"), days)
        while self.shard.unsaved():
            self.saver.save(self.shard)

    def merge(self) -> None:
        """All files of each day become one."""
        while self.compactor.compact() is not None:
            pass


@pytest.fixture
def made(shard: Shard, archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection) -> Made:
    """An archive without a table yet, and what fills it."""
    saver = Saver(archive, connection, clock.now_ms)
    return Made(shard, archive, ledger, saver, Compactor(archive, lambda: connection, clock.now_us, is_all=True))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def forwards(archive: Archive, store: Store) -> Iterator[Forwards]:
    """What makes forwards."""
    found = Forwards(archive, store)
    yield found
    found.close()
