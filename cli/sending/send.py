"""`whimbrel send`: the positions of a file, or of standard input, to a collector."""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NoReturn

from tqdm import tqdm

from cli import arguments
from cli.command import FAILED, OK, Command
from cli.http_client import add_ca_file, client, trusted
from cli.key_argument import add_key_argument, given_key
from cli.sending.http_sender import TIMEOUT_S, HttpSender
from cli.sending.sender import Batch, Patience, Sender, Tally, batches, paced
from cli.sending.sources import ENDINGS, PLAIN, PRESETS, READERS, Naming
from cli.sending.tcp_sender import TcpSender
from telemetry.config.settings import Collector, Settings
from telemetry.config.urls import collector_url, reachable
from telemetry.model.errors import BusyError, SenderError
from telemetry.model.terminal_text import printable
from telemetry.network.tls import trusting_files

BATCH_RECORDS = 500
RETRY_SECONDS = 60.0
PACED_BATCH_S = 0.1
"""With --rate, a batch holds at most the records of this time, so that they flow evenly."""

FRAME_BYTES = 4
"""What the brackets around one record take, and two to stay below the limit."""

CLOCK = (time.monotonic, time.sleep)

DESCRIPTION = """\
Send the positions of a file to a collector, and say what became of them.

FILE holds one JSON object a line (.ndjson, .jsonl), or CSV with a header. A column or key that is named
like a field of a record (device_id, timestamp, latitude, lon, speed, bearing, ...) fills that field; --map
names it for one that is called otherwise; all others become attributes under their own names. Empty CSV
cells are left out.

A bad record is named on standard error by its line, counted as refused, and the others are sent without
it. While the collector is away or busy, the same records are sent again for --retry-seconds. Over HTTP
each batch has an Idempotency-Key, over TCP a sender's id and a number, so that it is stored once even if
an answer was lost.

At the end: the records read (sent), accepted and refused. The exit status is 0 only if all were accepted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("file", metavar="FILE", help="the file; - for standard input")
    add("--format", choices=READERS, help="(else by the file's ending, csv with --preset, ndjson for -)")
    add(
        "--map",
        action="append",
        default=[],
        type=arguments.pair,
        metavar="NAME=COLUMN",
        help="fill a record's field NAME from COLUMN, like device_id=vehicle_id; may be given again",
    )
    add("--time-format", metavar="FORMAT", help="strptime format of the timestamp, like '%%d/%%m/%%Y %%H:%%M'; UTC")
    add("--preset", choices=PRESETS, help="--map and --time-format of a known file")
    add("--over", choices=SENDERS, default="http", help="(default: http)")
    add_place_arguments(parser)
    _add_flow_arguments(parser)
    add("--quiet", action="store_true", help="no progress, and no last line but with --json")
    add("--json", action="store_true", help="the last line as a JSON object")


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where to send to, and whom to trust there."""
    add = parser.add_argument
    add("--url", type=arguments.url, help="the HTTP collector (else by collector.host and collector.http_port)")
    add("--tcp", type=arguments.address, metavar="HOST:PORT", help="the TCP collector (else by collector.tcp_port)")
    add("--tls", action="store_true", help="speak TLS to --tcp")
    add_ca_file(parser)
    add_key_argument(parser)


