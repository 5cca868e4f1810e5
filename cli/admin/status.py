"""`whimbrel status`: the facts of the page /status, on a terminal, with or without the API."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import redis

from api.status.box_facts import Facts, Files, Store
from api.status.readiness import Health
from api.status.redis_facts import Backup, Courier, Disk, Entries, Programs, Refusals, Server
from api.status.status_page import Status, ago, utc
from cli import arguments
from cli.command import FAILED, OK, Command
from cli.stdout import output, print_json
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store import shard
from telemetry.hot_store.client import connect
from telemetry.model.terminal_text import printable
from telemetry.system.disk_space import Room, in_words

T = TypeVar("T")

WATCH_S = 2.0
MOST_SHARDS, MOST_DAYS = 16, 7
"""Lines of each table: all of it fits on a screen. --json has all shards and 14 days."""

HOME, END_OF_LINE, END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

DESCRIPTION = """\
Print whether the box is ready (else the reason), unsaved and saved records, and the state of Redis, the disk, the
worker and the scheduler. The command reads Redis and the archive itself, so it works without the API.

The exit status is 0 if the box is ready, 1 if it isn't.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--watch",
        nargs="?",
        type=arguments.quantity,
        const=WATCH_S,
        metavar="SECONDS",
        help=f"again and again until Ctrl-C (default: every {WATCH_S:g} s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, each time on a line of its own")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print it; 0 if the box is ready."""
    status = FAILED
    with connect(settings) as client, output():
        looker = status_of(settings, client)
        try:
            while True:
                found = asyncio.run(looker.look())
                status = FAILED if found.reasons else OK
                _print(found, args)
                if args.watch is None:
                    return status
                time.sleep(args.watch)
        except KeyboardInterrupt:
            pass
    return status


def status_of(settings: Settings, client: redis.Redis) -> Status:
    """The collector of the facts."""
    attach = partial(shard.attach, client, settings.redis.shards)
    archive, room = Archive(settings.archive_dir), Room.of(settings)
    health = Health(client, attach, archive, settings.redis.durability, settings.redis.full_percent, room)
    return Status(health, client, attach, archive, settings.redis.full_percent, room, Entries.of(settings))


def _print(found: Facts, args: argparse.Namespace) -> None:
    if args.json:
        print_json(msgspec.json.encode(found.flat()))
        sys.stdout.flush()
        return
    lines = [printable(line) for line in block(found)]
    if args.watch is None:
        print("\n".join(lines))
    elif sys.stdout.isatty():
        print(HOME + "".join(f"{line}{END_OF_LINE}\n" for line in lines) + END_OF_SCREEN, end="", flush=True)
    else:
        print("\n".join(lines), end="\n\n", flush=True)


# Words -----------------------------------------------------------------------------------------------


def block(found: Facts) -> Iterator[str]:
    """All of it as lines."""
    yield f"Whimbrel {found.version}, {utc(found.made_at)} UTC: {found.status}"
    yield from (f"  {reason}" for reason in found.reasons)
    yield ""
    yield _known("Saved", found, found.files, _files)
    yield _known("Waiting", found, found.store, _store)
    yield _known("Refused", found, found.refusals, _refusals)
    yield _known("Programs", found, found.programs, _programs)
    yield _known("Redis", found, found.server, _server)
    yield _known("Disk", found, found.disk, _disk)
    yield _known("Backup", found, found.backup, _backup)
    if isinstance(found.courier, Courier):
        yield from _courier(found.courier)
    if isinstance(found.store, Store):
        yield from _shards(found.store)
    if isinstance(found.files, Files) and found.files.newest_days:
        yield from _days(found.files)


def _known(name: str, found: Facts, part: T | str, words: Callable[[T], str]) -> str:
    """A part as text; the reason why it is unknown is printed once."""
    if isinstance(part, str):
        return f"{name:<10}not known" + (f": {part}" if part not in found.reasons else "")
    return f"{name:<10}{words(part)}"


def _files(files: Files) -> str:
    if files.archive_version is None:
        return "nothing yet"
    size = (
        f"{files.saved_records:,} records in {files.files:,} files of {files.days:,} days, {in_words(files.file_bytes)}"
    )
    commit = "" if files.last_commit_age_s is None else f"; last commit {ago(files.last_commit_age_s)}"
    return size + commit


def _store(store: Store) -> str:
    age_s = store.oldest_unsaved_age_s
    oldest = "" if age_s is None else f", the oldest came {ago(age_s)}"
    return (
        f"{store.unsaved_records:,} records{oldest}; {store.devices:,} devices, {store.devices_seen_5_min:,} in 5 min"
    )


def _refusals(refusals: Refusals) -> str:
    most_first = sorted(refusals.refused.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {reason}" for reason, count in most_first) or "nothing"


def _programs(programs: Programs) -> str:
    seen = {"worker": programs.worker_seen_age_s, "scheduler": programs.scheduler_seen_age_s}
    return ", ".join(f"{name} seen {'never' if age_s is None else ago(age_s)}" for name, age_s in seen.items())


def _server(server: Server) -> str:
    limit = server.redis_memory_limit_bytes
    used = f"{in_words(server.redis_memory_bytes)} used"
    of = f" of {in_words(limit)} ({100 * server.redis_memory_bytes / limit:.0f} %)" if limit else ", no limit"
    aof = f"AOF {in_words(server.redis_aof_bytes or 0)}" if server.redis_aof else "no AOF"
    return f"{server.redis_kind} {server.redis_version}, {used}{of}, {aof}, last write {server.redis_aof_last_write}"


def _disk(disk: Disk) -> str:
    return f"{in_words(disk.disk_free_bytes)} free of {in_words(disk.disk_bytes)}"


def _backup(backup: Backup) -> str:
    if backup.last_backup_age_s is None:
        return "none yet"
    sizes = f"{in_words(backup.last_backup_bytes or 0)}, {in_words(backup.last_backup_new_bytes or 0)} of them new"
    return f"{ago(backup.last_backup_age_s)}, {sizes}, in {backup.last_backup_took_s:.0f} s, {backup.last_backup_path}"


def _courier(courier: Courier) -> Iterator[str]:
    """A line each forward and each receiver of events; none where there are none."""
    for one in courier.forwards:
        waits = (
            f"{one.behind_records:,} records wait, lag {one.behind_s:,.0f} s" if one.behind_versions else "up to date"
        )
        counts = [f"{one.sent_records:,} sent"]
        counts += [f"{one.refused_records:,} refused"] if one.refused_records else []
        counts += [f"{one.dropped_records:,} given up"] if one.dropped_records or one.dropped_versions else []
        said = f"{one.name} to {one.url}: {waits}, {', '.join(counts)}" if one.url else one.name
        yield _trouble(f"{'Forward':<10}{said}", one.trouble)
    for told in courier.alerts:
        words = (
            f"{told.pending_events:,} events wait, {told.sent_events:,} sent, {told.silent_devices:,} devices silent"
        )
        yield _trouble(f"{'Alert':<10}{f'{told.name} to {told.url}: {words}' if told.url else told.name}", told.trouble)


def _trouble(line: str, trouble: str) -> str:
    return f"{line}; {trouble}" if trouble else line


def _shards(store: Store) -> Iterator[str]:
    yield ""
    yield f"{'shard':<10}{'devices':>12}{'unsaved':>12}{'saves':>12}  the oldest came"
    for one in store.shards[:MOST_SHARDS]:
        oldest = "" if one.oldest_unsaved_age_s is None else ago(one.oldest_unsaved_age_s)
        yield f"{one.shard:<10}{one.devices:>12,}{one.unsaved_records:>12,}{one.saves:>12,}  {oldest}".rstrip()
    yield from _more(store.shards, MOST_SHARDS)


def _days(files: Files) -> Iterator[str]:
    yield ""
    yield f"{'day':<10}{'files':>12}{'records':>12}{'size':>12}"
    for day in files.newest_days[:MOST_DAYS]:
        yield f"{day.day!s:<10}{day.files:>12,}{day.records:>12,}{in_words(day.file_bytes):>12}"
    yield from _more(range(files.days), MOST_DAYS)


def _more(found: Sequence[object], shown: int) -> Iterator[str]:
    if len(found) > shown:
        yield f"and {len(found) - shown:,} more"


COMMAND = Command("Print the status of the box: readiness, unsaved and saved records.", add_arguments, run)
