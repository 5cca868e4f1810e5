"""`whimbrel audit`: prints changes, SQL queries and rejected access from the audit log."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cli import arguments
from cli.command import OK, Command
from cli.stdout import output, print_json
from cli.time_argument import moment
from telemetry.audit.entry import OUTCOMES, Entry
from telemetry.audit.entry import moment as text_of
from telemetry.audit.reader import Wanted, entries
from telemetry.config.settings import Settings
from telemetry.model.errors import StoreError
from telemetry.model.terminal_text import printable
from telemetry.model.utc import DAY_US

DESCRIPTION = """\
Print the audit log of this box, oldest entry first: time, outcome, action, actor, address and target. A change has two
entries with the same id: begun, then its outcome. A rejection with "x 12" stands for 12 equal ones.
"""

LOOK_S = 1.0
LATE_S = 10.0
"""How much earlier than another entry one may be that is written after it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--since", type=moment(0), metavar="TIME", help="first moment: ISO 8601, or a date (default: the oldest entry)")
    add("--until", type=moment(DAY_US), metavar="TIME", help="last moment, or a date: its end (default: now)")
    add("--key", default="", metavar="ID", help="only of this key: it acted, or a refused sender showed it")
    add("--device", default="", metavar="ID", help="only about this device")
    add("--action", default="", metavar="NAME", help="only this action, like keys.create, or all that begin like keys")
    add("--outcome", default="", choices=OUTCOMES, help="only with this outcome")
    add("--last", type=arguments.count, metavar="N", help="only the newest N")
    add("--follow", action="store_true", help="print further entries as they come, until Ctrl-C")
    add("--json", action="store_true", help="print each entry as a JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the entries."""
    wanted = Wanted(_text(args.since), _text(args.until), "", args.key, args.device, args.action, args.outcome)
    with output():
        seen: set[str] = set()
        recent = text_of(time.time() - 2 * LATE_S)
        for entry in _newest(_read(settings.audit_dir, wanted), args.last):
            if entry.place > recent:
                seen.add(entry.place)
            _print(entry, args.json)
        while args.follow:
            time.sleep(LOOK_S)
            seen = _print_new(settings.audit_dir, wanted, seen, args.json)
    return OK


def _print_new(folder: Path, wanted: Wanted, seen: set[str], is_json: bool) -> set[str]:
    """Print what is new of the last moments: an entry may be written after later ones. Returns what is seen now."""
    recent = text_of(time.time() - LATE_S)
    found = list(_read(folder, wanted._replace(since=max(wanted.since, recent))))
    for entry in found:
        if entry.place not in seen:
            _print(entry, is_json)
    return {entry.place for entry in found} | {place for place in seen if place > recent}


def _text(at_us: int | None) -> str:
    return "" if at_us is None else text_of(at_us / 1_000_000)


def _read(folder: Path, wanted: Wanted) -> Iterator[Entry]:
    try:
        yield from entries(folder, wanted)
    except OSError as error:
        raise StoreError(f"cannot read the audit log in {folder}: {error.strerror}; run as the box's user") from None


def _newest(found: Iterator[Entry], most: int | None) -> Iterator[Entry]:
    yield from found if most is None else list(found)[-most:]


def _print(entry: Entry, is_json: bool) -> None:
    if is_json:
        print_json(msgspec.json.encode(entry))
    else:
        print(printable(line_of(entry)))
    sys.stdout.flush()


def line_of(entry: Entry) -> str:
    """An entry for people to read."""
    count = f"x {entry.count} from {entry.since} until {entry.until}" if entry.count > 1 else ""
    status = str(entry.status or "")
    details = [f"{name}={_value(value)}" for name, value in entry.details.items()]
    device = f"device={entry.device}" if entry.device else ""
    about = [entry.address, entry.target, device, status, count, *details]
    head = f"{entry.at}  {entry.outcome:<7}  {entry.program:<9}  {entry.action:<15}  {entry.actor!s:<14}"
    return "  ".join((head, *filter(None, about)))


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


COMMAND = Command("Print the audit log: changes, SQL queries and rejected access.", add_arguments, run)
