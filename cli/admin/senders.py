"""`whimbrel senders`: senders of numbered batches that the box remembers, listed and forgotten."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from cli.command import FAILED, OK, Command
from cli.stdout import output, print_json
from telemetry.config.settings import Settings
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.hot_store.operations import batch_senders
from telemetry.hot_store.operations.batch_senders import Sender
from telemetry.hot_store.shard import Shard
from telemetry.model.terminal_text import printable
from telemetry.model.utc import iso
from telemetry.system import clock

DESCRIPTION = """\
Of each sender that numbers its batches every shard remembers the last number, for 30 days after its last batch, and for
at most collector.max_senders senders.

list      print shard, key, last number, when it was last seen, and id of each, then how many each key has
forget    forget those named by id, all of a key, or all that were not seen for some days; together, those to which all
          applies. A batch that a forgotten sender sends again is stored again. Without --yes nothing is forgotten.

A key is shown where the sender counts towards its share: a key's id, with a device where its token was used, or @ and
an address where no key is required. The exit status is 1 if no sender is found to forget.
"""

LINE = "{:>5}  {:<24}  {:>12}  {:<27}  {}"
DAY_MS = 86_400_000


class Line(msgspec.Struct):
    """One sender of `--json`."""

    shard: int
    sender: str
    key: str
    last_number: int
    last_seen: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|forget")
    listing = actions.add_parser("list", help="print the senders that are remembered")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    forget = actions.add_parser("forget", help="forget senders")
    forget.add_argument("id", nargs="*", metavar="ID", help="these senders, as `list` names them")
    forget.add_argument(
        "--key", dest="of_key", metavar="KEY", help="senders of this key or @ADDRESS, and of its devices' tokens"
    )
    forget.add_argument("--older-than", type=float, metavar="DAYS", help="senders not seen for DAYS")
    forget.add_argument("--yes", action="store_true", help="do it (default: only print how many)")
    forget.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked."""
    with connect(settings) as client:
        shards = hot.attach(client, settings.redis.shards)
        with output():
            return run_list(args, shards) if args.action == "list" else run_forget(args, shards)


def run_list(args: argparse.Namespace, shards: list[Shard]) -> int:
    """Print all senders, those seen last at the end."""
    found = sorted((one for shard in shards for one in batch_senders.known(shard)), key=lambda one: one.seen_ms)
    counts = Counter(one.owner for one in found if one.owner)
    if args.json:
        print_json(msgspec.json.encode({"senders": [_line(one) for one in found], "keys": counts}))
        return OK
    if found:
        print(LINE.format("shard", "key", "last number", "last seen", "sender"))
    for one in map(_line, found):
        print(LINE.format(one.shard, printable(one.key) or "-", one.last_number, one.last_seen, printable(one.sender)))
    for owner, count in counts.most_common():
        print(f"{count} of {printable(owner)}")
    print(f"{len(found)} senders are remembered")
    return OK


def run_forget(args: argparse.Namespace, shards: list[Shard]) -> int:
    """Forget the chosen senders, or print how many they are."""
    if not args.id and args.of_key is None and args.older_than is None:
        print("name senders, or choose them by --key or --older-than")
        return FAILED
    is_chosen = chosen(args.id, args.of_key, args.older_than, clock.now_ms())
    wanted = [[one for one in batch_senders.known(shard) if is_chosen(one)] for shard in shards]
    count = sum(map(len, wanted))
    gone = sum(map(batch_senders.forget, shards, wanted)) if args.yes else 0
    if args.json:
        print_json(msgspec.json.encode({"found": count, "forgotten": gone}))
    elif args.yes:
        print(f"{gone} senders are forgotten")
    else:
        print(f"{count} senders are found; nothing is forgotten without --yes")
    return OK if count else FAILED


def chosen(ids: list[str], key: str | None, days: float | None, now_ms: int) -> Callable[[Sender], bool]:
    """Whether a sender is one of those to which all that is given applies."""
    names = frozenset(ids)

    def checks(one: Sender) -> Iterator[bool]:
        yield not names or one.name in names
        yield key is None or one.owner == key or one.owner.startswith(f"{key}:")
        yield days is None or one.seen_ms < now_ms - days * DAY_MS

    return lambda one: all(checks(one))


def _line(one: Sender) -> Line:
    return Line(one.shard, one.name, one.owner, one.number, iso(1_000 * one.seen_ms))


def _action(args: argparse.Namespace) -> str:
    return "senders.forget" if args.action == "forget" and args.yes else ""


COMMAND = Command("List senders of numbered batches, or forget some.", add_arguments, run, action=_action)
