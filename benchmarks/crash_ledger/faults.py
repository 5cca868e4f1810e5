"""Carries a schedule out on a running box."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import redis

from benchmarks.crash_ledger.poison import Poison
from benchmarks.crash_ledger.programs import Programs
from benchmarks.crash_ledger.schedule import BEGIN, KILL, POISON, REPLAY, STOP, TIDY, Fault
from benchmarks.crash_ledger.steps import Steps
from telemetry.config.settings import Settings
from telemetry.coordination.job_queue import enqueue_tidy, persist_queue
from telemetry.hot_store.client import connect
from telemetry.model.errors import WhimbrelError


class Faults(threading.Thread):
    """One fault after another at its time, those at a point handed to `steps`."""

    def __init__(
        self,
        schedule: Sequence[Fault],
        programs: Programs,
        steps: Steps,
        tidy: Callable[[], None],
        poison: Poison,
    ) -> None:
        super().__init__(name="faults", daemon=True)
        self.stopping = threading.Event()
        self._schedule = schedule
        self._programs = programs
        self._steps = steps
        self._tidy = tidy
        self._poison = poison

    def run(self) -> None:
        start_s = time.monotonic()
        for fault in self._schedule:
            if self.stopping.wait(max(0.0, start_s + fault.at_s - time.monotonic())):
                return
            self._carry_out(fault)

    def _carry_out(self, fault: Fault) -> None:
        if fault.point:
            self._steps.expect(fault)
        elif fault.action == KILL:
            self._programs.kill(fault.target)
        elif fault.action == STOP:
            self._programs.stop(fault.target, fault.for_s)
        elif fault.action == BEGIN:
            self._programs.begin_second()
        elif fault.action == TIDY:
            self._tidy()
        elif fault.action == POISON:
            self._poison.put()
        elif fault.action == REPLAY:
            self._poison.replay()


def tidy(settings: Settings) -> None:
    """Ask for retention and sweep as the scheduler does, which would take it ten minutes."""
    with connect(settings, timeout_s=2) as client, contextlib.suppress(redis.RedisError, WhimbrelError):
        queue = persist_queue(client)
        if queue.count < 3:
            enqueue_tidy(queue, time.time_ns())
