"""Batches on this disk until the box has them: appended and synced, sent in order, given up once they are answered.

A spool is a folder of one process:

    lock                            held by the process that has the spool open
    00000000000000000007.batches    a segment: batches from this number on
    done                            JSON: the sender's id, and the number up to which all is answered
    refused.ndjson                  records that the box will never take, with its reasons, for people to look at
    *.broken                        what could not be read where it must be readable: the disk has a fault

A segment begins with a line, `whimbrel-spool 1 <sender id>`, then come entries: a head of 20 bytes, big-endian, and
the batch's JSON as zlib has it.

    length of what follows the head u32 · CRC-32 of the rest u32 · batch number u64 · number of records u32

An entry is synced before its batch counts as kept, so a kill or a power cut tears the last one at most, which nobody
was promised; it is cut off when the spool is opened. `done` is synced before a batch is given up. It may be behind,
never ahead: a batch that is sent again has its number still, and the box knows it.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from whimbrel_client.batch import Batch, Refused
from whimbrel_client.errors import SpoolError, SpoolFull, SpoolInUse

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

HEAD = struct.Struct(">IIQI")
TITLE = b"whimbrel-spool 1 "
MOST_TITLE_BYTES = 200
MOST_SEGMENT_BYTES = 4 * 2**20
MAX_BYTES = 256 * 2**20

WhenFull = Literal["raise", "drop_oldest"]


class _Place(NamedTuple):
    """Where a batch is."""

    segment: Path
    offset: int
    length: int
    number: int
    record_count: int


class Spool:
    """A folder of batches. Threads may share it, processes may not.

    `max_bytes` bounds its segments. When a batch would pass it, "raise" refuses the batch with `SpoolFull`, and
    "drop_oldest" gives up the oldest segment, an eighth of the whole or 4 MiB: `dropped_records` counts what was in it.
    Raises `SpoolInUse` if another process has it, `SpoolError` if the folder can't be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        max_bytes: int = MAX_BYTES,
        when_full: WhenFull = "raise",
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.folder = Path(folder)
        self.dropped_records = 0
        self._max_bytes = max_bytes
        self._when_full = when_full
        self._segment_bytes = min(MOST_SEGMENT_BYTES, max_bytes // 8)
        self._mutex = threading.RLock()
        self._places: deque[_Place] = deque()
        self._sizes: dict[Path, int] = {}  # the segments, the oldest first
        self._waiting_records = 0
        try:
            _make_folder(self.folder)
            self._lock: int | None = _locked(self.folder / "lock")
        except OSError as error:
            raise SpoolError(f"cannot use the spool {self.folder}: {error}") from error
        try:
            self._open(new_id)
        except OSError as error:
            self.close()
            raise SpoolError(f"cannot use the spool {self.folder}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _open(self, new_id: Callable[[], str]) -> None:
        sender_id, done = _read_done(self.folder / "done")
        segments = sorted(self.folder.glob("*.batches"))
        for segment in segments:
            found_id, places = self._read(segment, is_last=segment == segments[-1])
            if found_id:
                sender_id = sender_id or found_id
                self._sizes[segment] = segment.stat().st_size
                self._places += places
        self.sender_id = sender_id or new_id()
        self._number = max([done, *(place.number for place in self._places)])
        self._waiting_records = sum(place.record_count for place in self._places)
        self._done = done
        self._forget()

    def _read(self, segment: Path, is_last: bool) -> tuple[str, list[_Place]]:
        """A segment's sender and places. What can't be read is cut off its end; it is deleted if that is all of it."""
        data = segment.read_bytes()
        sender_id, at = _title(data)
        places = []
        if sender_id:
            for place in _entries(segment, data, at):
                places.append(place)
                at = place.offset + place.length
        if at < len(data) or not sender_id:
            if not (is_last and _is_torn(data, at)):
                self._set_broken_aside(segment, data[at:])
            _cut(segment, at if sender_id else 0)
        return sender_id, places

    def _set_broken_aside(self, segment: Path, data: bytes) -> None:
        broken = segment.with_suffix(".broken")
        _write_synced(broken, data)
        _sync_folder(self.folder)
        log.error("%d bytes of %s can't be read, and are kept as %s", len(data), segment, broken.name)

    # Keeping -----------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> Batch:
        """Keep a batch under the next number; it is on disk when this returns.

        Raises `SpoolFull` if there is no room, `SpoolError` if the disk fails; then nothing was kept.
        """
        with self._mutex:
            self._raise_if_closed()
            batch = batch._replace(sender_id=self.sender_id, number=self._number + 1)
            entry = encoded_entry(batch)
            self._make_room(len(entry))
            try:
                segment = self._segment(batch.number, len(entry))
                offset = self._sizes[segment]
                _append_synced(segment, offset, entry)
            except OSError as error:
                raise SpoolError(f"cannot keep a batch in {self.folder}: {error}") from error
            self._sizes[segment] += len(entry)
            self._number = batch.number
            payload = offset + HEAD.size
            self._places.append(_Place(segment, payload, len(entry) - HEAD.size, batch.number, batch.record_count))
            self._waiting_records += batch.record_count
            return batch

    def _segment(self, number: int, size: int) -> Path:
        """The segment for an entry: the last one, or a new one where that is large enough."""
        last = next(reversed(self._sizes), None)
        if last is not None and self._sizes[last] + size <= self._segment_bytes:
            return last
        segment = self.folder / f"{number:020}.batches"
        title = TITLE + self.sender_id.encode() + b"\n"
        _write_synced(segment, title)
        _sync_folder(self.folder)
        self._sizes[segment] = len(title)
        return segment

    def _make_room(self, size: int) -> None:
        size += MOST_TITLE_BYTES
        while sum(self._sizes.values()) + size > self._max_bytes:
            if self._when_full == "raise" or not self._sizes:
                raise SpoolFull(f"cannot keep a batch: {self.folder} may have {self._max_bytes} bytes, and is full")
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        segment = next(iter(self._sizes))
        dropped = [place for place in self._places if place.segment == segment]
        records = sum(place.record_count for place in dropped)
        self.dropped_records += records
        log.warning("the spool %s is full: %d records of %s are given up", self.folder, records, segment.name)
        self._note_done(max([place.number for place in dropped], default=0))
        self._forget()

    # Giving out --------------------------------------------------------------------------------------

    @property
    def waiting_records(self) -> int:
        """How many records are not answered yet."""
        return self._waiting_records

    def head(self) -> Batch | None:
        """The batch to send next; it stays until it is settled. None if nothing waits."""
        with self._mutex:
            self._raise_if_closed()
            if not self._places:
                return None
            place = self._places[0]
            try:
                with place.segment.open("rb") as file:
                    file.seek(place.offset)
                    body = zlib.decompress(file.read(place.length))
            except (OSError, zlib.error) as error:
                raise SpoolError(f"cannot read a batch of {place.segment}: {error}") from error
            return Batch(self.sender_id, place.number, body, place.record_count)

    def settle(self, batch: Batch, refused: Sequence[Refused] = ()) -> None:
        """Give a batch up that the box has answered; keep aside what it refused."""
        with self._mutex:
            self._raise_if_closed()
            try:
                if refused:
                    lines = [json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in refused]
                    file = self.folder / "refused.ndjson"
                    _append_synced(file, file.stat().st_size if file.exists() else 0, "".join(lines).encode())
                self._note_done(batch.number)
                self._forget()
            except OSError as error:
                raise SpoolError(f"cannot give a batch of {self.folder} up: {error}") from error

    def _note_done(self, number: int) -> None:
        """Note how far all is answered. That number outlives its batch, so that none is ever used again."""
        self._done = max(self._done, number)
        file = self.folder / "done"
        new = file.with_suffix(".new")
        _write_synced(new, json.dumps({"sender_id": self.sender_id, "number": self._done}).encode())
        new.replace(file)

    def _forget(self) -> None:
        """Forget batches that are done, and delete segments that have no others."""
        while self._places and self._places[0].number <= self._done:
            self._waiting_records -= self._places.popleft().record_count
        needed = {place.segment for place in self._places}
        gone = [segment for segment in self._sizes if segment not in needed]
        if gone:
            _sync_folder(self.folder)  # first: what says that they are done
        for segment in gone:
            segment.unlink()
            del self._sizes[segment]

    def close(self) -> None:
        """Let another process have it. To close it again does no harm."""
        with self._mutex:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _raise_if_closed(self) -> None:
        if self._lock is None:
            raise SpoolError(f"cannot use the spool {self.folder}: it was closed")

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


# Bytes -----------------------------------------------------------------------------------------------


def encoded_entry(batch: Batch) -> bytes:
    """A batch as it stands in a segment."""
    payload = zlib.compress(batch.body, 6)
    rest = struct.pack(">QI", batch.number, batch.record_count)
    return HEAD.pack(len(payload), zlib.crc32(payload, zlib.crc32(rest)), batch.number, batch.record_count) + payload


def _title(data: bytes) -> tuple[str, int]:
    """The sender that a segment names, and where its entries begin; empty if it names none."""
    line, end, _ = data.partition(b"\n")
    if not (end and line.startswith(TITLE)):
        return "", 0
    return line[len(TITLE) :].decode("ascii", "replace"), len(line) + 1


def _entries(segment: Path, data: bytes, at: int) -> Iterator[_Place]:
    """The entries from a place on, up to the first that is not whole."""
    while at + HEAD.size <= len(data):
        length, crc, number, count = HEAD.unpack_from(data, at)
        payload = data[at + HEAD.size : at + HEAD.size + length]
        if len(payload) < length or zlib.crc32(payload, zlib.crc32(data[at + 8 : at + HEAD.size])) != crc:
            return
        at += HEAD.size
        yield _Place(segment, at, length, number, count)
        at += length


def _is_torn(data: bytes, at: int) -> bool:
    """Whether what begins there may be an entry that was cut short while it was written: nothing can lie behind it."""
    if at == 0:
        return len(data) < MOST_TITLE_BYTES
    if len(data) < at + HEAD.size:
        return True
    length: int = HEAD.unpack_from(data, at)[0]
    return len(data) <= at + HEAD.size + length


# Files -----------------------------------------------------------------------------------------------


def _locked(file: Path) -> int:
    if fcntl is None:
        raise SpoolError("a spool needs a system with flock: Linux, macOS or a BSD")
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise SpoolInUse(f"cannot use the spool {file.parent}: another process has it") from error
    return handle


def _append_synced(file: Path, offset: int, data: bytes) -> None:
    """Write behind `offset`, over what a write that failed may have left there."""
    is_new = not file.exists()
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(handle, offset)
        os.lseek(handle, offset, os.SEEK_SET)
        _write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        _sync_folder(file.parent)


def _write_synced(file: Path, data: bytes) -> None:
    """Write a file; its name is on disk when its folder is synced."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _cut(file: Path, size: int) -> None:
    """Cut a file off, and delete it if nothing is left."""
    if size == 0:
        file.unlink()
    else:
        with file.open("r+b") as cut:
            cut.truncate(size)
            os.fsync(cut.fileno())
    _sync_folder(file.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, each with its name on disk."""
    if not folder.is_dir():
        _make_folder(folder.absolute().parent)
        folder.mkdir(0o700, exist_ok=True)
        _sync_folder(folder.absolute().parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_done(file: Path) -> tuple[str, int]:
    """The sender's id, and the number up to which all is answered; empty and 0 if there is no such note."""
    try:
        found = json.loads(file.read_bytes())
        return str(found["sender_id"]), int(found["number"])
    except FileNotFoundError:
        return "", 0
    except (ValueError, KeyError, TypeError) as error:
        raise SpoolError(f"cannot read {file}: {error}; without it batches could be sent twice") from error
