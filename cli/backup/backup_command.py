"""`whimbrel backup`: Redis and the archive copied while the box runs, and copies looked at."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from tqdm import tqdm

from cli import arguments
from cli.backup import catalog, manifest
from cli.backup.create import Box, Made, take
from cli.backup.verify import Inode, faults
from cli.command import FAILED, OK, Command
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store import shard
from telemetry.hot_store.client import connect
from telemetry.model.errors import ConfigError, StoreError
from telemetry.system import clock
from telemetry.system.disk_space import Room, in_words

DESCRIPTION = """\
Copy Redis and the archive at one consistent point into a new folder in DIR, while the box runs. Files that the previous
backup contains become hard links to it; new files become hard links to the archive if DIR is on the same disk, else
copies. To survive a disk failure, DIR must be on another disk.

The exit status is 0 if the backup is complete, and with --verify if all backups are; else 1.
"""


class Bar:
    """Shows on a terminal how far it is."""

    def __init__(self, is_silent: bool) -> None:
        self._disable = True if is_silent else None
        self._bar = tqdm(disable=True)

    def part(self, name: str, total_bytes: int | None) -> None:
        """Something else begins."""
        self._bar.close()
        self._bar = tqdm(desc=name, total=total_bytes, unit="B", unit_scale=True, disable=self._disable)

    def add(self, size_bytes: int) -> None:
        """Advance the progress."""
        self._bar.update(size_bytes)

    def close(self) -> None:
        self._bar.close()


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make a backup, or look at those that are there."""
    into = Path(args.dir).absolute()
    return _verify(args, into) if args.verify else _take(args, into, settings)


def _take(args: argparse.Namespace, into: Path, settings: Settings) -> int:
    if into.is_relative_to(settings.archive_dir) or into.is_relative_to(settings.redis_dir):
        raise ConfigError(f"cannot back up into {into}: it is part of the data to back up")
    bar = Bar(args.json)
    try:
        with catalog.locked(into), connect(settings) as client:
            box = Box(
                client,
                shard.attach(client, settings.redis.shards),
                Archive(settings.archive_dir),
                Room.of(settings),
                clock.now_ms,
                time.monotonic,
            )
            made = take(box, into, bar)
            shared_state.note_backup(client, _note(made))
            gone = catalog.remove_old(into, args.keep) if args.keep else []
    except OSError as error:
        raise StoreError(f"cannot back up into {into}: {error}") from error
    finally:
        bar.close()
    _say(args, made, gone)
    return OK


def _note(made: Made) -> shared_state.BackedUp:
    m = made.manifest
    return shared_state.BackedUp(str(made.folder), m.made_ms, m.took_s, m.size_bytes, m.new_bytes)


def _say(args: argparse.Namespace, made: Made, gone: list[Path]) -> None:
    m = made.manifest
    saved = m.archive.records if m.archive else 0
    if args.json:
        found = {
            "path": str(made.folder),
            "made_ms": m.made_ms,
            "took_s": m.took_s,
            "size_bytes": m.size_bytes,
            "new_bytes": m.new_bytes,
            "saved_records": saved,
            "unsaved_records": m.unsaved_records,
            "removed": [str(path) for path in gone],
        }
        print(json.dumps(found))
        return
    print(
        f"{made.folder}: {saved:,} saved records and some {m.unsaved_records:,} that wait, {in_words(m.size_bytes)}, "
        f"{in_words(m.new_bytes)} of it new; {m.took_s:.1f} s"
    )
    for path in gone:
        print(f"removed {path}")


def _verify(args: argparse.Namespace, into: Path) -> int:
    """Look at every backup; those that share a file have it read once."""
    found = [into] if (into / manifest.NAME).is_file() else catalog.backups(into)
    if not found:
        raise StoreError(f"cannot verify {into}: there is no whole backup in it")
    done: dict[Inode, manifest.FileOf] = {}
    bar, wrong = Bar(args.json), {}
    for path in found:
        said = manifest.read(path)
        bar.part(path.name, said.size_bytes)
        wrong[str(path)] = faults(path, said, bar.add, done)
    bar.close()
    if args.json:
        print(json.dumps({"backups": wrong}))
    else:
        for name, why in wrong.items():
            print(f"{name}: {'whole' if not why else ''}" + "".join(f"\n  {one}" for one in why))
    return FAILED if any(wrong.values()) else OK


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dir", metavar="DIR", help="folder of all backups; made if it isn't there")
    parser.add_argument("--keep", type=arguments.count, metavar="N", help="then remove all but the newest N")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="make none: read those that are there, and hold them against their checksums",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _action(args: argparse.Namespace) -> str:
    return "" if args.verify else "backup"


COMMAND = Command("Copy Redis and the archive while the box runs.", _add_arguments, run, writes="data", action=_action)
