"""`whimbrel status`: what /status says, from Redis and the archive themselves."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
import redis

from cli.admin.status import COMMAND, END_OF_SCREEN, HOME
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from telemetry.system import clock
from tests.box import PROJECT
from tests.cli.conftest import Run
from tests.conftest import settings_of
from worker.saving.saver import Saver


def append(shard: Shard, count: int) -> None:
    now_us = clock.now_us()
    sent = [Sent(f"van {n}", Record(now_us - n * DAY_US, "tcp", "json")) for n in range(count)]
    append_batches(shard, [Batch(pack(sent))], Limits())


@pytest.fixture
def alive(shard: Shard, client: redis.Redis) -> Shard:
    """A box that is ready."""
    for program in (shared_state.WORKER, shared_state.SCHEDULER):
        shared_state.write_heartbeat(client, program, time.time())
    return shard


def test_a_box_that_is_ready(
    alive: Shard, settings: Settings, archive: Archive, connection: duckdb.DuckDBPyConnection, call: Run
) -> None:
    append(alive, 10)
    Saver(archive, connection, clock.now_ms).save(alive)
    append(alive, 3)
    done = call(COMMAND, settings, "--json")
    assert done.status == 0
    found = done.json
    assert found["status"] == "ready"
    assert found["reasons"] == found["unknown"] == []
    assert (found["unsaved_records"], found["saved_records"], found["files"]) == (3, 10, 10)
    assert found["shards"][0]["oldest_unsaved_age_s"] < 60
    assert found["redis_memory_bytes"] > 0
    assert abs(datetime.fromisoformat(found["last_commit"]).timestamp() - time.time()) < 60

    text = call(COMMAND, settings)
    assert text.status == 0
    assert text.lines[0].endswith("UTC: ready")
    assert "Saved     10 records in 10 files of 10 days" in text.out
    assert "Waiting   3 records, the oldest came" in text.out
    assert "worker seen" in text.out
    assert "Refused   nothing" in text.lines
    assert "and 3 more" in text.out, "seven of ten days"
    assert [line for line in text.lines if line.startswith("0 ")], "a line of shard 0"


def test_what_was_refused(alive: Shard, client: redis.Redis, settings: Settings, call: Run) -> None:
    shared_state.add_refused(client, {"busy": 5, "invalid-json": 12_345})
    assert "Refused   12,345 invalid-json, 5 busy" in call(COMMAND, settings).lines
    assert call(COMMAND, settings, "--json").json["refused"] == {"busy": 5, "invalid-json": 12_345}


def test_a_box_that_is_not(shard: Shard, settings: Settings, call: Run) -> None:
    done = call(COMMAND, settings)
    assert done.status == 1
    assert done.lines[0].endswith("not ready")
    assert "  the worker has given no sign of life for 60 s" in done.lines


def test_without_redis_the_rest_is_told(
    alive: Shard, settings: Settings, archive: Archive, connection: duckdb.DuckDBPyConnection, tmp_path: Path, call: Run
) -> None:
    append(alive, 2)
    Saver(archive, connection, clock.now_ms).save(alive)
    done = call(COMMAND, settings_of(f"unix://{tmp_path}/nobody.sock", tmp_path))
    assert done.status == 1
    assert done.out.count("cannot reach Redis") == 1
    assert "Waiting   not known" in done.lines
    assert "Saved     2 records" in done.out


def watch(settings: Settings, *more: str, stdout: int) -> subprocess.Popen[bytes]:
    environ = os.environ | {"WHIMBREL__REDIS__URL": settings.redis.url, "WHIMBREL__DATA__DIR": str(settings.data_dir)}
    command = [sys.executable, "-m", "cli.main", "status", "--watch", "0.05", *more]
    return subprocess.Popen(command, cwd=PROJECT, env=environ, stdout=stdout, stderr=subprocess.PIPE)


def ended_quietly(process: subprocess.Popen[bytes]) -> bool:
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    return process.returncode == 0 and err == b""


def test_watching_prints_block_after_block_to_a_file(alive: Shard, settings: Settings) -> None:
    process = watch(settings, stdout=subprocess.PIPE)
    assert process.stdout is not None
    heads = 0
    while heads < 3:
        line = process.stdout.readline()
        assert line
        assert b"\x1b" not in line
        heads += line.startswith(b"Whimbrel ")
    assert ended_quietly(process)


def test_watching_redraws_in_place_on_a_terminal(alive: Shard, settings: Settings) -> None:
    ours, theirs = pty.openpty()
    process = watch(settings, stdout=theirs)
    seen = b""
    while seen.count(HOME.encode()) < 3:
        seen += os.read(ours, 4_096)
    assert END_OF_SCREEN.encode() in seen
    assert ended_quietly(process)
    os.close(ours)
    os.close(theirs)
