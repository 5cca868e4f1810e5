"""A forward to S3: the copy is the table, at each moment and after each fault."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from telemetry.archive import commit_log
from telemetry.archive.operations import log_maintenance
from telemetry.archive.table import Archive
from telemetry.config.settings import Forward
from telemetry.model.errors import SenderError
from telemetry.startup.store_setup import set_up
from tests.worker.conftest import Content, archived
from tests.worker.courier.bucket import MOTO, Bucket, Moto, content
from tests.worker.courier.conftest import Made
from tests.worker.courier.forwards import Forwards, KillAt, Killed, cleaned, run
from worker.courier.delivery.state_db import Store

pytestmark = pytest.mark.skipif(not MOTO.exists(), reason="scripts/install-moto was not run")


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    found = Moto()
    yield found
    found.close()


@pytest.fixture
def bucket(moto: Moto) -> Iterator[Bucket]:
    found = Bucket(moto)
    yield found
    found.close()
    assert found.troubles == []


@pytest.fixture
def few_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint every few commits, as a log of thousands has them."""
    monkeypatch.setattr(log_maintenance, "CHECKPOINT_COMMITS", 4)


class States:
    """What the archive held at each version; asked at each change of a copy whether that is one of these."""

    def __init__(self, archive: Archive, bucket: Bucket) -> None:
        self._archive, self._bucket = archive, bucket
        self._at: dict[int, Counter[Content]] = {}
        self.seen: list[int] = []

    def note(self, content_now: Counter[Content]) -> None:
        """The archive holds this now, whatever versions led to it."""
        version = self._archive.open().version()
        for one in range(max(self._at, default=-1) + 1, version + 1):
            self._at[one] = content(DeltaTable(str(self._archive.root), version=one))
        assert self._at[version] == content_now

    def look(self, _method: str, _path: str) -> None:
        """See that the copy is not there, or is the table at some version."""
        table = self._bucket.table()
        if table is not None:
            assert content(table) == self._at[table.version()]
            self.seen.append(table.version())


def test_the_copy_is_the_table_at_each_moment(
    made: Made, forwards: Forwards, bucket: Bucket, few_commits: None
) -> None:
    s3, states = forwards(Forward(**bucket.settings())), States(made.archive, bucket)
    bucket.written = states.look
    for names in ("ab", "c", "def"):
        for name in names:
            made.save(name, f"{name}2", days=3)
        made.merge()
        states.note(made.ledger.acknowledged)
        run(s3)
        table = bucket.table()
        assert table is not None
        assert table.version() == made.archive.open().version()
        assert content(table) == made.ledger.acknowledged
    assert states.seen == sorted(states.seen)
    assert set(states.seen) >= set(range(states.seen[0], made.archive.open().version() + 1)), "each version was seen"
    assert any(path.endswith("_last_checkpoint") for path in bucket.objects())


def test_duckdb_reads_the_copy(made: Made, forwards: Forwards, bucket: Bucket) -> None:
    made.save("a", "b")
    run(forwards(Forward(**bucket.settings())))
    table = bucket.table()
    assert table is not None
    rows = duckdb.from_arrow(table.to_pyarrow_dataset()).aggregate("device_id, count(*)", "device_id").fetchall()
    assert sorted(rows) == [("a", 1), ("b", 1)]


def test_a_copy_that_begins_late_is_no_table_until_it_is_whole(
    made: Made, forwards: Forwards, bucket: Bucket, few_commits: None
) -> None:
    states = States(made.archive, bucket)
    for name in "abcdefg":
        made.save(name)
    states.note(made.ledger.acknowledged)
    made.merge()
    states.note(made.ledger.acknowledged)
    cleaned(made.archive, commit_log.newest_checkpoint(commit_log.folder(made.archive.root)))
    live = set(made.archive.files(made.archive.open()))
    for file in made.archive.root.glob("date=*/*.parquet"):
        if str(file) not in live:
            file.unlink()
    bucket.written = states.look
    s3 = forwards(Forward(**bucket.settings()))
    run(s3)
    assert set(states.seen) == {made.archive.open().version()}
    made.save("h")
    states.note(made.ledger.acknowledged)
    run(s3)
    assert states.seen[-1] == made.archive.open().version()


@pytest.mark.parametrize("step", ["begin", "send", "advance", "done"])
def test_killed_at_any_step_the_copy_becomes_the_table(
    step: str, made: Made, forwards: Forwards, bucket: Bucket
) -> None:
    entry = Forward(**bucket.settings())
    made.save("a")
    if step != "begin":
        run(forwards(entry))
        made.save("b")
    with pytest.raises(Killed):
        run(forwards(entry, KillAt(step)))
    made.merge()
    made.save("c")
    run(forwards(entry))
    table = bucket.table()
    assert table is not None
    assert content(table) == made.ledger.acknowledged
    assert table.version() == made.archive.open().version()


@pytest.mark.parametrize("is_passed_on", [False, True])
def test_whichever_request_gets_no_answer_the_copy_becomes_the_table(
    is_passed_on: bool, made: Made, forwards: Forwards, bucket: Bucket, few_commits: None
) -> None:
    states, left, failed = States(made.archive, bucket), [3], [0]
    bucket.written = states.look

    def fault(_method: str, _path: str, pass_on: Callable[[], None]) -> bool:
        """One of three, then one of four, and so on."""
        left[0] -= 1
        if left[0]:
            return False
        failed[0] += 1
        left[0] = failed[0] + 3
        if is_passed_on:
            pass_on()
        return True

    bucket.fault = fault
    entry = Forward(**bucket.settings())
    for name in "abcdef":
        made.save(name)
        states.note(made.ledger.acknowledged)
        for _ in range(20):
            with contextlib.suppress(OSError):
                run(forwards(entry))
                break
    assert failed[0] > 4
    table = bucket.table()
    assert table is not None
    assert content(table) == made.ledger.acknowledged
    assert states.seen == sorted(states.seen)


