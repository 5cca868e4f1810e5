"""A power cut at any moment: each acknowledged record exists once, and the box starts without help.

SIGKILL leaves what the kernel still holds in memory, so it can't show a missing fsync. Here a whole box runs under
strace; its calls are replayed, and at each one the disk is made as a power cut could leave it (crash_states.py).
On each such disk a real Redis starts. The records that a worker and a query find there are compared with the records
that had been acknowledged by then.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from api.snapshot.snapshot import Snapshots, Wanted
from compactor.compaction import Compactor
from telemetry.archive.operations import commits, log_maintenance
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.loader import load
from telemetry.coordination import job_queue
from telemetry.coordination.job_queue import persist_queue
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import day_of
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from tests.box import PROJECT, Box
from tests.conftest import RedisServer, settings_of
from tests.crash_states import KINDS, Disk, State
from tests.senders import post, reasons, wait_until
from tests.strace import Call, read_trace, traced
from worker.saving.saver import Saver

pytestmark = pytest.mark.slow

COMMITS_BEFORE = 16
"""So many that the box makes a checkpoint."""

ROUNDS = 4
RECORDS_A_ROUND = 3
AOF_STRIDE = 130
"""Interval of the checked writes to Redis's log, of the many writes between two acknowledgements."""

PASSING = ("openat", "write", "pwrite64", "ftruncate", "mkdir")
"""What these do to a new file is not looked at by itself: what follows, which gives it its name, comes to the same."""

ALL = Wanted((), EARLIEST_US, LATEST_US)
ACKNOWLEDGED = b"HTTP/1.1 202"


class Moment(NamedTuple):
    """A disk after a power cut: the last call before it, and the number of acknowledged records."""

    done: str
    state: State
    acknowledged: int


class Recording(NamedTuple):
    """All system calls of a box, and the moments at which its power could be cut."""

    data: Path
    calls: list[Call]
    moments: list[Moment]


def record(folder: Path) -> Recording:
    """Run a box under strace that saves, merges, sweeps and makes a checkpoint."""
    archive = Archive(folder / "data" / "archive")
    for _ in range(COMMITS_BEFORE):
        commits.fence(archive, archive.open(), day_of(0))
    program = traced(folder / "trace", [sys.executable, "-m", "cli.main", "up"])
    disk = Disk(folder / "data", ("archive", "redis"))
    with (
        Box(
            folder, program, persist__flush_seconds="1", archive__max_open_files="4", archive__grace_seconds="1"
        ) as box,
        connect(load(environ=box.environ)) as client,
    ):
        [shard] = hot.attach(client, 1)
        for number in range(ROUNDS * RECORDS_A_ROUND):
            assert post(box, number).status_code == 202
            if number % RECORDS_A_ROUND == RECORDS_A_ROUND - 1:
                wait_until(lambda: shard.unsaved() == 0)
        wait_until(lambda: any("/compact-" in file for file in archive.files(archive.open())))
        while archive.unlisted(archive.open()):
            job_queue.enqueue_tidy(persist_queue(client), time.time_ns())
            time.sleep(1)
        pid = box.pid
        assert box.stop() == 0
    calls = read_trace(folder / "trace", pid)
    return Recording(folder / "data", calls, list(moments(disk, calls)))


def moments(disk: Disk, calls: Sequence[Call]) -> Iterator[Moment]:
    """Replay the calls. An answer counts from when it begins to leave, all else from when it has been done."""
    seen: list[tuple[dict[str, bytes | None], int]] = []
    acknowledged = logged = 0
    ordered = sorted((call.begun if is_answer(call) else call.ended, call) for call in calls)
    for _, call in ordered:
        answered = is_answer(call)
        acknowledged += answered
        if not disk.apply(call) and not answered:
            continue
        logged += is_of_aof(call)
        if not answered and (logged % AOF_STRIDE if is_of_aof(call) else call.name in PASSING):
            continue
        for state in disk.states():
            if state.kind == "last name" and disk.newest.startswith("redis"):
                continue  # Redis names three files in one folder, and syncs it once: in one folder none comes too early
            if (state.content, acknowledged) not in seen[-20:]:
                seen.append((state.content, acknowledged))
                yield Moment(described(call), state, acknowledged)


def is_answer(call: Call) -> bool:
    return call.name in ("write", "writev", "sendto", "sendmsg") and ACKNOWLEDGED in b"".join(call.texts)[:20]


