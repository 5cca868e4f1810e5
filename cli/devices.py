"""`whimbrel devices`: delete a device and all its records."""

from __future__ import annotations

import argparse
import sys
import time

from cli.audited import note
from cli.command import FAILED, OK, Command
from cli.output import output
from telemetry import deletions, hot
from telemetry.deletions import DONE, Deletion
from telemetry.entries import last_seen_ms
from telemetry.hot import Shard
from telemetry.redis_client import connect
from telemetry.settings import Settings
from telemetry.terminal_text import printable

DESCRIPTION = """\
delete    a device and all its records, for good: what was accepted before goes, wherever it is, and what comes later
          stays. Without --yes it says what there is, and deletes nothing. It waits until the worker has done it,
          unless --no-wait is given; ended meanwhile, the worker goes on.
"""

LOOK_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="delete")
    delete = actions.add_parser("delete", help="delete a device and all its records")
    delete.add_argument("id", metavar="ID", help="the device")
    delete.add_argument("--yes", action="store_true", help="do it")
    delete.add_argument("--no-wait", action="store_true", help="ask for it, and leave the rest to the worker")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked."""
    with connect(settings) as client, output():
        shards = hot.attach(client, settings.redis.shards)
        shard = shards[hot.shard_of(args.id, settings.redis.shards)]
        if not args.yes:
            return run_look(shard, args.id)
        name = deletions.ask(shard, args.id)
        if name is None:
            print(f"whimbrel devices: there is no device {printable(args.id)}", file=sys.stderr)
            return FAILED
        note(deletion=name)
        print(f"device {printable(args.id)} has gone from Redis; the archive follows: deletion {name}")
        return OK if args.no_wait else wait(shard, name)


def run_look(shard: Shard, device_id: str) -> int:
    """Say what would be deleted."""
    [known] = shard.latest([device_id.encode()])
    if known is None:
        print(f"whimbrel devices: there is no device {printable(device_id)}", file=sys.stderr)
        return FAILED
    seen = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(last_seen_ms(known) / 1_000))
    print(f"device {printable(device_id)} was last seen {seen}; nothing is deleted without --yes")
    return FAILED


def wait(shard: Shard, name: str) -> int:
    """Wait until a deletion is done, saying how far it is."""
    said = ""
    while True:
        found = deletions.read(shard, name)
        if found is None or found.state == DONE:
            break
        said = say(found, said)
        time.sleep(LOOK_S)
    if found is not None:
        print(
            f"done: {found.waiting_records + found.archived_records} records of {len(found.days)} days are removed, "
            f"from {found.files} files; the old files go with the sweep"
        )
    return OK


def say(found: Deletion, said: str) -> str:
    """Say how far it is, unless that was said."""
    now = f"failed, and is tried again: {found.trouble}" if found.state == deletions.FAILED else found.state
    if found.to_look_at:
        now += f", {found.to_look_at} files to look at"
    if now != said:
        print(now, file=sys.stderr)
    return now


def _action(args: argparse.Namespace) -> str:
    return "device.delete" if args.yes else ""


COMMAND = Command("Delete a device and all its records.", add_arguments, run, action=_action)
