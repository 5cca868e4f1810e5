"""State of the courier in a SQLite file: progress of forwards, pending events. Only this module knows the tables.

    forward  name → JSON of `Progress`
    done     the newest versions that a forward has done, and their entries' digests
    due      files that a mirror must delete from S3, and when
    event    pending events of a receiver, in order
    silent   devices reported to a receiver as silent, and when they were last seen before that
    note     other values, by name

Every change is atomic and synced when its function returns, and survives kills and power cuts.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from telemetry.archive.added_file import NewFile
from telemetry.system.fsync import fsync, make_folder

T = TypeVar("T")

FILE = "courier.sqlite"

DONE_KEPT = 4_096
"""Number of versions remembered per forward: more than the log keeps entries."""

_TABLES = """
CREATE TABLE IF NOT EXISTS forward (name TEXT PRIMARY KEY, progress BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS done (name TEXT, version INTEGER, digest TEXT, PRIMARY KEY (name, version));
CREATE TABLE IF NOT EXISTS due (name TEXT, path TEXT, at_ms INTEGER, PRIMARY KEY (name, path));
CREATE TABLE IF NOT EXISTS event (number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT, body BLOB);
CREATE INDEX IF NOT EXISTS event_receiver ON event (receiver, number);
CREATE TABLE IF NOT EXISTS silent (receiver TEXT, device BLOB, seen_ms INTEGER, PRIMARY KEY (receiver, device));
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, value BLOB);
"""


class Progress(Struct, frozen=True, kw_only=True):
    """Progress of a forward.

    `version` and `digest` belong to the last entry done. `done_rows` are the rows done of the current version,
    `begun_version`. `sender` and `number` name the last batch. `backlog` are the files that the version after `version`
    counts as added, or the files of a copy in progress (`is_copying`): the archive's files at that time, the oldest
    made at `backlog_since_ms`. `is_ours`: the data at the receiver were written by this forward.
    """

    url: str
    version: int = -1
    digest: str = ""
    begun_version: int = -1
    begun_digest: str = ""
    done_rows: int = 0
    sender: str = ""
    number: int = 0
    backlog: tuple[NewFile, ...] = ()
    backlog_since_ms: int | None = None
    is_copying: bool = False
    is_ours: bool = False
    sent_records: int = 0
    refused_records: int = 0
    dropped_records: int = 0
    dropped_versions: int = 0
    last_success_ms: int | None = None


class Event(NamedTuple):
    """A pending event with its number; `body` is JSON."""

    number: int
    body: bytes


class Store:
    """The database, for use by several threads."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder, 0o700)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / FILE, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_TABLES)
        fsync(folder)

    def close(self) -> None:
        """Close it; not required for durability."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction, or a part of the current one."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # Forwards ----------------------------------------------------------------------------------------

    def progress(self, name: str) -> Progress | None:
        """Progress of a forward; None if it has not begun."""
        with self._lock:
            row = self._db.execute("SELECT progress FROM forward WHERE name = ?", (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Progress)

    def keep(self, name: str, progress: Progress, due: Iterable[tuple[str, int]] = ()) -> None:
        """Store the progress of a forward, and the files its mirror must delete and when, ms since epoch."""
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO forward VALUES (?, ?)", (name, msgspec.json.encode(progress)))
            self._db.executemany("INSERT OR REPLACE INTO due VALUES (?, ?, ?)", [(name, *entry) for entry in due])
            if progress.version >= 0 and progress.digest:
                self._db.execute(
                    "INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (name, progress.version, progress.digest)
                )
                self._db.execute(
                    "DELETE FROM done WHERE name = ? AND version <= ?", (name, progress.version - DONE_KEPT)
                )

    def rewind(self, name: str, progress: Progress) -> None:
        """Store the progress, and forget later versions."""
        with self._change():
            self._db.execute("DELETE FROM done WHERE name = ? AND version > ?", (name, progress.version))
            self._db.execute("DELETE FROM due WHERE name = ?", (name,))
            self.keep(name, progress)

    def seed(self, name: str, done: Iterable[tuple[int, str]]) -> None:
        """Record versions from before a forward began as done, with their entries' digests."""
        with self._change():
            self._db.executemany("INSERT OR IGNORE INTO done VALUES (?, ?, ?)", [(name, *entry) for entry in done])

    def done(self, name: str) -> list[tuple[int, str]]:
        """The newest versions that a forward has done, and their digests, newest first."""
        with self._lock:
            sql = "SELECT version, digest FROM done WHERE name = ? ORDER BY version DESC"
            return self._db.execute(sql, (name,)).fetchall()

    def due(self, name: str, now_ms: int, most: int) -> list[str]:
        """Some paths that are due for deletion."""
        with self._lock:
            sql = "SELECT path FROM due WHERE name = ? AND at_ms <= ? ORDER BY at_ms LIMIT ?"
            return [path for (path,) in self._db.execute(sql, (name, now_ms, most))]

    def deleted(self, name: str, paths: Sequence[str]) -> None:
        """Forget deleted paths."""
        with self._change():
            self._db.executemany("DELETE FROM due WHERE name = ? AND path = ?", [(name, path) for path in paths])

    # Events ------------------------------------------------------------------------------------------

    def add_events(
        self,
        receiver: str,
        bodies: Iterable[bytes],
        silent: Iterable[tuple[bytes, int]] = (),
        back: Iterable[bytes] = (),
    ) -> None:
        """Queue events for a receiver, and record which devices are thereby reported as silent or back."""
        with self._change():
            self._db.executemany("INSERT INTO event (receiver, body) VALUES (?, ?)", [(receiver, b) for b in bodies])
            self._db.executemany(
                "INSERT OR REPLACE INTO silent VALUES (?, ?, ?)", [(receiver, *entry) for entry in silent]
            )
            self._db.executemany("DELETE FROM silent WHERE receiver = ? AND device = ?", [(receiver, d) for d in back])

    def tell_all(self, receivers: Iterable[str], body: bytes, note: str, value: object) -> None:
        """Queue an event for several receivers, and store a note."""
        with self._change():
            for receiver in receivers:
                self.add_events(receiver, [body])
            self.note(note, value)

    def events(self, receiver: str, most: int) -> list[Event]:
        """The oldest pending events of a receiver."""
        with self._lock:
            sql = "SELECT number, body FROM event WHERE receiver = ? ORDER BY number LIMIT ?"
            return [Event(*row) for row in self._db.execute(sql, (receiver, most))]

    def told(self, receiver: str, events: Sequence[Event]) -> None:
        """Remove delivered events."""
        with self._change():
            self._db.executemany("DELETE FROM event WHERE number = ?", [(event.number,) for event in events])
            self.note(f"told {receiver}", self.told_count(receiver) + len(events))

    def told_count(self, receiver: str) -> int:
        """Total number of events delivered to a receiver."""
        return self.read(f"told {receiver}", int) or 0

    def silent_count(self, receiver: str) -> int:
        """Number of devices reported to a receiver as silent."""
        with self._lock:
            sql = "SELECT count(*) FROM silent WHERE receiver = ?"
            return int(self._db.execute(sql, (receiver,)).fetchone()[0])

    def waiting(self, receiver: str) -> int:
        """Number of pending events of a receiver."""
        with self._lock:
            sql = "SELECT count(*) FROM event WHERE receiver = ?"
            return int(self._db.execute(sql, (receiver,)).fetchone()[0])

    def silent(self, receiver: str) -> dict[bytes, int]:
        """Devices reported to a receiver as silent, and when they were last seen before that, ms since epoch."""
        with self._lock:
            return dict(self._db.execute("SELECT device, seen_ms FROM silent WHERE receiver = ?", (receiver,)))

    def forget_others(self, receivers: Sequence[str]) -> None:
        """Delete pending events and state of receivers that no longer exist."""
        others = f"receiver NOT IN ({','.join('?' * len(receivers))})"
        with self._change():
            self._db.execute(f"DELETE FROM event WHERE {others}", receivers)
            self._db.execute(f"DELETE FROM silent WHERE {others}", receivers)

    # Notes -------------------------------------------------------------------------------------------

    def note(self, name: str, value: object) -> None:
        """Store a JSON value."""
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, msgspec.json.encode(value)))

    def read(self, name: str, kind: type[T]) -> T | None:
        """The stored value; None without one."""
        with self._lock:
            row = self._db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=kind)
