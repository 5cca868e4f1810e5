"""A worker whose Redis is away looks for it often enough: saving goes on soon after it is back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from telemetry.hot_store.client import connect
from tests.conftest import RedisServer, settings_of
from worker.rq_worker import LONGEST_WAIT_S, rq_worker


class Enough(Exception):
    """It has waited often enough."""


def test_it_never_waits_long(own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RQ's own waits double to a minute; after 90 s without Redis saving would begin up to 33 s after it is back."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if sum(waits) > 90:
            raise Enough

    with connect(settings_of(own_redis.url, tmp_path), timeout_s=None) as client:
        worker = rq_worker(client)
        monkeypatch.setattr(time, "sleep", wait)
        end = threading.Timer(0.5, own_redis.kill)  # while the worker waits for a job
        end.start()
        with pytest.raises(Enough):
            worker.dequeue_job_and_maintain_ttl(30)
        end.join()
    assert waits[:2] == [1, 2], "it is RQ that waits"
    assert max(waits) == LONGEST_WAIT_S
