"""`whimbrel export`: records of a range, saved or not, as one snapshot in one file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import duckdb
from tqdm import tqdm

from api.formats import FORMATS, csv
from api.formats.format import BATCH_ROWS, Format, Segments
from api.positions.parameters import MAX_ACCURACY, MAX_JUMP
from api.positions.plausibility import Limits
from api.positions.plausible_records import around, left_out
from api.records.downsampling import plausible
from api.records.sorted_export import in_order
from api.requests.params import moment_us
from api.responses.negotiation import MAX_GAP
from api.snapshot.batch_rows import BatchRows
from api.snapshot.snapshot import Snapshots, Wanted
from cli.command import OK, Command
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store import shard
from telemetry.hot_store.client import connect
from telemetry.http.operations import InvalidValue, Parameter
from telemetry.model.errors import WhimbrelError
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import DAY_US
from telemetry.system.fsync import fsync

STANDARD_OUTPUT = "-"
ENDINGS = {kind.suffix: kind for kind in FORMATS.values()}


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Write to standard output, or the file beside its name first, so that a file under its name is always whole."""
    kind, wanted = _kind(args), _wanted(args)
    limits = _limits(args, kind)
    kind = _segmented(args, kind, limits)
    client = connect(settings)
    snapshots = Snapshots(lambda: shard.pinned(client, settings.redis.shards), Archive(settings.archive_dir))
    connection = open_duckdb(settings.data_dir / "tmp" / "cli")
    start_s = time.monotonic()
    wide = snapshots.take(around(wanted, limits))
    outside = left_out(connection, wide, wanted, limits, drops_records=False)
    snapshot = wide.within(wanted)
    batch_rows = BatchRows().of(snapshot, BATCH_ROWS)
    with (
        in_order(connection, snapshot, wanted, kind.has_tracks, batch_rows) as records,
        plausible(connection, records, outside, batch_rows) as (reading, judged),
    ):
        write = partial(_write, reading, judged, kind, batch_rows)
        if args.file == STANDARD_OUTPUT:
            print(f"{write(sys.stdout.fileno())} records", file=sys.stderr)
            return OK
        rows = _to_file(write, out := Path(args.file))
    done = {"records": rows, "file": args.file, "bytes": out.stat().st_size, "seconds": time.monotonic() - start_s}
    print(json.dumps(done) if args.json else f"{rows} records, {done['bytes']} bytes in {out}")
    return OK


def _kind(args: argparse.Namespace) -> Format:
    out = args.file
    kind = FORMATS[args.format] if args.format else ENDINGS.get(Path(out).suffix.lstrip("."))
    if kind is None and out == STANDARD_OUTPUT:
        raise WhimbrelError("cannot export to standard output: say --format")
    if kind is None:
        raise WhimbrelError(f"cannot export to {out}: let its name end in .{', .'.join(ENDINGS)}, or say --format")
    if args.csv_safe:
        if kind is not csv.FORMAT:
            raise WhimbrelError(f"cannot use --csv-safe with .{kind.suffix}: it is for CSV")
        kind = csv.SAFE
    return kind


def _segmented(args: argparse.Namespace, kind: Format, limits: Limits) -> Format:
    if args.max_gap_s is not None and not kind.has_tracks:
        raise WhimbrelError(f"cannot use --max-gap-s with .{kind.suffix}: it is for GPX and KML")
    max_gap_s = Segments().max_gap_s if args.max_gap_s is None else args.max_gap_s
    return kind.with_segments(Segments(max_gap_s, limits))


def _limits(args: argparse.Namespace, kind: Format) -> Limits:
    is_on = kind.is_map if args.plausible is None else args.plausible
    return Limits(args.max_jump_kmh, args.max_accuracy_m, is_on)


def _wanted(args: argparse.Namespace) -> Wanted:
    return Wanted(
        tuple(args.device),
        moment_us(args.start, 0) if args.start else EARLIEST_US,
        moment_us(args.end, DAY_US) if args.end else LATEST_US,
    )


def _to_file(write: Callable[[int], int], out: Path) -> int:
    """Returns the number of records. Raises `WhimbrelError`."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            rows = write(file.fileno())
        fsync(part)
        part.replace(out)
    except (OSError, duckdb.IOException) as error:
        raise WhimbrelError(f"cannot write {out}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return rows


def _write(connection: duckdb.DuckDBPyConnection, records: str, kind: Format, batch_rows: int, file: int) -> int:
    """Write to a file descriptor in a thread, showing how far it is. Returns the number of records."""
    with (
        ThreadPoolExecutor(1) as pool,
        tqdm(total=100, unit=" %", disable=None, leave=False) as bar,
    ):
        writing = pool.submit(kind.write, connection, records, file, batch_rows)
        while not writing.done():
            time.sleep(0.05)
            bar.update(max(connection.query_progress(), 0) - bar.n)
        return writing.result()


def _reader(parameter: Parameter[float]) -> Callable[[str], float]:
    """Reads an option like the API's parameter."""

    def read(text: str) -> float:
        try:
            return parameter.read(text)
        except InvalidValue as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    endings = ", ".join(f".{ending}" for ending in ENDINGS)
    parser.add_argument(
        "file", help=f"file to write; its extension selects the format: {endings}; - for standard output"
    )
    parser.add_argument("--device", action="append", default=[], metavar="ID", help="only this device; repeatable")
    parser.add_argument("--start", metavar="TIME", help="ISO 8601, epoch s, or a date; inclusive")
    parser.add_argument("--end", metavar="TIME", help="exclusive; a bare date includes that whole day")
    parser.add_argument("--format", choices=FORMATS, help="instead of the file's ending")
    parser.add_argument(
        "--csv-safe", action="store_true", help="put a quote in front of texts that spreadsheets would run as formulas"
    )
    parser.add_argument(
        "--max-gap-s",
        type=_reader(MAX_GAP),
        metavar="S",
        help="begin a new segment of a GPX or KML track after a longer gap, seconds "
        f"(default: {Segments().max_gap_s:g})",
    )
    parser.add_argument(
        "--plausible",
        action=argparse.BooleanOptionalAction,
        help="leave out implausible positions: jumps, bad accuracy, and 0/0 (default: only in GPX, KML and GeoJSON)",
    )
    parser.add_argument(
        "--max-jump-kmh",
        type=_reader(MAX_JUMP),
        metavar="KMH",
        default=MAX_JUMP.default,
        help=f"maximum speed between two plausible positions, km/h (default: {MAX_JUMP.default:g})",
    )
    parser.add_argument(
        "--max-accuracy-m",
        type=_reader(MAX_ACCURACY),
        metavar="M",
        default=MAX_ACCURACY.default,
        help=f"maximum `accuracy_m` of a plausible position, m (default: {MAX_ACCURACY.default:g})",
    )
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")


COMMAND = Command(
    f"Write the records of a range to one file, as {', '.join(FORMATS)}.",
    _add_arguments,
    run,
)
