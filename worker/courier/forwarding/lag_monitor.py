"""Measures and reports the backlog of a forward, and drops its oldest versions above the disk limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from telemetry.archive.table import in_one_line
from telemetry.config.settings import Forward
from telemetry.coordination.shared_state import ForwardProgress
from worker.courier.delivery.http_client import shown
from worker.courier.delivery.state_db import Progress
from worker.courier.forwarding.log_position import Lag
from worker.courier.forwarding.saved_progress import SavedProgress, replace

log = logging.getLogger(__name__)


class LagMonitor:
    """The lag of one forward. `can_skip` is whether its receiver may miss versions.

    `trouble` is the error of the last try for the report, empty if it succeeded.
    """

    def __init__(
        self,
        entry: Forward,
        log_folder: Path,
        saved: SavedProgress,
        can_skip: bool,
        now_ms: Callable[[], int],
        look_s: float,
    ) -> None:
        self._entry, self._saved, self._can_skip = entry, saved, can_skip
        self._now_ms, self._look_s = now_ms, look_s
        self._lag = Lag(log_folder)
        self._measured_s = float("-inf")
        self.trouble = ""
        self._last_report = self._make_report()

    def check(self, errors: tuple[type[Exception], ...]) -> None:
        """Measure the backlog, and drop what exceeds the limit. Errors of these types are logged."""
        try:
            if self._saved.progress is not None:
                self._lag.look(self._saved.progress.version)
                self._give_up(self._saved.progress)
        except errors as error:
            log.warning("forward %s: cannot measure the backlog: %s", self._entry.name, in_one_line(error))
        self._measured_s = time.monotonic()
        self._last_report = self._make_report()

    def check_in_version(self) -> None:
        """Measure during the delivery of a version, which may take hours, if that was not done lately."""
        if self._saved.progress is not None and time.monotonic() - self._measured_s >= self._look_s:
            self._lag.look(self._saved.progress.version)
            self._measured_s = time.monotonic()
        self._last_report = self._make_report()

    def reset(self) -> None:
        """Measure from scratch: the log is another."""
        self._lag.forget()

    def report(self) -> ForwardProgress:
        """Return the progress as of the last check."""
        report, now_ms = self._last_report, self._now_ms()
        oldest_ms = now_ms if report.oldest_waiting_ms is None else report.oldest_waiting_ms
        return msgspec.structs.replace(report, noted_ms=now_ms, behind_s=max(0, now_ms - oldest_ms) / 1_000)

    def _make_report(self) -> ForwardProgress:
        p, lag = self._saved.progress or Progress(url=""), self._lag
        return ForwardProgress(
            self._entry.name,
            shown(self._entry.url),
            0,
            p.version,
            len(lag) + p.is_copying,
            lag.records + sum(file.rows for file in p.backlog) - p.done_rows,
            lag.size_bytes + sum(file.size_bytes for file in p.backlog),
            0.0,
            p.backlog_since_ms if p.backlog else lag.oldest_ms(),
            p.sent_records,
            p.refused_records,
            p.dropped_records,
            p.dropped_versions,
            p.last_success_ms,
            self.trouble,
        )

    def _give_up(self, progress: Progress) -> None:
        """Drop the oldest versions of the backlog if they take more disk space than allowed."""
        max_bytes = self._entry.max_lag_bytes
        given_up = self._lag.beyond(max_bytes) if max_bytes else []
        if not given_up:
            return
        name, version, records = self._entry.name, given_up[-1].version, sum(one.records for one in given_up)
        if self._can_skip:
            lost = records - progress.done_rows
            log.error("forward %s: more than %d bytes waited: %d records were given up", name, max_bytes, lost)
            self._saved.skip_to(progress, version, lost, len(given_up))
        else:
            log.error("forward %s: more than %d bytes waited: the copy starts again", name, max_bytes)
            self._saved.save(replace(progress, is_copying=True, **self._saved.after(version)))
        self._lag.look(version)
