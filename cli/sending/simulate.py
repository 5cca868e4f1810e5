"""`whimbrel simulate`: made-up vehicles that drive through a city, sent to a collector or written to a file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from itertools import chain, islice, takewhile
from pathlib import Path
from random import Random
from typing import BinaryIO, NamedTuple

from cli import arguments
from cli.command import FAILED, OK, Command
from cli.sending.send import (
    BATCH_RECORDS,
    CLOCK,
    FRAME_BYTES,
    PACED_BATCH_S,
    RETRY_SECONDS,
    SENDERS,
    add_place_arguments,
    deliver,
    max_bytes,
    print_summary,
    progress_bar,
    say,
)
from cli.sending.sender import Batch, Patience, Tally, batches, paced
from cli.sending.sources import Row
from cli.sending.vehicle_simulation import Plan, Slot, traffic
from cli.stdout import output
from cli.time_argument import moment
from telemetry.config.settings import Settings
from telemetry.model.errors import ConfigError, SenderError
from telemetry.model.utc import DAY_US
from telemetry.system import clock

DEVICES = 1_000
INTERVAL_MS = 10_000
START_US = 1_767_225_600_000_000
"""2026-01-01: the same records whenever it runs, and none of them from the future."""

DESCRIPTION = """\
Make up vehicles that drive through a city, with turns, red lights, parking (ignition off, a report every 10
minutes) and refuelling, and send what they report to a collector, or write it to a file.

The same --seed, --devices, --interval, --start, --days and --mess give the same bytes; --records cuts them
off. Neither --rate nor --batch changes them. --live can't be repeated: it takes the time of day.

  whimbrel simulate --live                                    1,000 vehicles, as they drive, until Ctrl-C
  whimbrel simulate --records 1000000                         as fast as the collector takes them
  whimbrel simulate --days 7 --start 2026-03-01 --interval 60 a week of history
  whimbrel simulate --devices 50 --records 10000 --out day.ndjson

The exit status is 0 if all were accepted or written, else 1; 130 after Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--devices", type=arguments.count, default=DEVICES, metavar="N", help=f"(default: {DEVICES})")
    add(
        "--interval",
        type=arguments.seconds_ms,
        default=INTERVAL_MS,
        metavar="SECONDS",
        help=f"between two reports of a vehicle that drives (default: {INTERVAL_MS // 1_000})",
    )
    add("--seed", type=int, default=1, help="(default: 1)")
    add("--mess", action="store_true", help="some lose contact and send up to 20 at once, a few clocks run ahead")
    _add_time_arguments(parser)
    _add_way_arguments(parser)
    add("--quiet", action="store_true", help="no progress, and no last line but with --json")
    add("--json", action="store_true", help="the last line as a JSON object")


def _add_time_arguments(parser: argparse.ArgumentParser) -> None:
    first = parser.add_mutually_exclusive_group()
    first.add_argument(
        "--start",
        type=moment(0),
        default=START_US,
        metavar="TIME",
        help="of the first record: ISO 8601, epoch seconds or a date (default: 2026-01-01)",
    )
    first.add_argument("--live", action="store_true", help="start now, and send each record at its time")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--records", type=arguments.count, metavar="N", help="stop after so many records")
    end.add_argument("--days", type=arguments.quantity, metavar="N", help="stop when the vehicles drove for so long")
    end.add_argument(
        "--duration", type=arguments.quantity, metavar="SECONDS", help="stop after so long (without these: at Ctrl-C)"
    )


