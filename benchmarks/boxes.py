"""A box for a benchmark, and waiting until it has saved and merged all that it took."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from telemetry.archive.table import Archive
from telemetry.config.loader import load
from telemetry.coordination import job_queue
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Shard
from tests.box import PROJECT, Box

SETTINGS = {"redis__max_memory_bytes": str(2**32), "archive__quiet_seconds": "1"}
"""Room for what a sender is ahead of the worker; and a day over is merged into one file as soon as it is asked for."""

LOOK_S = 0.1
PATIENCE_S = 600.0


@contextmanager
def box(**settings: str) -> Iterator[Box]:
    """A box that is ready, in a folder that goes away with it."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Box(Path(folder), (), PROJECT, **SETTINGS | settings) as found,
    ):
        yield found


@contextmanager
def shards(box: Box) -> Iterator[list[Shard]]:
    """The box's shards."""
    settings = load(environ=box.environ)
    with connect(settings) as client:
        yield hot.attach(client, settings.redis.shards)


def archive_of(box: Box) -> Archive:
    """The box's archive."""
    return Archive(box.data / "archive")


def wait_saved(box: Box) -> None:
    """Have all that waits saved at once, by the box's own worker, and wait for it."""
    with shards(box) as found:
        queue = job_queue.persist_queue(found[0].client)

        def ask_again() -> bool:
            waiting = [shard.shard for shard in found if shard.unsaved() or shard.state().intent is not None]
            if queue.count == 0:
                for number in waiting:
                    job_queue.enqueue_save(queue, number, time.time_ns())
            return not waiting

        _wait(ask_again, "records are not saved")


def wait_merged(box: Box) -> None:
    """Have each day merged into one file, by the box's own worker, and wait for it."""
    archive = archive_of(box)
    with shards(box) as found:
        queue = job_queue.persist_queue(found[0].client)

        def ask_again() -> bool:
            is_done = all(one.files == 1 for one in archive.days(archive.open()))
            if not is_done and queue.count == 0:
                job_queue.enqueue_compact(queue, time.time_ns())
            return is_done

        _wait(ask_again, "files are not merged")


def unsaved(box: Box) -> int:
    """How many records wait."""
    with shards(box) as found:
        return sum(shard.unsaved() for shard in found)


def saved(box: Box) -> int:
    """How many records the archive holds."""
    archive = archive_of(box)
    return sum(one.records for one in archive.days(archive.open()))


def _wait(is_so: Callable[[], bool], why: str) -> None:
    stop_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > stop_s:
            raise TimeoutError(why)
        time.sleep(LOOK_S)
