"""`whimbrel restore`: a backup put back into the data folder of a box that is stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import redis

from cli.backup import catalog, manifest
from cli.backup.backup_command import Bar
from cli.backup.manifest import ARCHIVE, REDIS, Manifest
from cli.backup.restore import HALVES, Target, in_the_way, locked, move_aside, restore
from cli.backup.verify import faults
from cli.command import FAILED, OK, Command
from cli.time_argument import moment
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect, shown_url
from telemetry.model.errors import ConfigError, StoreError
from telemetry.model.utc import DAY_US, iso
from telemetry.system import clock

DESCRIPTION = """\
Put a backup back: the newest in DIR, or the newest that is not younger than --at. The box must be stopped and its data
folder empty; with --force what is there is moved aside and kept. Every checksum is looked at first.

--only archive or --only store puts back one of the two and leaves the other as it is. They don't belong together then:
after the start nothing is saved until `whimbrel recover --yes` has made what is in both the truth.
"""

ONLY = {"archive": (ARCHIVE,), "store": (REDIS,), None: HALVES}

WHOLE = """\
Start the box. It continues from {made}: records accepted later are not in the backup."""

ARCHIVE_ONLY = """\
Only the archive was restored, to its state at {made}; Redis is unchanged. Records saved after that moment are lost,
because Redis deletes saved records; unsaved records in Redis are kept. Start the box and run `whimbrel recover --yes`:
until then, nothing is saved. If Redis is empty, no repair is needed: the box sets up a new store for the archive. Then
the unsaved records, the quarantine and the memory of senders' retries are lost."""

STORE_ONLY = """\
Only Redis was put back, as it was at {made}; the archive is as you left it. Records that came after that moment and had
not been saved are lost. Start the box and run `whimbrel recover --yes`: until then nothing is saved. It drops from
Redis what the archive has already (same id, same content) and gives the rest new ids."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Choose a backup, verify it, restore it, and print the next step."""
    halves = ONLY[args.only]
    target = _target(args, settings, halves)
    folder = catalog.choose(Path(args.dir).absolute(), None if args.at is None else args.at // 1_000)
    said = manifest.read(folder)
    print(f"restoring {folder}, made at {_when(said)} by Whimbrel {said.whimbrel}")
    try:
        with locked(target):
            old = in_the_way(target, halves)
            if old and not args.force:
                raise _would_be_lost(old)
            if not _verified(folder, said):
                return FAILED
            for path in old:
                print(f"what was there is now {move_aside(path, manifest.folder_name(clock.now_ms()))}")
            bar = Bar(is_silent=False)
            bar.part("restore", said.size_bytes)
            restore(folder, said, target, halves, bar.add)
            bar.close()
    except OSError as error:
        raise StoreError(f"cannot restore {folder}: {error}") from error
    _say_next(args, said, target)
    return OK


def _target(args: argparse.Namespace, settings: Settings, halves: Sequence[str]) -> Target:
    own = not settings.redis.url
    if own and args.redis_dir:
        raise ConfigError("--redis-dir is for a Redis that others run: redis.url is not set")
    if not own and REDIS in halves:
        if not args.redis_dir:
            raise ConfigError(
                f"cannot restore Redis: {shown_url(settings)} is run by others; name the folder of its data (its "
                "setting `dir`) with --redis-dir, or put back the archive alone with --only archive"
            )
        _require_stopped(settings)
    folder = Path(args.redis_dir).absolute() if args.redis_dir else settings.redis_dir
    return Target(settings.data_dir, settings.archive_dir, folder, own)


def _require_stopped(settings: Settings) -> None:
    with connect(settings) as client:
        try:
            client.ping()
        except redis.ConnectionError:
            return
        except redis.RedisError as error:
            raise ConfigError(f"cannot restore: {shown_url(settings)} answers {error}; stop it first") from error
    raise ConfigError(f"cannot restore: the Redis at {shown_url(settings)} is running; stop it first")


def _would_be_lost(old: Sequence[Path]) -> ConfigError:
    names = " and ".join(map(str, old))
    return ConfigError(f"cannot restore: {names} would be overwritten; move it, or use --force, which moves it aside")


def _verified(folder: Path, said: Manifest) -> bool:
    bar = Bar(is_silent=False)
    bar.part("verify", said.size_bytes)
    wrong = faults(folder, said, bar.add)
    bar.close()
    if not wrong:
        return True
    print("this backup is damaged, and nothing was restored; an earlier one may be whole (--at):")
    for one in wrong:
        print(f"  {one}")
    return False


def _when(said: Manifest) -> str:
    return f"{iso(said.made_ms * 1_000)[:19].replace('T', ' ')} UTC"


def _say_next(args: argparse.Namespace, said: Manifest, target: Target) -> None:
    saved = said.archive.records if said.archive else 0
    if args.only != "store":
        print(f"the archive has {saved:,} records")
    if args.only != "archive":
        print(f"Redis has some {said.unsaved_records:,} that wait to be saved; it needs {said.store.kind}, as before")
    text = {"archive": ARCHIVE_ONLY, "store": STORE_ONLY, None: WHOLE}[args.only]
    print(text.format(made=_when(said)))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dir", metavar="DIR", help="folder of backups, or one of them")
    parser.add_argument(
        "--at", type=moment(DAY_US), metavar="TIME", help="the newest until then: ISO 8601, or a date: its end"
    )
    parser.add_argument("--only", choices=("archive", "store"), help="one of the two; store is Redis")
    parser.add_argument("--force", action="store_true", help="move aside what is in the data folder")
    parser.add_argument("--redis-dir", metavar="DIR", help="where a Redis that others run has its data")


COMMAND = Command(
    "Put a backup back into the data folder of a stopped box.",
    _add_arguments,
    run,
    writes="data",
    action=lambda _: "restore",
)