def is_of_aof(call: Call) -> bool:
    return any(file.endswith(".incr.aof") for file in call.files)


def described(call: Call) -> str:
    names = [os.path.basename(file) for file in call.files] + [os.fsdecode(text[-60:]) for text in call.texts[-1:]]
    return f"{call.name} {' '.join(names)}"


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    """One box that ran."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        yield record(Path(folder))


# --- what is found afterwards ---------------------------------------------------------------------------


def check(found: Counter[int], acknowledged: int) -> None:
    """Records are numbered in the order in which they were sent, one after the other."""
    assert max(found.values(), default=1) == 1, "none is there twice"
    assert set(range(acknowledged)) <= found.keys(), "what was acknowledged is there"
    assert found.keys() <= set(range(acknowledged + 1)), "and but for the one under way nothing else"


def after_the_cut(moment: Moment) -> None:
    """Start Redis, take a query's snapshot, save and merge everything, and take one more."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as name:
        folder = Path(name) / "data"
        moment.state.write(folder)
        (folder / "redis").mkdir(exist_ok=True)
        server = RedisServer(folder / "redis")
        try:
            server.start()
            check_stores(server, Archive(folder / "archive"), moment.acknowledged)
        finally:
            server.kill()


def check_stores(server: RedisServer, archive: Archive, acknowledged: int) -> None:
    with connect(settings_of(server.url, archive.root)) as client, open_duckdb() as connection:
        [shard] = set_up(client, archive, 1)
        snapshots = Snapshots(lambda: hot.pinned(client, 1), archive)

        def seen() -> Counter[int]:
            found = snapshots.take(ALL)
            files = found.files
            sql = "SELECT altitude_m FROM read_parquet($1)"
            rows = connection.execute(sql, [[file.path for file in files]]).fetchall() if files else []
            return Counter([int(row[0]) for row in rows] + [int(one.record.altitude_m or 0) for one in found.tail])

        check(seen(), acknowledged)
        save_all(Saver(archive, connection, clock.now_ms), shard)
        merge = Compactor(archive, lambda: connection, clock.now_us, is_all=True)
        while merge.compact() is not None:
            pass
        check(seen(), acknowledged)
        assert shard.unsaved() == 0


def save_all(saver: Saver, shard: Shard) -> None:
    while shard.unsaved() or shard.state().intent is not None:
        saver.save(shard)


# --- the tests ------------------------------------------------------------------------------------------


def test_the_replay_ends_with_the_archive_as_it_is(recording: Recording) -> None:
    """So the recording is whole, and nothing was written in a way that the replay doesn't know."""
    last = [moment for moment in recording.moments if moment.state.kind == "all"][-1]
    real = {
        str(path.relative_to(recording.data)): None if path.is_dir() else path.read_bytes()
        for path in (recording.data / "archive").rglob("*")
    }
    replayed = {path: data for path, data in last.state.content.items() if path.startswith("archive/")}
    assert replayed == real


def test_the_recording_has_all_that_a_box_does_to_its_disk(recording: Recording) -> None:
    done = [moment.done for moment in recording.moments]
    for wanted in (
        rf"linkat .*{COMMITS_BEFORE + 2:020}\.json",
        r"rename .*checkpoint\.parquet",
        r"rename .*_last_checkpoint",
        r"fsync compact-",
        r"unlink .*parquet",
        r"fdatasync .*incr\.aof",
        r"write.* socket:",
    ):
        assert any(re.match(wanted, one) for one in done), wanted
    assert {moment.state.kind for moment in recording.moments} == set(KINDS)
    assert max(moment.acknowledged for moment in recording.moments) == ROUNDS * RECORDS_A_ROUND


def test_each_step_is_on_disk_before_the_next(recording: Recording) -> None:
    """Data files and their folders, then the log's entry and its folder, and only then the trim in Redis."""
    calls, archive = recording.calls, recording.data / "archive"
    entries = [call for call in calls if call.name == "linkat" and re.search(r"/\d{20}\.json$", call.path(1))]
    saves = compactions = 0
    for entry in entries:
        text = Path(entry.path(1)).read_text(encoding="utf-8")
        added = [archive / json.loads(line)["add"]["path"] for line in text.splitlines() if line.startswith('{"add"')]
        for path in (*added, *(file.parent for file in added), *([archive] if added else [])):
            assert synced(calls, path, before=entry.begun), f"{path} before {entry.path(1)}"
        if '"whimbrel-0"' in text:
            saves += 1
            trim = next(call for call in calls if call.begun > entry.ended and is_trim(call))
            for path in (Path(entry.path(1)), archive / "_delta_log"):
                assert synced(calls, path, before=trim.begun, after=entry.ended), f"{path} before the trim"
        compactions += bool(added) and "compact-" in added[0].name
    assert saves == ROUNDS
    assert compactions >= 1