def _add_way_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", metavar="FILE", help="write NDJSON to this file, - for standard output, instead of sending")
    add("--over", choices=SENDERS, default="http", help="(default: http)")
    add_place_arguments(parser)
    add(
        "--rate",
        type=arguments.amount,
        default=0.0,
        metavar="RECORDS",
        help="records a second (default: 0, as fast as it goes)",
    )
    add(
        "--batch",
        type=arguments.count,
        default=BATCH_RECORDS,
        metavar="RECORDS",
        help=f"most records in a request or message (default: {BATCH_RECORDS})",
    )
    add(
        "--retry-seconds",
        type=arguments.quantity,
        default=RETRY_SECONDS,
        metavar="SECONDS",
        help=f"how long the same records are tried (default: {RETRY_SECONDS:g})",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Send or write; 0 if it is all there."""
    _check(args)
    return _write(args) if args.out else _send(args, settings)


def _check(args: argparse.Namespace) -> None:
    if args.live and args.rate:
        raise ConfigError("cannot use --rate with --live, which sends each record at its time: leave one of them out")
    is_endless = args.records is None and args.days is None and args.duration is None
    if args.out not in (None, "-") and is_endless:
        raise ConfigError(f"cannot fill {args.out} without end: say --records, --days or --duration")


# Making ----------------------------------------------------------------------------------------------


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """The records, each with its number."""
    slots = traffic(plan_of(args, clock.now_us), Random(args.seed).random)  # noqa: S311 - nothing secret
    if args.live:
        slots = in_time(slots, *CLOCK)
    if args.duration is not None:
        stop_s = time.monotonic() + args.duration
        slots = takewhile(lambda _: time.monotonic() < stop_s, slots)
    lines = islice(chain.from_iterable(slot.lines for slot in slots), args.records)
    return (Row(number, line.encode()) for number, line in enumerate(lines, 1))


def plan_of(args: argparse.Namespace, now_us: Callable[[], int]) -> Plan:
    """What the arguments ask for."""
    start_us = now_us() if args.live else args.start
    end_us = None if args.days is None else start_us + round(args.days * DAY_US)
    return Plan(args.devices, start_us, args.interval, end_us, args.mess)


def in_time(slots: Iterable[Slot], monotonic: Callable[[], float], sleep: Callable[[float], None]) -> Iterator[Slot]:
    """Hold each slot back until as much time has passed as between it and the first."""
    first_us: int | None = None
    start_s = monotonic()
    for slot in slots:
        first_us = slot.at_us if first_us is None else first_us
        wait_s = (slot.at_us - first_us) / 1_000_000 - (monotonic() - start_s)
        if wait_s > 0:
            sleep(wait_s)
        yield slot


def cut(args: argparse.Namespace, found: Iterable[Row], most_bytes: int) -> Iterator[Batch]:
    """Batches at the rate that was asked for; of a slow stream small ones, so that it flows evenly."""
    rate = args.devices * 1_000 / args.interval if args.live else args.rate
    most = min(args.batch, max(1, int(rate * PACED_BATCH_S))) if rate else args.batch
    source = batches(found, most, most_bytes)
    return paced(source, args.rate, *CLOCK) if args.rate else source


# Sending and writing ---------------------------------------------------------------------------------


def _send(args: argparse.Namespace, settings: Settings) -> int:
    collector = settings.collector
    bar = progress_bar(args.quiet)
    tally = Tally("simulate", say, bar.update)
    patience = Patience(args.retry_seconds, *CLOCK, say)
    started = time.monotonic()
    try:
        with closing(SENDERS[args.over](args, settings, patience, tally)) as sender:
            good = tally.readable(rows(args), collector.max_message_bytes - FRAME_BYTES)
            deliver(cut(args, good, max_bytes(args.over, collector)), sender)
    finally:
        bar.close()
        print_summary(tally, time.monotonic() - started, args)
    return OK if tally.complete else FAILED


class _Written(NamedTuple):
    records: int = 0
    bytes: int = 0


def _write(args: argparse.Namespace) -> int:
    written = _Written()
    started = time.monotonic()
    is_shown = not args.quiet and args.out != "-"
    with output(), _open(args.out) as file, closing(progress_bar(not is_shown)) as bar:
        try:
            for batch in cut(args, rows(args), sys.maxsize):
                text = b"".join([row.body + b"\n" for row in batch])
                file.write(text)
                if args.live or args.rate:
                    file.flush()
                written = _Written(written.records + len(batch), written.bytes + len(text))
                bar.update(len(batch))
        finally:
            _summarize(args, written, time.monotonic() - started)
    return OK


def _open(name: str) -> nullcontext[BinaryIO] | BinaryIO:
    try:
        return nullcontext(sys.stdout.buffer) if name == "-" else Path(name).open("wb")
    except OSError as error:
        raise SenderError(f"cannot write {name}: {error.strerror}") from None


def _summarize(args: argparse.Namespace, written: _Written, seconds: float) -> None:
    """The last line; on standard error where standard output has the records."""
    file = sys.stderr if args.out == "-" else sys.stdout
    rate = written.records / seconds if seconds > 0 else 0.0
    if args.json:
        counts = {**written._asdict(), "seconds": round(seconds, 3), "records_per_s": round(rate, 1)}
        print(json.dumps(counts), file=file)
    elif not args.quiet:
        print(f"{written.records} records, {written.bytes} bytes in {seconds:.2f} s, {rate:.0f} records/s", file=file)


COMMAND = Command("Make up vehicles and send or write what they report.", add_arguments, run)