def _add_flow_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch",
        type=arguments.count,
        default=BATCH_RECORDS,
        metavar="RECORDS",
        help=f"most records in a request or message (default: {BATCH_RECORDS}; 1 sends each line as it comes)",
    )
    parser.add_argument("--rate", type=arguments.quantity, metavar="RECORDS", help="records a second (else all it can)")
    parser.add_argument(
        "--retry-seconds",
        type=arguments.quantity,
        default=RETRY_SECONDS,
        metavar="SECONDS",
        help=f"how long the same records are tried (default: {RETRY_SECONDS:g})",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Send the file; 0 if every record was accepted."""
    collector, label = settings.collector, "standard input" if args.file == "-" else args.file
    with open_input(args.file) as file:  # before its format is asked for: a missing file is the clearer error
        rows = READERS[file_format(args)](file, label, file_naming(args))
        bar = progress_bar(args.quiet)
        tally = Tally(label, say, bar.update)
        patience = Patience(args.retry_seconds, *CLOCK, say)
        started = time.monotonic()
        try:
            with closing(SENDERS[args.over](args, settings, patience, tally)) as sender:
                good = tally.readable(rows, collector.max_message_bytes - FRAME_BYTES)
                source = batches(good, batch_records(args), max_bytes(args.over, collector))
                deliver(source if args.rate is None else paced(source, args.rate, *CLOCK), sender)
        finally:
            bar.close()
            print_summary(tally, time.monotonic() - started, args)
    return OK if tally.complete else FAILED


def file_format(args: argparse.Namespace) -> str:
    """The format that was named, or that the file's name tells."""
    if args.format:
        return str(args.format)
    if args.preset:
        return "csv"
    if args.file == "-":
        return "ndjson"
    ending = Path(args.file).suffix.lower()
    if ending not in ENDINGS:
        raise SenderError(f"cannot tell the format of {args.file}: name it with --format")
    return ENDINGS[ending]


def file_naming(args: argparse.Namespace) -> Naming:
    """The preset, if any, overridden by what was named."""
    preset = PRESETS[args.preset] if args.preset else PLAIN
    columns = dict(args.map)
    if len(columns) < len(args.map):
        raise SenderError("cannot map one name to two columns: give each name to --map once")
    return Naming({**preset.columns, **columns}, args.time_format or preset.time_format)


def open_input(name: str) -> BinaryIO:
    """The file, or standard input for `-`."""
    try:
        return sys.stdin.buffer if name == "-" else Path(name).open("rb")
    except OSError as error:
        raise SenderError(f"cannot read {name}: {error.strerror}") from None


def progress_bar(quiet: bool) -> tqdm[NoReturn]:
    """Records and rate on standard error, if a person looks at it."""
    return tqdm(unit=" records", disable=quiet or not sys.stderr.isatty(), leave=False)


def say(text: str) -> None:
    """A line on standard error, above the progress."""
    tqdm.write(printable(text, keeps_lines=True), file=sys.stderr)


def batch_records(args: argparse.Namespace) -> int:
    """Most records in a batch."""
    limit: int = args.batch
    return limit if args.rate is None else min(limit, max(1, int(args.rate * PACED_BATCH_S)))


def deliver(source: Iterable[Batch], sender: Sender) -> None:
    """Send all, and see that all is answered."""
    try:
        _send_all(source, sender)
    except BusyError as error:
        line = min(row.line for batch in sender.unanswered() for row in batch)
        raise BusyError(f"{error}; everything before line {line} is answered") from None


def _send_all(source: Iterable[Batch], sender: Sender) -> None:
    try:
        for batch in source:
            sender.send(batch)
    except SenderError:  # the file can't be read on: what was sent of it counts none the less
        sender.finish()
        raise
    sender.finish()


def print_summary(tally: Tally, seconds: float, args: argparse.Namespace) -> None:
    """The last line."""
    rate = tally.accepted / seconds if seconds > 0 else 0.0
    if args.json:
        counts = {"sent": tally.sent, "accepted": tally.accepted, "refused": tally.refused}
        print(json.dumps({**counts, "seconds": round(seconds, 3), "records_per_s": round(rate, 1)}))
    elif not args.quiet:
        counted = f"{tally.sent} sent, {tally.accepted} accepted, {tally.refused} refused"
        print(f"{counted} in {seconds:.2f} s, {rate:.0f} records/s")


def max_bytes(over: str, collector: Collector) -> int:
    """Most bytes in a batch as JSON: an HTTP body, or about what a frame may have."""
    return collector.max_message_bytes - 2 if over == "tcp" else collector.max_body_bytes


def http_sender(args: argparse.Namespace, settings: Settings, patience: Patience, tally: Tally) -> Sender:
    """A sender over HTTP."""
    tls = trusted(args, settings, is_own=not args.url)
    connection = client(args.url or collector_url(settings), TIMEOUT_S, tls, given_key(args))
    return HttpSender(connection, patience, tally, lambda: uuid.uuid4().hex)


def tcp_sender(args: argparse.Namespace, settings: Settings, patience: Patience, tally: Tally) -> Sender:
    """A sender over TCP, known by an id that no other has."""
    c = settings.collector
    address = args.tcp or (reachable(c.host), c.tcp_port)
    tls = trusted(args, settings, is_own=not args.tcp)
    if tls is None and args.tls:
        tls = trusting_files("")
    return TcpSender(address, patience, tally, uuid.uuid4().hex, c.max_message_bytes, tls, given_key(args))


SENDERS: dict[str, Callable[[argparse.Namespace, Settings, Patience, Tally], Sender]] = {
    "http": http_sender,
    "tcp": tcp_sender,
}

COMMAND = Command("Send the positions of a file to a collector.", add_arguments, run)
