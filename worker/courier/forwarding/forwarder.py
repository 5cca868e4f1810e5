"""One forward: follows the archive's log, entry by entry, and retries each until it succeeds.

    look        check that the log is the one that was sent, and whether it continues   (log_position.py)
    begin       store the next version, before its first batch
    send        send its records or files                                               (version_delivery.py)
    advance     store that it is done; only then may the archive delete it  (telemetry/archive/log_retention.py)

After a kill at any step it continues that version. docs/decisions/0017-forwarding.md explains why this is exactly once
at another Whimbrel and at least once elsewhere.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from telemetry.archive import commit_log
from telemetry.archive.added_file import NewFile
from telemetry.archive.change_feed import Change, change_at
from telemetry.archive.table import READ_ERRORS, Archive, in_one_line
from telemetry.config.settings import Forward
from telemetry.coordination.shared_state import ForwardProgress
from telemetry.model.errors import BusyError, StoreError, WhimbrelError
from telemetry.system.failpoints import Step, no_step_reporter
from worker.courier.delivery.backoff import Patience
from worker.courier.delivery.state_db import Progress, Store
from worker.courier.forwarding.lag_monitor import LagMonitor
from worker.courier.forwarding.log_position import Snapshot, look, with_backlog
from worker.courier.forwarding.saved_progress import SavedProgress, replace
from worker.courier.forwarding.version_delivery import Delivery, new_sender

log = logging.getLogger(__name__)

SHOWN_CHARACTERS = 300
"""Maximum length of a logged error, characters."""

TROUBLES = (WhimbrelError, sqlite3.Error, *READ_ERRORS)
"""Errors that are logged and retried, whatever their cause."""


class Forwarder:
    """Follows the log for one `[[forward]]` in its own thread."""

    def __init__(
        self,
        entry: Forward,
        archive: Archive,
        store: Store,
        delivery: Delivery,
        patience: Patience,
        now_ms: Callable[[], int],
        look_s: float,
        reached: Step = no_step_reporter,
    ) -> None:
        self._entry, self._archive, self._delivery = entry, archive, delivery
        self._patience, self._now_ms, self._look_s, self._reached = patience, now_ms, look_s, reached
        self._log = commit_log.folder(archive.root)
        self._saved = SavedProgress(store, entry.name, self._log)
        self._lag = LagMonitor(entry, self._log, self._saved, delivery.can_skip, now_ms, look_s)
        self._synced = -1

    def run(self, stopped: threading.Event) -> None:
        """Run until stopped."""
        while not stopped.is_set():
            try:
                pause_s = 0.0 if self.step() else self._look_s
                self._patience.succeeded()
                self._note_trouble("")
            except TROUBLES as error:
                asked_s = error.retry_after_s if isinstance(error, BusyError) else 0
                pause_s = self._patience.failed(asked_s)
                self._note_trouble(in_one_line(error)[:SHOWN_CHARACTERS])
            self._pause(pause_s, stopped)
        self.close()

    def close(self) -> None:
        """Close the connection to the receiver."""
        self._delivery.close()

    def _pause(self, pause_s: float, stopped: threading.Event) -> None:
        """Wait, and measure the backlog meanwhile."""
        while not stopped.is_set():
            self.look()
            if pause_s <= 0 or stopped.wait(min(pause_s, self._look_s)):
                return
            pause_s -= self._look_s

    def _note_trouble(self, trouble: str) -> None:
        if trouble and trouble != self._lag.trouble:
            log.warning("forward %s: %s; trying again", self._entry.name, trouble)
        elif self._lag.trouble and not trouble:
            log.info("forward %s: continues", self._entry.name)
        self._lag.trouble = trouble

    def look(self) -> None:
        """Measure the backlog, and drop what exceeds the limit."""
        self._lag.check(TROUBLES)

    def report(self) -> ForwardProgress:
        """Return the progress as of the last look."""
        return self._lag.report()

    # Progress ----------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Send the next version. False if there is none."""
        if not commit_log.entries(self._log):
            if self._saved.progress is None:
                self._save(self._fresh())
            elif self._saved.progress.version >= 0:
                raise StoreError("there is no archive")
            return False
        progress = self._whole(self._saved.progress or self._first())
        change = change_at(self._log, progress.version + 1)
        if change is None:
            self._delivery.tidy(progress)
            return False
        self._make_last(change.version)
        if progress.backlog:
            change = with_backlog(change, progress.backlog)
        is_again = (progress.begun_version, progress.begun_digest) == (change.version, change.digest)
        if not is_again:
            progress = replace(progress, begun_version=change.version, begun_digest=change.digest, done_rows=0)
            self._reached("begin")
            self._save(progress)
        try:
            progress = self._delivery.deliver(change, progress, is_again, self._save)
        except FileNotFoundError:
            self._missing(progress, change.rows)
            return True
        self._reached("advance")
        self._advance(progress, change)
        self._reached("done")
        return True

    def _make_last(self, version: int) -> None:
        """Sync the log before sending: after a power cut, a version could come again with other records."""
        if version > self._synced:
            entries = commit_log.entries(self._log)
            self._archive.make_last()
            self._synced = entries[-1] if entries else -1

    def _advance(self, progress: Progress, change: Change) -> None:
        done = {"version": change.version, "digest": change.digest, "done_rows": 0, "backlog": ()}
        progress = replace(progress, **done, last_success_ms=self._now_ms())
        self._saved.save(progress, self._delivery.due(change.removed, self._now_ms()))

    def _missing(self, progress: Progress, rows: int) -> None:
        """Handle a missing file of the version: it was deleted while the forward was not configured."""
        if not self._delivery.can_skip:
            log.warning("forward %s: files are gone before they were copied: copying again", self._entry.name)
            self._save(replace(progress, is_copying=True))
            return
        version = progress.version + 1
        log.error("forward %s: files of version %d are gone: its records are not sent", self._entry.name, version)
        self._skip_to(progress, version, rows - progress.done_rows, 1)

    # Start -------------------------------------------------------------------------------------------

    def _first(self) -> Progress:
        """Start of a new forward."""
        entries = commit_log.entries(self._log)
        self._saved.seed()
        fresh = self._fresh()
        if not self._delivery.can_skip:
            return self._anew(fresh)
        if self._entry.start == "all":
            now = self._snapshot()
            return self._save(replace(fresh, version=now.version - 1, backlog=now.files, backlog_since_ms=now.since_ms))
        log.info("forward %s: begins after version %d", self._entry.name, entries[-1])
        return self._save(replace(fresh, **self._saved.after(entries[-1])))

    def _snapshot(self) -> Snapshot:
        table, root = self._archive.open_existing(), self._archive.root
        if table is None:
            raise StoreError("there is no archive")
        live = sorted(self._archive.live(table), key=lambda file: (file.made_ms, file.path))
        files = [NewFile(str(Path(one.path).relative_to(root)), one.size_bytes, one.rows or 0) for one in live]
        return Snapshot(table.version(), tuple(files), live[0].made_ms if live else None)

    def _fresh(self) -> Progress:
        return Progress(url=self._entry.url, sender=new_sender())

    def _anew(self, progress: Progress) -> Progress:
        """Begin a copy of the table, or continue from one that exists.

        The archive keeps the files of the current version. Each attempt uses the newest version, so that a copy that
        fails for days keeps no older files.
        """
        now = self._snapshot()
        self._make_last(now.version)
        is_ours = progress.is_ours and progress.url == self._entry.url
        waiting = {"backlog": now.files, "backlog_since_ms": now.since_ms}
        url = self._entry.url
        progress = replace(
            progress, url=url, is_ours=is_ours, is_copying=True, **{**self._saved.after(now.version), **waiting}
        )
        self._lag.reset()
        self._save(progress)
        version = None if is_ours else self._delivery.newest()
        if version is None:
            version = now.version
            self._save(replace(progress, is_ours=True))
            self._reached("begin")
            self._delivery.begin(now)
        done = {"is_copying": False, "is_ours": True, "last_success_ms": self._now_ms()}
        return self._save(replace(progress, **self._saved.after(version), **done))

    def _whole(self, progress: Progress) -> Progress:
        """The position, after checking that the log continues from there."""
        is_copy = not self._delivery.can_skip
        if is_copy and (progress.is_copying or progress.url != self._entry.url):
            return self._anew(progress)
        found = look(self._log, progress.version, progress.digest, self._saved.sent_versions)
        if found.back_to is not None:
            return self._back(progress, found.back_to)
        if found.gap and is_copy:
            return self._anew(progress)
        if found.gap:
            log.error("forward %s: %d versions are gone before they were sent", self._entry.name, found.gap)
            self._skip_to(progress, progress.version + found.gap, 0, found.gap)
        return self._saved.progress or progress

    def _back(self, progress: Progress, version: int) -> Progress:
        log.warning(
            "forward %s: the archive was restored or replaced: continuing after version %d", self._entry.name, version
        )
        there = self._saved.after(version)
        is_whole = self._delivery.rewind(version if there["digest"] else -1)
        progress = replace(progress, **there, is_copying=not is_whole, sender=new_sender(), number=0)
        self._saved.rewind(progress)
        self._lag.reset()
        return progress if is_whole else self._anew(progress)

    def _save(self, progress: Progress) -> Progress:
        self._saved.save(progress)
        self._lag.check_in_version()
        return progress

    def _skip_to(self, progress: Progress, version: int, records: int, versions: int) -> None:
        self._saved.skip_to(progress, version, records, versions)
        self._lag.check_in_version()