def synced(calls: Sequence[Call], path: Path, before: int, after: int = 0) -> bool:
    return any(
        call.name == "fsync" and call.files == (str(path),) and after < call.begun and call.ended < before
        for call in calls
    )


def is_trim(call: Call) -> bool:
    return call.name in ("sendto", "write") and call.files[0].startswith("socket:") and b"_finish\r\n" in call.texts[0]


@pytest.mark.timeout(900)
def test_what_is_acknowledged_survives_a_cut_at_any_moment(recording: Recording) -> None:
    with ThreadPoolExecutor(2) as threads:
        runs = [(moment, threads.submit(after_the_cut, moment)) for moment in recording.moments]
        bad = [
            f"{moment.state.kind} after {moment.done}: {error!r}" for moment, run in runs if (error := run.exception())
        ]
    assert bad == []


def test_redis_starts_on_a_log_cut_at_any_byte(recording: Recording) -> None:
    """The last record's command is on its way to the disk: those before it stay, whatever there is of it."""
    answer = [call for call in recording.calls if is_answer(call)][-1]
    writes = [call for call in recording.calls if is_of_aof(call) and call.name == "write"]
    last = [call for call in writes if call.ended < answer.begun and b"XADD" in call.texts[0]][-1]
    before = b"".join(call.texts[0] for call in writes if call.ended < last.ended)
    acknowledged = ROUNDS * RECORDS_A_ROUND - 1
    [aof] = [path for path in recording.moments[-1].state.content if path.endswith(".incr.aof")]
    *_, disk = (
        moment.state
        for moment in recording.moments
        if moment.acknowledged == acknowledged
        and moment.state.kind == "all"
        and before.startswith(moment.state.content[aof] or b"")
    )
    for size in {*range(0, len(last.texts[0]), len(last.texts[0]) // 10), len(last.texts[0]) - 1}:
        cut = {**disk.content, aof: before + last.texts[0][:size]}
        after_the_cut(Moment(f"{size} bytes", State("torn", cut), acknowledged))


def test_a_whole_box_starts_by_itself_on_a_torn_log(recording: Recording) -> None:
    done = rf"linkat .*{COMMITS_BEFORE + 3:020}\.json"
    moment = next(one for one in recording.moments if re.match(done, one.done) and one.state.kind == "torn")
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as name:
        moment.state.write(Path(name) / "data")
        with Box(Path(name), persist__flush_seconds="1") as box:
            wait_until(lambda: reasons(box) == [])
            assert post(box, 1_000).status_code == 202
            box.json("drain")
            assert exported(box, Path(name) / "all.csv") >= {*range(moment.acknowledged), 1_000}
            assert any("damaged the archive's log" in line for line in box.output)
            assert box.stop() == 0


def exported(box: Box, file: Path) -> set[int]:
    box.json("export", str(file))
    with file.open(newline="") as rows:
        found = [int(float(row["altitude_m"])) for row in csv.DictReader(rows)]
    assert len(found) == len(set(found)), "none is there twice"
    return set(found)


def test_a_table_that_is_being_made_is_made_again(tmp_path: Path) -> None:
    """All that a power cut can leave of the very first commit."""
    root = tmp_path / "data" / "archive"
    code = f"from pathlib import Path; from telemetry.archive.table import Archive; Archive(Path({str(root)!r})).open()"
    disk = Disk(tmp_path, ("data",))
    subprocess.run(traced(tmp_path / "trace", [sys.executable, "-c", code]), cwd=PROJECT, check=True)
    calls = read_trace(tmp_path / "trace")
    states = [state for call in calls if disk.apply(call) for state in disk.states()]
    assert len(states) > 20
    for number, state in enumerate(states):
        state.write(tmp_path / f"cut {number}")
        archive = Archive(tmp_path / f"cut {number}" / "data" / "archive")
        log_maintenance.mend(archive)
        commits.fence(archive, archive.open(), day_of(0))
        assert archive.open().version() == 1, state.kind
    assert "data/archive/_delta_log" in next(disk.states()).content, "the whole way to it is on disk at the end"
