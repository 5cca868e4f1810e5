"""`whimbrel quarantine`: lists, exports and replays records that could not be saved."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from tqdm import tqdm

from cli.audited_command import note
from cli.command import FAILED, OK, Command
from cli.stdout import output, print_json
from telemetry.config.settings import Settings
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import Entry, packed
from telemetry.hot_store.operations.quarantine import Quarantined, quarantine_counts, read_quarantine, replay
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import WhimbrelError
from telemetry.model.record import DECODE_ERRORS, Record, decode, decode_rows
from telemetry.model.terminal_text import printable
from telemetry.model.utc import iso

DESCRIPTION = """\
A record that cannot be decoded when its shard is saved is moved to a quarantine in Redis, so that the others are saved.

list      List the entries: ID, arrival time, device, reason and size.
export    Export them as NDJSON with the bytes (base64) and, if readable, the fields of the records. Undecodable frames
          of trackers are kept, too, as received.
replay    Retry all entries, or those given by ID. An entry that can be decoded now, for example by a newer release, is
          appended with a new ID and its own times, and leaves the quarantine in the same step: never lost or doubled.

The exit status is 0; for replay it is 1 if an entry still cannot be decoded or does not exist.
"""

LINE = "{:<27}  {:<20}  {:<20}  {:>9}  {}"


class Kept(NamedTuple):
    """The entries in quarantine and their shards."""

    shard: Shard
    one: Quarantined

    @property
    def id(self) -> str:
        """How the user names it."""
        return f"{self.shard.shard}:{self.one.name}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|export|replay")
    listing = actions.add_parser("list", help="what is in quarantine")
    listing.add_argument("--json", action="store_true", help="answer with one JSON object")
    actions.add_parser("export", help="all of it as NDJSON")
    replay = actions.add_parser("replay", help="try again")
    replay.add_argument("id", nargs="*", metavar="ID", help="these, as `list` names them")
    replay.add_argument("--all", action="store_true", help="all of them")
    replay.add_argument("--dry-run", action="store_true", help="change nothing, only report which entries are readable")
    replay.add_argument("--json", action="store_true", help="answer with one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked."""
    with connect(settings) as client:
        shards = hot.attach(client, settings.redis.shards)
        if args.action == "replay":
            return run_replay(args, shards)
        with output():
            return run_list(args, shards) if args.action == "list" else run_export(shards)


def kept(shards: list[Shard]) -> Iterator[Kept]:
    """All that is in quarantine."""
    return (Kept(shard, one) for shard in shards for one in read_quarantine(shard))


# Looking ---------------------------------------------------------------------------------------------


class Line(msgspec.Struct):
    """The object that `list --json` prints for each entry."""

    id: str
    shard: int
    quarantined_at: str
    device_id: str
    reason: str
    bytes: int


def run_list(args: argparse.Namespace, shards: list[Shard]) -> int:
    """Print what is there, and the counts of each shard."""
    lines = [_line(found) for found in kept(shards)]
    counts = [{"shard": shard.shard, **quarantine_counts(shard)._asdict()} for shard in shards]
    if args.json:
        print_json(msgspec.json.encode({"quarantined": lines, "shards": counts}))
        return OK
    if lines:
        print(LINE.format("when", "id", "device", "bytes", "reason"))
    for one in lines:
        print(LINE.format(one.quarantined_at, one.id, printable(one.device_id), one.bytes, printable(one.reason)))
    for count in counts:
        print("shard {shard}: {kept} came into quarantine, {dropped} dropped, {replayed} replayed".format(**count))
    print(f"{len(lines)} in quarantine, {sum(one.bytes for one in lines)} bytes")
    return OK


def _line(found: Kept) -> Line:
    one = found.one
    return Line(found.id, found.shard.shard, iso(one.at_ms * 1_000), one.device_id, one.reason, len(one.raw))


def run_export(shards: list[Shard]) -> int:
    """Print each as a JSON object."""
    for found in kept(shards):
        one = found.one
        fields = {
            **msgspec.to_builtins(_line(found)),
            "received_at": iso(one.arrival_ms * 1_000),
            "record_id": one.first_id,
            "raw": base64.b64encode(one.raw).decode(),
            "values": values_of(one.raw),
            "records": [msgspec.structs.asdict(record) for record in records_of(one)],
        }
        print_json(msgspec.json.encode(fields))
    return OK


def records_of(one: Quarantined) -> list[Record]:
    """The records of a record's bytes, or of an entry's; none if they can't be read, or never were records."""
    if one.was_never_a_record:
        return []
    try:
        return [decode(one.raw)]
    except DECODE_ERRORS:
        pass
    try:
        return [Record(*row[1:]) for row in decode_rows(one.raw)]
    except DECODE_ERRORS:
        return []


def values_of(raw: bytes) -> object:
    """The decoded bytes; None if they are not msgpack, or contain a value that JSON cannot represent."""
    try:
        values = msgspec.msgpack.decode(raw)
        msgspec.json.encode(values)
    except (msgspec.DecodeError, msgspec.EncodeError, TypeError, ValueError, RecursionError):
        return None
    return values


# Trying again ----------------------------------------------------------------------------------------


def run_replay(args: argparse.Namespace, shards: list[Shard]) -> int:
    """Append what can be read now; 0 if nothing that was asked for is left."""
    if bool(args.id) == args.all:
        raise WhimbrelError("cannot replay: no entry is named; give IDs from `whimbrel quarantine list`, or --all")
    wanted = set(args.id)
    chosen = [found for found in kept(shards) if args.all or found.id in wanted]
    became: dict[str, list[str]] = {
        "replayed": [],
        "unreadable": [],
        "gone": sorted(wanted - {one.id for one in chosen}),
    }
    with tqdm(chosen, unit=" entries", disable=True if args.json else None, leave=False) as bar:
        for found in bar:
            became[_replay(found, args.dry_run)].append(found.id)
    note(**{name: len(found) for name, found in became.items()})
    for name in became["gone"]:
        print(f"whimbrel quarantine: {printable(name)} is not in quarantine", file=sys.stderr)
    if args.json:
        print(json.dumps(became))
    else:
        replayed, left = len(became["replayed"]), len(became["unreadable"])
        print(f"{replayed} {'could be' if args.dry_run else 'were'} replayed, {left} can still not be read")
    return OK if len(became["replayed"]) == len(chosen) and not became["gone"] else FAILED


def _replay(found: Kept, is_dry: bool) -> str:
    """The outcome for one entry. It is gone if another command removed it, or if it was dropped for lack of room."""
    records = records_of(found.one)
    if not records:
        return "unreadable"
    if is_dry or replay(found.shard, found.one, Entry(found.one.device_id, *packed(records))):
        return "replayed"
    return "gone"


def _action(args: argparse.Namespace) -> str:
    return "quarantine.replay" if args.action == "replay" and not args.dry_run else ""


COMMAND = Command(
    "Look at what could not be saved, and try it again.", add_arguments, run, writes="archive", action=_action
)
