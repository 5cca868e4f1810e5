"""`whimbrel files`: the archive's files that hold a range, for any tool that reads Parquet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec
from msgspec import Struct

from api.snapshot.snapshot import Wanted
from cli.command import OK, Command
from cli.stdout import output
from cli.time_argument import moment
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import LAYOUT, layout_of, nothing_sql, sql_text
from telemetry.archive.table import READ_ERRORS, Archive, in_one_line
from telemetry.config.settings import Settings
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import read_entry
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.shard import Shard
from telemetry.hot_store.stream_reader import READ_STREAMS, sizes_bytes, tails
from telemetry.model.errors import ConfigError, StoreError
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import DAY_US

DESCRIPTION = """\
Print the archive's files that may hold records of a range and of the devices named, one absolute path a line.

Never glob the folder instead: files that a compaction has replaced, or that a killed worker left behind, lie
beside these, and a glob counts both. A file holds other records, too: filter by timestamp and device_id.

  duckdb -c "SELECT count(*) FROM $(whimbrel files --start 2026-11-24 --sql)"
  python -c 'import sys, pandas; print(pandas.read_parquet(sys.argv[1:]))' $(whimbrel files)
  whimbrel files -0 | xargs -0 cp -t /backup

If Redis answers and records of the range wait there to be saved, a line on standard error says so.
"""

MOST_COUNTED = 100_000
"""Waiting records that are counted; of more it is said that they are more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--start", type=moment(0), default=EARLIEST_US, metavar="TIME", help="inclusive")
    add("--end", type=moment(DAY_US), default=LATEST_US, metavar="TIME", help="exclusive; a date is included")
    add("--device", "--device-id", action="append", default=[], metavar="ID", help="may be given again (else all)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object, with each file's day, records and bytes")
    form.add_argument("--sql", action="store_true", help="what goes behind FROM in DuckDB")
    form.add_argument("-0", "--null", action="store_true", help="end each path with a zero byte, for xargs -0")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the files. Redis is looked at first: what is saved meanwhile is in a file then."""
    wanted = Wanted(tuple(args.device), args.start, args.end)
    waiting = count_waiting(settings, wanted)
    files = find(Archive(settings.archive_dir), wanted)
    with output():
        sys.stdout.write(_text(args, files, waiting))
    if waiting:
        many = f"more than {MOST_COUNTED}" if waiting > MOST_COUNTED else waiting
        print(
            f"whimbrel files: {many} records of this range wait to be saved and are in no file yet "
            "(`whimbrel drain` saves them now)",
            file=sys.stderr,
        )
    return OK


class _File(Struct):
    path: str
    day: str
    records: int | None
    bytes: int


class _Answer(Struct):
    files: list[_File]
    unsaved_records: int | None


def _text(args: argparse.Namespace, files: Sequence[LiveFile], waiting: int | None) -> str:
    if args.json:
        listed = [_File(file.path, str(file.day), file.rows, file.size_bytes) for file in files]
        return msgspec.json.encode(_Answer(listed, waiting)).decode() + "\n"
    if args.sql:
        return sql(files) + "\n"
    end = "\0" if args.null else "\n"
    return "".join(file.path + end for file in files)


def find(archive: Archive, wanted: Wanted) -> list[LiveFile]:
    """The files, by day. Raises `StoreError` if the archive can't be read."""
    try:
        table = archive.open_existing()
        live = archive.live(table) if table else []
    except READ_ERRORS as error:
        raise StoreError(f"cannot read the archive {archive.root}: {in_one_line(error)}") from error
    found = [file for file in live if file.may_hold(wanted.start_us, wanted.end_us, wanted.devices)]
    return sorted(found, key=lambda file: (file.day, file.path))


def sql(files: Sequence[LiveFile]) -> str:
    """A DuckDB table of the files; of none an empty one with the same columns."""
    if not files:
        return f"(SELECT *, NULL::DATE AS date FROM {nothing_sql()})"
    listed = ", ".join(sql_text(file.path) for file in files)
    has_older = any(layout_of(file.path) < LAYOUT for file in files)
    return f"read_parquet([{listed}]{', union_by_name = true' if has_older else ''})"


def count_waiting(settings: Settings, wanted: Wanted) -> int | None:
    """How many records of the range wait to be saved, at most one more than are counted; None if Redis doesn't say."""
    try:
        with connect(settings) as client:
            shards = hot.attach(client, settings.redis.shards)
            found = (one for shard in shards for one in _waiting(shard, wanted))
            return sum(1 for _ in islice(found, MOST_COUNTED + 1))
    except (StoreError, ConfigError):
        return None


def _waiting(shard: Shard, wanted: Wanted) -> Iterator[object]:
    mine = [device for device in wanted.devices if shard_of(device, shard.shards) == shard.shard]
    devices = mine if wanted.devices else shard.all_dirty()
    unsaved_bytes = shard.waiting().size_bytes
    for at in range(0, len(devices), READ_STREAMS):
        part = devices[at : at + READ_STREAMS]
        for device, entries in tails(shard, part, sizes_bytes(shard, part, unsaved_bytes)).items():
            stored = (one for raw in entries for one in read_entry(device, raw, shard.shards))
            yield from filter(wanted.matches, stored)


COMMAND = Command("Print the archive's files that hold a range.", add_arguments, run)
