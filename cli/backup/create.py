"""Making a backup: a moment of Redis and the archive, then every file of it."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import redis
from deltalake import DeltaTable

from cli.backup import manifest
from cli.backup.catalog import PART, backups, clear
from cli.backup.consistent_point import TRIES, Seen, belongs, common, fitting, seen
from cli.backup.file_copy import link, make_folders, place, size_of, sync_folders
from cli.backup.manifest import ARCHIVE, DUMP, ArchiveOf, FileOf, Manifest, ShardOf, StoreOf
from cli.backup.redis_snapshot import copy_of
from telemetry.archive.table import BACKUP, Archive
from telemetry.hot_store.client import kind
from telemetry.hot_store.function_library import LAYOUT
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import NotTogether, StoreError
from telemetry.startup.store_setup import apart
from telemetry.system.disk_space import Room, existing, in_words
from telemetry.system.fsync import fsync

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Hears what is done now and of how many bytes it is, if that is known; and how many are done."""

    def part(self, name: str, total_bytes: int | None) -> None: ...

    def add(self, size_bytes: int) -> None: ...


class Box(NamedTuple):
    """The sources of a backup. `now_ms` and `monotonic` are clocks, in ms since the epoch and in s."""

    client: redis.Redis
    shards: Sequence[Shard]
    archive: Archive
    room: Room
    now_ms: Callable[[], int]
    monotonic: Callable[[], float]


class Made(NamedTuple):
    """A backup that is whole now."""

    folder: Path
    manifest: Manifest


class _Moment(NamedTuple):
    """A consistent point: the copy of Redis in a file, the states before and after it, and the table."""

    made_ms: int
    seen: Seen
    commits: list[set[str]]
    dump: FileOf
    table: DeltaTable | None
    data: list[str]
    log: list[str]


def take(box: Box, into: Path, progress: Progress) -> Made:
    """Make a backup in a folder of its own in `into`, whose lock the caller holds.

    What an earlier one left unfinished goes away first. Raises `StoreUnavailable` if Redis can't be copied,
    `NotTogether` if Redis and archive don't belong together, `StoreError` if there is too little room or time, and
    `OSError`; then nothing is left.
    """
    began_s = box.monotonic()
    clear(into)
    older = backups(into)
    part = into / f"{manifest.folder_name(box.now_ms())}{PART}"
    part.mkdir(mode=0o700)
    try:
        with _alone(box.archive.root):
            written = _write(box, part, older[-1] if older else None, progress)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    done = msgspec.structs.replace(written, took_s=round(box.monotonic() - began_s, 3))
    manifest.write(part, done)
    fsync(part)
    folder = into / manifest.folder_name(done.made_ms)
    part.rename(folder)
    fsync(into)
    return Made(folder, done)


def _write(box: Box, part: Path, before: Path | None, progress: Progress) -> Manifest:
    """All files of a backup except its manifest, and the manifest's content except the duration."""
    (part / DUMP).parent.mkdir()
    with contextlib.ExitStack() as held:
        moment, source = _held_moment(box, part, held, progress)
        known = _known(before, source, moment.log)
        wanted = [f"{ARCHIVE}/{path}" for path in (*moment.data, *moment.log)]
        sizes = {path: size_of(source / _inside(path)) for path in wanted if path not in known}
        _require_room(box.room, part, source, sum(sizes.values()))
        folders = make_folders(part, wanted)
        progress.part("archive", sum(sizes.values()))
        files = {DUMP: moment.dump}
        for path in wanted:
            files[path] = _placed(part, path, source, known, progress)
    sync_folders([*folders, (part / DUMP).parent])
    return Manifest(
        layout=manifest.LAYOUT,
        whimbrel=version("whimbrel"),
        made_ms=moment.made_ms,
        took_s=0.0,
        size_bytes=sum(file.size_bytes for file in files.values()),
        new_bytes=moment.dump.size_bytes + sum(sizes.values()),
        store=_store(box, moment),
        archive=_archive(box, moment),
        files=files,
    )


class _Kept(NamedTuple):
    path: Path
    file: FileOf


def _known(before: Path | None, source: Path, log: Sequence[str]) -> Mapping[str, _Kept]:
    """Files that the previous backup contains. Data files with the same name are equal, since names are unique.

    This does not hold for log files: an archive that was restored or created again reuses version numbers.
    """
    if before is None:
        return {}
    entries = {f"{ARCHIVE}/{path}" for path in log}
    return {
        path: _Kept(before / path, file)
        for path, file in manifest.read(before).files.items()
        if size_of(before / path) == file.size_bytes
        and (path not in entries or filecmp.cmp(before / path, source / _inside(path), shallow=False))
    }


