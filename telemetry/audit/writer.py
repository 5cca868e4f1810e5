"""Writes the audit log: `<data.dir>/audit/<program>-<kind>.ndjson`, one line per entry (entry.py).

Each program has its own files, so that a hanging program does not block others; its processes share them under a lock.
A line is appended by a single write and therefore survives a kill; changes are also synced. Changes, queries and
rejections have separate files: a flood of rejections cannot push changes out of the log.

A file that would exceed `audit.max_file_bytes` is closed under the name `<program>-<kind>.<time>.ndjson`. The newest
`audit.files` of those are kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from telemetry.audit.entry import Actor, Entry, line_of, moment, new_id
from telemetry.config.settings import Settings
from telemetry.model.errors import AuditError
from telemetry.observability import metrics
from telemetry.system.fsync import fsync, make_folder
from telemetry.system.permissions import OWN_FILE, OWN_FOLDER

log = logging.getLogger(__name__)

Kind = Literal["changes", "questions", "refusals"]
KINDS: tuple[Kind, ...] = ("changes", "questions", "refusals")
SUFFIX = ".ndjson"
LOCK_S = 2.0
"""Timeout for the lock held by another process of the program, s."""

ADVICE = "correct the cause, or set audit.enabled = false"


class AuditFile:
    """A file shared by the threads and processes of a program."""

    def __init__(self, folder: Path, name: str, max_bytes: int, files: int) -> None:
        self._path = folder / f"{name}{SUFFIX}"
        self._name = name
        self._max_bytes = max_bytes
        self._files = files
        self._mutex = threading.Lock()

    def append(self, line: bytes, is_synced: bool) -> None:
        """Append a line, and sync it if `is_synced`. Raises `OSError`."""
        with self._mutex:
            file = self._locked()
            try:
                if 0 < self._max_bytes - len(line) < os.fstat(file).st_size:
                    self._close()
                    os.close(file)
                    file = -1
                    file = self._locked()
                self._write(file, line)
                if is_synced:
                    os.fsync(file)
            finally:
                if file >= 0:
                    os.close(file)  # also releases the lock

    def _locked(self) -> int:
        """Open and lock the current file, although another process may rename it meanwhile."""
        stop_s = time.monotonic() + LOCK_S
        while True:
            is_new = not self._path.exists()
            if is_new:
                make_folder(self._path.parent, OWN_FOLDER)
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, OWN_FILE)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(file, self._path):
                    if is_new:
                        fsync(self._path.parent)
                    return file
                os.close(file)
            except BlockingIOError:
                os.close(file)
                if time.monotonic() > stop_s:
                    raise
                time.sleep(0.001)
            except BaseException:
                os.close(file)
                raise

    def _write(self, file: int, line: bytes) -> None:
        """Append all or nothing: an incomplete line from a kill or a full disk is ended first."""
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(file, line) != len(line):
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _close(self) -> None:
        """Give the locked file the name of a closed file, and delete the oldest closed files."""
        stamp = re.sub(r"[^0-9]", "", moment(time.time()))
        self._path.rename(self._path.with_name(f"{self._name}.{stamp}{SUFFIX}"))
        fsync(self._path.parent)
        for old in closed(self._path.parent, self._name)[: -self._files]:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()


def closed(folder: Path, name: str) -> list[Path]:
    """Closed files of a program and kind, oldest first."""
    return sorted(folder.glob(f"{name}.[0-9]*{SUFFIX}"))


def _is_at(file: int, path: Path) -> bool:
    try:
        opened, named = os.fstat(file), path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


class Audit:
    """The audit log of one program. Without `files` nothing is recorded: `audit.enabled` is off."""

    def __init__(self, program: str, files: dict[Kind, AuditFile], now_s: Callable[[], float] = time.time) -> None:
        self.program = program
        self._files = files
        self._now_s = now_s
        _ = metrics.AUDIT_FAILURES.one
        for kind in files:
            metrics.AUDIT_ENTRIES.of(kind)

    @classmethod
    def of(cls, settings: Settings, program: str) -> Audit:
        """The audit log of a program with these settings."""
        section, folder = settings.audit, settings.audit_dir
        if not section.enabled:
            return cls(program, {})
        return cls(
            program,
            {kind: AuditFile(folder, f"{program}-{kind}", section.max_file_bytes, section.files) for kind in KINDS},
        )

    @property
    def is_on(self) -> bool:
        """True if entries are recorded."""
        return bool(self._files)

    def begin(self, action: str, actor: Actor, kind: Kind = "changes", **more: Any) -> Entry:
        """Record a planned action; for a change the entry is synced. `more` are further fields of `Entry`.

        Raises `AuditError` if it cannot be recorded: then the action must not be carried out.
        """
        entry = Entry(moment(self._now_s()), new_id(), self.program, action, "begun", actor, **more)
        try:
            self._append(kind, entry, is_synced=kind == "changes")
        except OSError as error:
            self._failed(error)
            raise AuditError(f"cannot record {action} in the audit log: {error.strerror or error}; {ADVICE}") from None
        return entry

    def end(self, begun: Entry, is_done: bool, kind: Kind = "changes", status: int = 0, **details: Any) -> None:
        """Record the outcome of a begun action. Never raises, because the action is done."""
        entry = Entry(
            moment(self._now_s()),
            begun.id,
            self.program,
            begun.action,
            "done" if is_done else "refused" if status in (401, 403) else "failed",
            begun.actor,
            begun.address,
            begun.target,
            begun.device,
            status,
            details=details,
        )
        self.note(kind, entry, is_synced=kind == "changes")

    def happened(self, action: str, actor: Actor, **more: Any) -> None:
        """Record a completed change in one line. Never raises."""
        entry = Entry(moment(self._now_s()), new_id(), self.program, action, "done", actor, **more)
        self.note("changes", entry, is_synced=True)

    def note(self, kind: Kind, entry: Entry, is_synced: bool = False) -> None:
        """Record an entry, or count the failure."""
        try:
            self._append(kind, entry, is_synced)
        except OSError as error:
            self._failed(error)

    def _append(self, kind: Kind, entry: Entry, is_synced: bool) -> None:
        if self._files:
            self._files[kind].append(line_of(entry), is_synced)
            metrics.AUDIT_ENTRIES.of(kind).add()

    def _failed(self, error: OSError) -> None:
        metrics.AUDIT_FAILURES.one.add()
        log.error("cannot write the audit log: %s", error)