def test_a_copy_is_gone_on_with_when_the_courier_has_forgotten_it(
    made: Made, archive: Archive, forwards: Forwards, bucket: Bucket, tmp_path: Path
) -> None:
    made.save("a")
    run(forwards(Forward(**bucket.settings())))
    made.save("b")
    sent: list[str] = []
    bucket.written = lambda _method, path: sent.append(path)
    other = Store(tmp_path / "other")
    run(Forwards(archive, other)(Forward(**bucket.settings())))
    other.close()
    table = bucket.table()
    assert table is not None
    assert content(table) == made.ledger.acknowledged
    assert len(sent) == 2, "the new file and its entry"


def test_another_table_is_not_written_over(made: Made, forwards: Forwards, bucket: Bucket, tmp_path: Path) -> None:
    made.save("a")
    run(forwards(Forward(**bucket.settings())))
    shutil.rmtree(made.archive.root)
    made.shard.client.flushall()
    again = made._replace(shard=set_up(made.shard.client, made.archive, 1)[0])
    again.save("x")
    before = bucket.objects()
    other = Store(tmp_path / "other")
    with pytest.raises(SenderError, match="another table is there"):
        run(Forwards(made.archive, other)(Forward(**bucket.settings())))
    other.close()
    assert bucket.objects() == before


def test_an_archive_that_was_put_back_takes_the_copy_with_it(
    made: Made, forwards: Forwards, bucket: Bucket, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    s3 = forwards(Forward(**bucket.settings()))
    made.save("a")
    shutil.copytree(made.archive.root, tmp_path / "backup")
    for name in "bcd":
        made.save(name)
    run(s3)
    shutil.rmtree(made.archive.root)
    shutil.copytree(tmp_path / "backup", made.archive.root)
    made.shard.client.flushall()
    again = made._replace(shard=set_up(made.shard.client, made.archive, 1)[0])
    for name in "xy":
        again.save(name)
    run(s3)
    table = bucket.table()
    assert table is not None
    assert content(table) == archived(connection, made.archive)
    assert {device for device, _ in content(table)} == set("axy")


def test_another_archive_takes_the_place_of_what_the_forward_had_copied(
    made: Made, forwards: Forwards, bucket: Bucket, connection: duckdb.DuckDBPyConnection, few_commits: None
) -> None:
    s3 = forwards(Forward(**bucket.settings()))
    for name in "abcdef":
        made.save(name)
        run(s3)
    shutil.rmtree(made.archive.root)
    made.shard.client.flushall()
    again = made._replace(shard=set_up(made.shard.client, made.archive, 1)[0])
    again.save("x")
    run(s3)
    table = bucket.table()
    assert table is not None
    assert content(table) == archived(connection, made.archive)
    assert {device for device, _ in content(table)} == {"x"}


def test_a_copy_that_is_too_far_behind_lets_go_of_the_past_and_begins_anew(
    made: Made, forwards: Forwards, bucket: Bucket
) -> None:
    made.save("a")
    size_bytes = sum(file.size_bytes for file in made.archive.live(made.archive.open()))
    s3 = forwards(Forward(**bucket.settings(max_lag_bytes=size_bytes * 5 // 2)))
    run(s3)
    bucket.fault = lambda _method, _path, _pass_on: True
    held = []
    for name in "bcdefgh":
        made.save(name)
        made.merge()
        with pytest.raises(OSError, match="S3: "):
            run(s3)
        s3.look()
        held.append(s3.report().version)
    assert made.archive.open().version() - held[-1] <= 6, "no more of the log is held than may wait"
    assert held[-1] > held[0]
    assert s3.report().behind_records > 0
    states = States(made.archive, bucket)
    live = set(made.archive.files(made.archive.open()))
    states.note(made.ledger.acknowledged)
    for file in made.archive.root.glob("date=*/*.parquet"):
        if str(file) not in live:
            file.unlink()
    bucket.fault, bucket.written = (lambda _method, _path, _pass_on: False), states.look
    run(s3)
    assert states.seen[-1] == made.archive.open().version()
    report = s3.report()
    assert (report.behind_versions, report.behind_records, report.dropped_records) == (0, 0, 0)


def test_a_mirror_deletes_what_the_table_names_no_longer(made: Made, forwards: Forwards, bucket: Bucket) -> None:
    s3 = forwards(Forward(**bucket.settings(mirror=True)))
    for name in "abc":
        made.save(name)
        run(s3)
    made.merge()
    run(s3)
    files = {path for path in bucket.objects() if path.startswith("box/date=")}
    live = {str(Path(path).relative_to(made.archive.root)) for path in made.archive.files(made.archive.open())}
    assert files == {f"box/{path}" for path in live}
    table = bucket.table()
    assert table is not None
    assert content(table) == made.ledger.acknowledged


def test_what_is_wrong_with_a_bucket_is_said(made: Made, forwards: Forwards, bucket: Bucket) -> None:
    made.save("a")
    nowhere = {**bucket.settings(), "name": "no", "url": "s3://nobody/box"}
    with pytest.raises(OSError, match=r"S3: .*NoSuchBucket|S3: .*not found"):
        run(forwards(Forward(**nowhere)))
    away = {**bucket.settings(), "name": "away", "s3_endpoint": "http://127.0.0.1:9"}
    with pytest.raises(OSError, match="S3: "):
        run(forwards(Forward(**away)))
