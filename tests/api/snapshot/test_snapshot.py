"""A snapshot holds each record once, wherever a save stands: before, at and between any two of its steps."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
import redis
from deltalake import DeltaTable
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.records.device_page import OneDevice
from api.records.range_query import Question, ended, page
from api.snapshot.snapshot import Listing, Snapshots, Wanted
from telemetry.archive.operations import commits
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store import entry_codec
from telemetry.hot_store import shard as hot
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard, State
from telemetry.model.errors import NotTogether, StoreUnavailable
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from tests.api.conftest import record
from tests.api.stores import ALL, MIDNIGHT_US, Killed, Stores, in_order, killed_at
from tests.conftest import RedisServer
from worker.recovery import recover

STEPS = ("look", "intend", "read", "still", "write", "open", "commit", "finish", "finish 0", "finish 1", "finish 2")
"""The steps of a save of three devices, one a chunk, in their order."""

AGAIN = ("look", "recover", "read", "still", "write", "open", "commit", "finish", "finish 1", "finish 2")
"""The steps of a second worker that takes up what a first one left."""

DONE = "it has ended"


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    """A store of three devices' records over two days, of which none is saved."""
    found = Stores([shard], archive, connection)
    found.append(*(Sent("abc"[n % 3], record(MIDNIGHT_US + n // 5 * DAY_US - n)) for n in range(9)))
    return found


@pytest.fixture
def one_device_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_codec, "CHUNK_DEVICES", 1)


# Killed at a step ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_device_a_chunk")
@pytest.mark.parametrize("step", STEPS)
def test_a_save_killed_at_any_step_leaves_no_gap_and_no_double(stores: Stores, step: str) -> None:
    stores.assert_whole()
    assert stores.save_until(step)
    stores.assert_whole()
    stores.append(Sent("a", record(MIDNIGHT_US)), Sent("d", record(MIDNIGHT_US - 3 * DAY_US)))
    stores.assert_whole()
    stores.save()
    stores.assert_whole()
    stores.save()
    stores.assert_whole()
    assert stores.shards[0].unsaved() == 0


@pytest.mark.usefixtures("one_device_a_chunk")
@pytest.mark.parametrize("first", ["read", "finish 1"])
@pytest.mark.parametrize("second", AGAIN)
def test_nor_does_one_killed_again_at_any_step(stores: Stores, first: str, second: str) -> None:
    assert stores.save_until(first)
    stores.append(Sent("b", record(MIDNIGHT_US)))
    if not stores.save_until(second):
        assert first == "finish 1", "what is committed is neither read nor written again"
        assert second not in ("look", "recover", "finish", "finish 1", "finish 2")
    stores.assert_whole()
    stores.save()
    stores.save()
    stores.assert_whole()


def test_three_shards_may_stand_at_different_steps(
    client: redis.Redis, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    stores = Stores(set_up(client, archive, 3), archive, connection)
    stores.append(*(Sent(f"device {n}", record(MIDNIGHT_US + n)) for n in range(30)))
    for shard, step in zip(stores.shards, ("commit", "finish", "intend"), strict=True):
        with pytest.raises(Killed):
            stores.saver(killed_at(step)).save(shard)
        stores.assert_whole()
    for device in ("device 0", "device 1", "device 2"):
        wanted = Wanted((device, "nobody"), EARLIEST_US, LATEST_US)
        with connection.cursor() as cursor:
            found = page(cursor, stores.snapshots, Question(wanted)).column("id").to_pylist()
        assert found == [one.id for one in stores.stored if one.device_id == device]
    stores.save()
    stores.assert_whole()


# While a save goes on --------------------------------------------------------------------------------


class Save:
    """A save in a thread of its own that stops before each step until it is let on."""

    def __init__(self, stores: Stores) -> None:
        self._may_go = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)
        self._step = ""
        self._saver = stores.saver(self._reached)
        self._thread = threading.Thread(target=self._run, args=(stores.shards[0],), daemon=True)
        self._thread.start()
        self._arrived.acquire()

    def _run(self, shard: Shard) -> None:
        try:
            self._saver.save(shard)
        finally:
            self._step = DONE
            self._arrived.release()

    def _reached(self, step: str) -> None:
        self._step = step
        self._arrived.release()
        self._may_go.acquire()

    def go_to(self, step: str) -> None:
        """Let it go on until it stands before a step."""
        while self._step not in (step, DONE):
            self._may_go.release()
            self._arrived.acquire()
        assert self._step == step

    def end(self) -> None:
        self.go_to(DONE)
        self._thread.join()


class Meddled(Snapshots):
    """Snapshots that let something happen, once, just before the table is loaded, and something just after."""

    def __init__(
        self, stores: Stores, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None
    ) -> None:
        client = stores.shards[0].client
        super().__init__(lambda: hot.pinned(client, 1), stores.archive)
        self._before = before
        self._after = after
        self.loads = 0

    def _load(self, shards: int) -> Listing:
        self.loads += 1
        if self.loads > 1:
            return super()._load(shards)
        self._before()
        found = super()._load(shards)
        self._after()
        return found


@pytest.mark.usefixtures("one_device_a_chunk")
@pytest.mark.parametrize("before", STEPS)
def test_a_save_that_goes_on_while_a_reader_reads_is_seen_whole_or_not_at_all(stores: Stores, before: str) -> None:
    places = (*STEPS, DONE)
    for after in places[places.index(before) :]:
        save = Save(stores)
        try:
            save.go_to(before)
            snapshots = Meddled(stores, lambda save=save, after=after: save.go_to(after))  # type: ignore[misc]
            assert stores.ids(snapshots) == [one.id for one in in_order(stores.stored)], f"{before} … {after}"
            assert snapshots.loads <= 2, f"{before} … {after}"
        finally:
            save.end()
        stores.append(*(Sent(device, record(MIDNIGHT_US)) for device in "abc"))


@pytest.mark.usefixtures("one_device_a_chunk")
@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_read_after_the_table(stores: Stores, step: str) -> None:
    save = Save(stores)
    try:
        save.go_to(step)
        snapshots = Meddled(stores, after=save.end)
        assert stores.ids(snapshots) == [one.id for one in in_order(stores.stored)]
        assert snapshots.loads == 1
    finally:
        save.end()


def test_a_second_save_that_ends_meanwhile_is_noticed(stores: Stores) -> None:
    assert stores.save_until("finish")

    def twice() -> None:
        stores.save()
        stores.append(Sent("a", record(MIDNIGHT_US)))
        stores.save()

    snapshots = Meddled(stores, twice)
    found = stores.ids(snapshots)
    assert found == [one.id for one in in_order(stores.stored)]
    assert snapshots.loads == 2


def test_a_record_that_comes_while_a_reader_reads_is_there_once_or_not_yet(stores: Stores) -> None:
    before = {one.id for one in stores.stored}
    found = stores.ids(Meddled(stores, lambda: stores.append(Sent("a", record(MIDNIGHT_US)))))
    assert before <= set(found)
    assert len(set(found)) == len(found)


def test_a_table_that_was_loaded_before_the_tails_is_not_believed(stores: Stores) -> None:
    loaded: list[Listing] = []

    class Early(Snapshots):
        def _load(self, shards: int) -> Listing:
            return loaded[0] if loaded else super()._load(shards)

    early = Early(lambda: hot.pinned(stores.shards[0].client, 1), stores.archive)
    loaded.append(early._load(1))
    stores.save()
    with pytest.raises(NotTogether):
        early.take(ALL)


# Apart -----------------------------------------------------------------------------------------------


def test_an_archive_that_another_redis_wrote_is_not_read(stores: Stores) -> None:
    [shard] = stores.shards
    stores.save()
    foreign = commit_number(commit_number(shard.state().committed))
    commits.commit(stores.archive, stores.archive.open(), [], 0, foreign, clock.now_ms())
    with pytest.raises(NotTogether, match="whimbrel recover"):
        stores.snapshots.take(ALL)
    recover(shard, stores.archive, stores.connection, clock.now_ms())
    stores.assert_whole()


def test_a_store_that_is_not_set_up_is_not_there(stores: Stores) -> None:
    stores.shards[0].client.flushall()
    with pytest.raises(StoreUnavailable, match="not set up"):
        stores.snapshots.take(ALL)


def test_without_redis_there_is_no_snapshot(
    own_redis: RedisServer, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    client, archive = redis.Redis.from_url(own_redis.url), Archive(tmp_path / "archive")
    stores = Stores(set_up(client, archive, 1), archive, connection)
    own_redis.kill()
    with pytest.raises(StoreUnavailable):
        stores.snapshots.take(ALL)
    client.close()


def test_an_older_redis_under_a_reader_ends_its_question(
    own_redis: RedisServer, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """Redis is restored from before a save after `committed` was read and before the tails are."""
    stores = Stores.on(own_redis, tmp_path, connection)
    stores.append(Sent("a", record(MIDNIGHT_US)))
    own_redis.kill()
    shutil.copytree(own_redis.folder / "appendonlydir", tmp_path / "old")
    own_redis.start()
    stores.save()

    @contextlib.contextmanager
    def restored() -> Iterator[Sequence[Shard]]:
        with hot.pinned(stores.shards[0].client, 1) as [shard]:
            real = shard.state

            def state() -> State:
                found = real()
                own_redis.kill()
                shutil.rmtree(own_redis.folder / "appendonlydir")
                shutil.copytree(tmp_path / "old", own_redis.folder / "appendonlydir")
                own_redis.start()
                return found

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(shard, "state", state)
                yield [shard]

    with pytest.raises(StoreUnavailable):
        Snapshots(restored, stores.archive).take(ALL)
    with pytest.raises(NotTogether):
        stores.snapshots.take(ALL)
    stores.shards[0].client.close()


def test_an_archive_restored_under_a_reader_is_seen(stores: Stores, tmp_path: Path) -> None:
    """Its log has as many entries as before, so that only the entry itself tells."""
    root = stores.archive.root
    shutil.copytree(root, tmp_path / "old")
    stores.save()
    stores.assert_whole()
    shutil.rmtree(root)
    (tmp_path / "old").rename(root)
    other = commit_number(stores.shards[0].state().committed)
    commits.commit(stores.archive, stores.archive.open(), [], 0, other, clock.now_ms())
    with pytest.raises(NotTogether):
        stores.snapshots.take(ALL)


def test_a_table_that_can_not_be_read_is_opened_anew(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.assert_whole()
    stores.save()

    def fail(_: DeltaTable) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patched:
        patched.setattr(DeltaTable, "update_incremental", fail)
        with pytest.raises(OSError, match="disk"):
            stores.snapshots.take(ALL)
    stores.save()
    stores.assert_whole()


def test_long_streams_and_many_devices_are_read_in_pieces(stores: Stores) -> None:
    [shard] = stores.shards
    for n in range(401):
        stores.append(Sent("a", record(MIDNIGHT_US + n)))
    append_batches(shard, [Batch(pack([Sent(f"many {n}", record(MIDNIGHT_US + n)) for n in range(60)]))], Limits())
    assert len(list(stores.snapshots.take(ALL).tail)) == 401 + 9 + 60
    assert len(list(stores.snapshots.take(Wanted(("a",), EARLIEST_US, LATEST_US)).tail)) == 401 + 3


# Any records, any saves, any question ----------------------------------------------------------------


class Ask(NamedTuple):
    """A question in words of the model."""

    devices: tuple[str, ...]
    start_us: int
    end_us: int
    is_descending: bool
    limit: int


DEVICES = ("a", "b", "ü/😀")
TIMES = st.sampled_from([MIDNIGHT_US + n for n in (-DAY_US, -1, 0, 1, 2, DAY_US - 1, DAY_US)])
GROUP = st.lists(st.tuples(st.sampled_from(DEVICES), TIMES), min_size=1, max_size=6)
SAVE = st.sampled_from([*(step for step in STEPS if step != "look"), DONE])
EVENTS = st.lists(st.one_of(GROUP, GROUP, SAVE), min_size=1, max_size=8)
ASKED = st.builds(
    Ask,
    st.lists(st.sampled_from((*DEVICES, "nobody")), max_size=3, unique=True).map(tuple),
    TIMES,
    TIMES,
    st.booleans(),
    st.integers(1, 7),
)


def answer(stores: Stores, asked: Ask, one_device: OneDevice | None = None) -> list[int]:
    """The ids of all pages."""
    question = Question(Wanted(asked.devices, asked.start_us, asked.end_us), asked.is_descending, asked.limit)
    found: list[int] = []
    with stores.connection.cursor() as cursor:
        while True:
            records = page(cursor, stores.snapshots, question, one_device)
            shown = records.slice(0, asked.limit)
            found += shown.column("id").to_pylist()
            if records.num_rows <= asked.limit:
                return found
            question = question._replace(after=ended(shown))


def model(stores: Stores, asked: Ask) -> list[int]:
    found = [
        one.id
        for one in in_order(stores.stored)
        if asked.start_us <= one.record.timestamp_us < asked.end_us
        and (not asked.devices or one.device_id in asked.devices)
    ]
    return found[::-1] if asked.is_descending else found


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.lists(ASKED, min_size=1, max_size=4))
def test_any_question_is_answered_as_a_plain_list_would(
    client: redis.Redis,
    tmp_path_factory: pytest.TempPathFactory,
    connection: duckdb.DuckDBPyConnection,
    events: list[list[tuple[str, int]] | str],
    questions: list[Ask],
) -> None:
    client.flushall()
    archive = Archive(tmp_path_factory.mktemp("model") / "archive")
    stores = Stores(set_up(client, archive, 1), archive, connection)
    for event in events:
        if isinstance(event, str):
            stores.save_until(event)
        else:
            stores.append(*(Sent(device, record(timestamp_us)) for device, timestamp_us in event))
    for asked in questions:
        assert answer(stores, asked) == answer(stores, asked, OneDevice()) == model(stores, asked)
