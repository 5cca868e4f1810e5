"""`whimbrel devices`: delete a device and all its records; list those that are known before their first record."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence

import redis

from cli.audited_command import note
from cli.command import FAILED, OK, Command
from cli.stdout import output
from telemetry.codec.record_parser import read_device_id
from telemetry.config.settings import Settings
from telemetry.coordination import known_devices
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import last_seen_ms
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.deletions import DONE, Deletion
from telemetry.hot_store.shard import Shard
from telemetry.model.terminal_text import printable
from telemetry.model.utc import iso, to_second

DESCRIPTION = """\
delete    Delete a device and all its records permanently. Records accepted before the command are deleted from Redis
          and the archive; later ones stay. Without --yes it lists them and deletes nothing. It waits for the worker
          unless --no-wait is given; the worker continues if the command is interrupted.
add       Add devices to the list of known devices, so that ports with known_devices_only accept them before their first
          record. Takes effect immediately.
remove    Remove devices from this list; devices with records stay known. Takes effect within a minute.
added     Print this list.
"""

LOOK_S = 0.5
PART_DEVICES = 1_000
"""Ids in one call to Redis."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="delete|add|remove|added")
    delete = actions.add_parser("delete", help="delete a device and all its records")
    delete.add_argument("id", metavar="ID", help="the device")
    delete.add_argument("--yes", action="store_true", help="do it")
    delete.add_argument("--no-wait", action="store_true", help="ask for it, and leave the rest to the worker")
    for name, help_text in (("add", "make devices known"), ("remove", "take devices out of the list of `add`")):
        listed = actions.add_parser(name, help=help_text)
        listed.add_argument("id", nargs="+", metavar="ID", help="the devices; - reads ids from lines of standard input")
    actions.add_parser("added", help="print the list of `add`")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked."""
    with connect(settings) as client, output():
        if args.action == "added":
            return run_added(client)
        if args.action in ("add", "remove"):
            return run_list(client, args.action, given(args.id, sys.stdin))
        shards = hot.attach(client, settings.redis.shards)
        shard = shards[shard_of(args.id, settings.redis.shards)]
        if not args.yes:
            return run_look(shard, args.id)
        name = deletions.ask(shard, args.id)
        if name is None:
            print(f"whimbrel devices: there is no device {printable(args.id)}", file=sys.stderr)
            return FAILED
        note(deletion=name)
        print(f"device {printable(args.id)} has gone from Redis; the archive follows: deletion {name}")
        return OK if args.no_wait else wait(shard, name)


def given(ids: Sequence[str], lines: Iterable[str]) -> list[str]:
    """The device IDs of the arguments; `-` stands for the lines. Raises `SenderError` for an invalid ID."""
    found = [device for one in ids for device in (lines if one == "-" else (one,))]
    return [read_device_id(one.strip()) for one in found if one.strip()]


def run_list(client: redis.Redis, action: str, devices: Sequence[str]) -> int:
    """Add devices to the list, or remove them."""
    change, changed = (known_devices.add, "added") if action == "add" else (known_devices.remove, "removed")
    count = sum(change(client, devices[at : at + PART_DEVICES]) for at in range(0, len(devices), PART_DEVICES))
    note(devices=len(devices), changed=count)
    print(f"{count} of {len(devices)} devices are {changed}")
    return OK if devices else FAILED


def run_added(client: redis.Redis) -> int:
    """Print the list."""
    for device_id in sorted(known_devices.added(client)):
        print(printable(device_id))
    return OK


def run_look(shard: Shard, device_id: str) -> int:
    """Say what would be deleted."""
    [known] = shard.latest([device_id.encode()])
    if known is None:
        print(f"whimbrel devices: there is no device {printable(device_id)}", file=sys.stderr)
        return FAILED
    seen = to_second(iso(last_seen_ms(known) * 1_000))
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
    """Print the progress if it has changed."""
    now = f"failed, and is tried again: {found.trouble}" if found.state == deletions.FAILED else found.state
    if found.to_look_at:
        now += f", {found.to_look_at} files to look at"
    if now != said:
        print(now, file=sys.stderr)
    return now


def _action(args: argparse.Namespace) -> str:
    if args.action == "delete":
        return "device.delete" if args.yes else ""
    return "" if args.action == "added" else f"device.{args.action}"


COMMAND = Command("Delete a device and all its records, or make devices known.", add_arguments, run, action=_action)