def _inside(path: str) -> str:
    """A path of the backup as one from the table's root."""
    return path.removeprefix(f"{ARCHIVE}/")


def _placed(part: Path, path: str, source: Path, known: Mapping[str, _Kept], progress: Progress) -> FileOf:
    kept = known.get(path)
    if kept is not None and link(kept.path, part / path):
        return kept.file
    origin = kept.path if kept is not None else source / _inside(path)
    return place(origin, part / path, progress.add)


def _held_moment(box: Box, part: Path, held: contextlib.ExitStack, progress: Progress) -> tuple[_Moment, Path]:
    """A moment, and a folder with all its files, which stay there whatever is merged, swept and cleaned away."""
    for number in range(1, TRIES + 1):
        moment = _moment(box, part, progress)
        if moment is None:
            log.info("the archive had moved on as Redis was copied: trying again, %d of %d", number, TRIES)
            continue
        try:
            return moment, held.enter_context(_linked(box.archive.root, [*moment.data, *moment.log]))
        except FileNotFoundError as error:  # a sweep or a checkpoint came between, after a long pause
            log.info("a file went away as it was to be copied: trying again, %d of %d: %s", number, TRIES, error)
    raise StoreError(
        f"cannot back up: in {TRIES} tries saves went on faster than Redis could be copied; try again when less comes "
        "in, and see that Redis has repl-diskless-sync yes and repl-diskless-sync-delay 0"
    )


def _moment(box: Box, part: Path, progress: Progress) -> _Moment | None:
    """Redis copied into its file, and the table that belongs to it; None if none does."""
    first = box.archive.open_existing()
    with copy_of(box.client, lambda: seen(box.shards)) as copy:
        made_ms = box.now_ms()
        commits = common(copy.before, copy.after)
        table = fitting(box.archive, first.version() if first is not None else 0, commits)
        if table is None and not belongs(box.archive, None, commits):
            _require_together(box)
            return None
        try:
            data, entries = box.archive.paths(table) if table is not None else ([], [])
        except FileNotFoundError:
            return None
        progress.part("redis", None)
        with (part / DUMP).open("wb") as file:
            dump = FileOf(*copy.write(file, progress.add))
            file.flush()
            os.fsync(file.fileno())
        return _Moment(made_ms, copy.after, commits, dump, table, data, entries)


def _require_together(box: Box) -> None:
    for shard in box.shards:
        if why := apart(shard, box.archive):
            raise NotTogether(f"cannot back up: {why}; run `whimbrel recover` for the possible repairs")


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other backups of this archive out, and remove what a broken-off one held."""
    if not root.is_dir():  # nothing was saved yet
        yield
        return
    folder = root / BACKUP
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError("cannot back up: another backup of this box is under way") from None
    else:
        for left in folder.iterdir():
            shutil.rmtree(left)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _linked(root: Path, paths: Sequence[str]) -> Iterator[Path]:
    """A folder that has these files of the archive by hard links; where there can be none, the archive itself.

    Copying to another disk may take longer than files that were merged stay.
    """
    if not paths:
        yield root
        return
    folder = root / BACKUP / secrets.token_hex(8)
    folder.mkdir()
    try:
        make_folders(folder, paths)
        can_link = all(link(root / path, folder / path) for path in paths)
        yield folder if can_link else root
    finally:
        shutil.rmtree(folder)


def _require_room(room: Room, into: Path, source: Path, new_bytes: int) -> None:
    """Raise `StoreError` if the copies do not fit in addition to the free space that the box requires."""
    device = into.stat().st_dev
    if source.exists() and source.stat().st_dev == device:
        return  # they will be links
    is_shared = any(existing(folder).stat().st_dev == device for folder in room.folders)
    free = shutil.disk_usage(into).free - (room.min_free_bytes if is_shared else 0)
    if free < new_bytes:
        raise StoreError(
            f"cannot back up: {in_words(new_bytes)} are to be copied to {into.parent}, and there is room for "
            f"{in_words(max(0, free))}"
        )


def _store(box: Box, moment: _Moment) -> StoreOf:
    server, server_version = kind(translated(lambda: box.client.info("server")))
    shards = [
        ShardOf(number, state.store_id, sorted(commits), state.unsaved)
        for number, (state, commits) in enumerate(zip(moment.seen.states, moment.commits, strict=True))
    ]
    return StoreOf(server.lower(), server_version, LAYOUT, shards)


def _archive(box: Box, moment: _Moment) -> ArchiveOf | None:
    if moment.table is None:
        return None
    records = sum(file.rows or 0 for file in box.archive.live(moment.table))
    return ArchiveOf(moment.table.version(), 1, len(moment.data), records)
