"""A backup shows one moment of a store and an archive that never rest; a box made of it alone goes on from there."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import duckdb
import pytest
import redis
from deltalake import DeltaTable

from cli.backup.create import Made
from telemetry.archive.table import Archive
from telemetry.hot_store.client import raw_entries
from telemetry.hot_store.shard import Shard, State
from telemetry.model.errors import NotTogether
from telemetry.startup.store_setup import set_up
from tests.cli.backup.stand import Busy, backup, box_of, held
from tests.conftest import RedisServer
from tests.worker.conftest import Content, Ledger
from tests.worker.saving.test_saver import DEVICES, drain, saver, stop_at
from tests.worker.stopping import Stop


@pytest.mark.slow
@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.thorough), 3])
def test_backups_amid_saves_merges_and_sweeps(
    shards: int, own_redis: RedisServer, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    archive = Archive(tmp_path / "data" / "archive")
    made: list[tuple[Counter[Content], Made]] = []
    with own_redis.client() as client:
        raw_entries(client)
        client.config_set("repl-diskless-sync-delay", 0)
        box = box_of(client, set_up(client, archive, shards), archive)
        with Busy(box.shards, archive, own_redis.url) as busy:
            while len(made) < 8 or busy.saves < 20 or busy.merges < 3 or busy.swept < 3:
                acknowledged = Counter(busy.ledger.acknowledged)
                made.append((acknowledged, backup(box, tmp_path / "backups")))
    for acknowledged, one in made:
        found = held(one, connection)
        assert set(found.values()) == {1}
        assert acknowledged <= found <= busy.ledger.acknowledged


class Moving(Archive):
    """An archive on which somebody works as soon as it is looked at."""

    def __init__(self, root: Path, work: Callable[[], None]) -> None:
        super().__init__(root)
        self._work = work

    def open_existing(self) -> DeltaTable | None:
        self._work()
        return super().open_existing()


class Watched(Shard):
    """A shard whose saving goes on as soon as it is looked at."""

    work: Callable[[], None]

    def state(self) -> State:
        self.work()
        return super().state()


@pytest.fixture
def at_once(client: redis.Redis) -> Iterator[None]:
    """The shared server copies without waiting for more replicas."""
    client.config_set("repl-diskless-sync-delay", 0)
    yield
    client.config_set("repl-diskless-sync-delay", 5)


def advance(shard: Shard, archive: Archive, step: str) -> None:
    """Save up to a step, at which the worker dies."""
    with contextlib.suppress(Stop):
        saver(archive, stop_at(step)).save(shard)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("step", ["look", "intend", "read", "commit", "finish", "finish 0", "done"])
def test_a_save_that_stands_at_a_step_as_redis_is_copied_and_goes_on_before_the_table_is_looked_at(
    step: str, shard: Shard, archive: Archive, ledger: Ledger, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, "ab", days=2)
    drain(shard, archive)
    ledger.append(shard, "bc", days=2)
    advance(shard, archive, step)
    acknowledged, looks = Counter(ledger.acknowledged), iter(range(100))

    def go_on() -> None:
        if next(looks) == 1:  # the first is before Redis is copied
            for devices in ("cd", "de"):
                ledger.append(shard, devices)
                drain(shard, archive)

    box = box_of(shard.client, [shard], Moving(archive.root, go_on))
    made = backup(box, tmp_path / "backups")
    assert held(made, connection) == acknowledged
    assert next(looks) == 2, "at the first try"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("steps", list(permutations(["intend", "commit", "finish 0", "look"], 2)), ids="-".join)
def test_a_save_that_goes_on_while_redis_is_copied(
    steps: tuple[str, str],
    shard: Shard,
    archive: Archive,
    ledger: Ledger,
    tmp_path: Path,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Each look at the shard finds it a step further; a copy of which it isn't known what it shows is not used."""
    looks = 0

    def go_on() -> None:
        nonlocal looks
        looks += 1
        if looks <= 12:
            ledger.append(shard, "ab")
            advance(shard, archive, steps[looks % 2])

    ledger.append(shard, "ab")
    acknowledged = Counter(ledger.acknowledged)
    watched = Watched(shard.client, 0, shard.store_id, 1)
    watched.work = go_on
    made = backup(box_of(shard.client, [watched], archive), tmp_path / "backups")
    found = held(made, connection)
    assert set(found.values()) == {1}
    assert acknowledged <= found <= ledger.acknowledged


class Leaving(Shard):
    """A shard whose saving goes on as soon as it was looked at."""

    work: Callable[[], None]

    def state(self) -> State:
        found = super().state()
        self.work()
        return found


@pytest.mark.usefixtures("at_once")
def test_a_save_that_begins_and_is_trimmed_in_part_before_redis_is_copied(
    shard: Shard, archive: Archive, ledger: Ledger, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """The copy still names the save before it, whose version of the table would lack what is trimmed."""
    ledger.append(shard, DEVICES)
    drain(shard, archive)
    ledger.append(shard, DEVICES)
    acknowledged, looks = Counter(ledger.acknowledged), iter(range(100))
    leaving = Leaving(shard.client, 0, shard.store_id, 1)
    leaving.work = lambda: advance(shard, archive, "finish 1") if next(looks) == 0 else None
    made = backup(box_of(shard.client, [leaving], archive), tmp_path / "backups")
    assert shard.state().finishing == 1
    assert held(made, connection) == acknowledged


def test_redis_and_archive_that_do_not_belong_together_are_not_backed_up(
    shard: Shard, archive: Archive, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.append(shard, "a")
    drain(shard, archive)
    archive.root.rename(tmp_path / "away")
    with pytest.raises(NotTogether, match=r"cannot back up: there is no archive.*whimbrel recover"):
        backup(box_of(shard.client, [shard], archive), tmp_path / "backups")
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["lock"]


@pytest.mark.usefixtures("at_once")
def test_a_box_that_has_saved_nothing_yet(
    shard: Shard, archive: Archive, ledger: Ledger, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger.append(shard, "ab")
    shutil.rmtree(archive.root)
    made = backup(box_of(shard.client, [shard], archive), tmp_path / "backups")
    assert made.manifest.archive is None
    assert held(made, connection) == ledger.acknowledged
