"""What the courier keeps: how far each forward is, which events wait. A SQLite file, whose tables are known here alone.

    forward  name → JSON of `Progress`
    done     the newest versions that a forward is done with, and their entries' digests
    due      files that a mirror is to delete from S3, and when
    event    what waits for a receiver of events, in order
    silent   devices that a receiver was told are silent, and when they were last seen before that
    note     other things, by name

Every change is on disk when its function returns, all of it or nothing, whatever kills the program or the power.
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
"""Versions remembered of each forward: at two saves a minute a day and a half, longer than the log keeps entries."""

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
    """How far a forward is.

    `version` and `digest` are those of the last entry that is done; of `begun_version`, which it is at, `done_rows`
    are. `sender` and `number` name the last batch. `backlog` are the files that the version behind `version` counts as
    having added, or those of a copy that is begun (`is_copying`): what the archive held then, the oldest file made at
    `backlog_since_ms`. `is_ours`: what is at the receiver was written by this forward.
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
    """One that waits, by its number; `body` is JSON."""

    number: int
    body: bytes


class Store:
    """The file, for several threads."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder, 0o700)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / FILE, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_TABLES)
        fsync(folder)

    def close(self) -> None:
        """Close it; nothing is lost without that."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction, or a part of that which is under way."""
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
        """How far a forward is; None of one that has not begun."""
        with self._lock:
            found = self._db.execute("SELECT progress FROM forward WHERE name = ?", (name,)).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=Progress)

    def keep(self, name: str, progress: Progress, due: Iterable[tuple[str, int]] = ()) -> None:
        """Keep how far a forward is, and what its mirror is to delete and when, ms since epoch."""
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO forward VALUES (?, ?)", (name, msgspec.json.encode(progress)))
            self._db.executemany("INSERT OR REPLACE INTO due VALUES (?, ?, ?)", [(name, *one) for one in due])
            if progress.version >= 0 and progress.digest:
                self._db.execute(
                    "INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (name, progress.version, progress.digest)
                )
                self._db.execute(
                    "DELETE FROM done WHERE name = ? AND version <= ?", (name, progress.version - DONE_KEPT)
                )

    def rewind(self, name: str, progress: Progress) -> None:
        """As `keep`, and forget the versions above."""
        with self._change():
            self._db.execute("DELETE FROM done WHERE name = ? AND version > ?", (name, progress.version))
            self._db.execute("DELETE FROM due WHERE name = ?", (name,))
            self.keep(name, progress)

    def seed(self, name: str, done: Iterable[tuple[int, str]]) -> None:
        """Count versions as done that came before a forward began, with their entries' digests."""
        with self._change():
            self._db.executemany("INSERT OR IGNORE INTO done VALUES (?, ?, ?)", [(name, *one) for one in done])

    def done(self, name: str) -> list[tuple[int, str]]:
        """The newest versions that a forward is done with, and their digests, the newest first."""
        with self._lock:
            sql = "SELECT version, digest FROM done WHERE name = ? ORDER BY version DESC"
            return self._db.execute(sql, (name,)).fetchall()

    def due(self, name: str, now_ms: int, most: int) -> list[str]:
        """Some paths that are to be deleted by now."""
        with self._lock:
            sql = "SELECT path FROM due WHERE name = ? AND at_ms <= ? ORDER BY at_ms LIMIT ?"
            return [path for (path,) in self._db.execute(sql, (name, now_ms, most))]

    def deleted(self, name: str, paths: Sequence[str]) -> None:
        """Forget paths that were to be deleted."""
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
        """Have events wait for a receiver, and with them which devices it thus knows to be silent, or not any more."""
        with self._change():
            self._db.executemany("INSERT INTO event (receiver, body) VALUES (?, ?)", [(receiver, b) for b in bodies])
            self._db.executemany("INSERT OR REPLACE INTO silent VALUES (?, ?, ?)", [(receiver, *one) for one in silent])
            self._db.executemany("DELETE FROM silent WHERE receiver = ? AND device = ?", [(receiver, d) for d in back])

    def tell_all(self, receivers: Iterable[str], body: bytes, note: str, value: object) -> None:
        """Have an event wait for several receivers, and with it a note."""
        with self._change():
            for receiver in receivers:
                self.add_events(receiver, [body])
            self.note(note, value)

    def events(self, receiver: str, most: int) -> list[Event]:
        """The oldest that wait for a receiver."""
        with self._lock:
            sql = "SELECT number, body FROM event WHERE receiver = ? ORDER BY number LIMIT ?"
            return [Event(*row) for row in self._db.execute(sql, (receiver, most))]

    def told(self, receiver: str, events: Sequence[Event]) -> None:
        """Forget events that the receiver has."""
        with self._change():
            self._db.executemany("DELETE FROM event WHERE number = ?", [(event.number,) for event in events])
            self.note(f"told {receiver}", self.told_count(receiver) + len(events))

    def told_count(self, receiver: str) -> int:
        """How many events a receiver ever took."""
        return self.read(f"told {receiver}", int) or 0

    def silent_count(self, receiver: str) -> int:
        """How many devices a receiver knows to be silent."""
        with self._lock:
            sql = "SELECT count(*) FROM silent WHERE receiver = ?"
            return int(self._db.execute(sql, (receiver,)).fetchone()[0])

    def waiting(self, receiver: str) -> int:
        """How many events wait for a receiver."""
        with self._lock:
            sql = "SELECT count(*) FROM event WHERE receiver = ?"
            return int(self._db.execute(sql, (receiver,)).fetchone()[0])

    def silent(self, receiver: str) -> dict[bytes, int]:
        """The devices that a receiver knows to be silent, and when they were last seen before that, ms since epoch."""
        with self._lock:
            return dict(self._db.execute("SELECT device, seen_ms FROM silent WHERE receiver = ?", (receiver,)))

    def forget_others(self, receivers: Sequence[str]) -> None:
        """Forget what waits for receivers that there are no more, and what they knew."""
        others = f"receiver NOT IN ({','.join('?' * len(receivers))})"
        with self._change():
            self._db.execute(f"DELETE FROM event WHERE {others}", receivers)
            self._db.execute(f"DELETE FROM silent WHERE {others}", receivers)

    # Notes -------------------------------------------------------------------------------------------

    def note(self, name: str, value: object) -> None:
        """Keep a value that JSON knows."""
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, msgspec.json.encode(value)))

    def read(self, name: str, kind: type[T]) -> T | None:
        """What was noted; None if nothing was."""
        with self._lock:
            found = self._db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=kind)
