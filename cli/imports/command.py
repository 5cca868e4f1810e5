"""`whimbrel import`: a file of records from elsewhere into the archive, each of its rows once."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, NoReturn, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from tqdm import tqdm

from cli import arguments
from cli.admin.drain_recover import Box
from cli.command import FAILED, OK, Command
from cli.imports.batches import Batches
from cli.imports.journal import Journal, short
from cli.imports.readers.formats import PRESETS, READERS, format_of
from cli.imports.rows.column_meanings import Meanings
from cli.imports.rows.reader import Piece, Refused
from cli.imports.rows.row_parser import TRANSPORTS, Judge, Naming
from cli.imports.rows.source import digest_of, opened
from cli.imports.undo import list_imports, undo_import
from cli.stdout import print_json
from telemetry.codec.record_parser import KMH, Arrival
from telemetry.config.settings import Settings
from telemetry.model.errors import BusyError, SenderError, StoreUnavailable
from telemetry.model.record import LATEST_US, Sent
from telemetry.model.terminal_text import printable
from telemetry.model.utc import DAY_US, day_of, iso
from telemetry.system import clock
from telemetry.system.disk_space import Room
from telemetry.system.failpoints import step_reporter
from worker.bulk_import import Importer
from worker.saving.save_budget import Bounds
from worker.saving.saver import Saver

SHOWN = 10
"""Bad rows that are shown, and records of a dry run."""

OPTIONS = (
    "preset",
    "map",
    "only_mapped",
    "device",
    "time_format",
    "timezone",
    "speed_unit",
    "transport",
    "delimiter",
    "encoding",
)
"""Arguments that decide, with the format, what a file's rows become."""

DESCRIPTION = """\
Bring the records of a file into the archive, with their own times, each once.

The ending tells the format: .csv, .tsv, .ndjson, .jsonl, .json (an array), .parquet, .gpx, or .sql for a dump of
mysqldump's or mariadb-dump's; all but Parquet may be compressed besides (.gz, .zst, .bz2, .xz).
A column that is named like a field of a record (device_id, timestamp, latitude, lon, speed, bearing, ...) fills that
field, in upper or lower case; --map names it for one that is called otherwise, where speed_knots, speed_ms and
speed_mph say a speed's unit; all others become attributes under their own names. Empty cells are left out.

The box runs meanwhile, and devices send. A command that was cut off goes on when it is given again, and a file that
is in the archive already adds nothing, by whatever name: it is known by its content. --again adds it once more.

--undo takes an import back by the id that it ends with, or that --list shows.

The last lines say which column became which field, and which became attributes.

A bad row is named by its place and counted, the first few on standard error, all of them with --rejects FILE; the
exit status is 0 only if there is none.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, nargs="?")
    add("--format", choices=READERS, help="(else by the file's ending)")
    add("--preset", choices=PRESETS, help="format and map of files that are known by name")
    add(
        "--map",
        action="append",
        default=[],
        type=_pairs,
        metavar="NAME=COLUMN,...",
        help="fill a record's field NAME from COLUMN, like device_id=imei,speed_knots=speed; may be given again",
    )
    add("--only-mapped", action="store_true", help="leave out columns that are neither mapped nor a record's field")
    add("--device", metavar="ID", help="device of rows that name none")
    add(
        "--time-format",
        metavar="FORMAT",
        help="strptime format of the times, like '%%d/%%m/%%Y %%H:%%M', or epoch_s, epoch_ms, epoch_us, epoch_ns",
    )
    add("--timezone", type=_zone, metavar="ZONE", help="where times are that don't say it, like Europe/Istanbul (UTC)")
    add("--speed-unit", choices=KMH, help="unit of a plain `speed` (else collector.speed_unit)")
    add("--transport", choices=TRANSPORTS, help="how the records are said to have come (import)")
    add("--delimiter", metavar="CHARACTER", help="between the cells of CSV, `tab` too (else by the header)")
    add("--encoding", default="utf-8", help="of CSV (default: utf-8)")
    add("--again", action="store_true", help="add the file once more, though it is in the archive")
    add("--rejects", type=Path, metavar="FILE", help="write the bad rows there, with their reasons, as NDJSON")
    add("--dry-run", action="store_true", help=f"show what the first {SHOWN} rows would be, and import nothing")
    add(
        "--undo",
        metavar="ID",
        nargs="?",
        const="",
        help="take back the import with that id: its records go, all others stay (without ID: FILE's last import)",
    )
    add("--list", action="store_true", help="list all imports with their ids, and import nothing")
    add("--quiet", action="store_true", help="no progress, and no last line but with --json")
    add("--json", action="store_true", help="the last line as a JSON object")


def _pairs(text: str) -> list[tuple[str, str]]:
    return [arguments.pair(part) for part in text.split(",")]


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError):
        raise argparse.ArgumentTypeError(f"there is no time zone {text!r}; one is Europe/Istanbul") from None


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Import the file, or list or undo imports; 0 if every row of it is in the archive then."""
    if args.list:
        return list_imports(_journal(_box(settings), settings), is_json=args.json)
    if args.undo is not None:
        return _undo(args, settings)
    if args.file is None:
        raise SenderError("cannot import: no FILE is named; `whimbrel import --help` says more")
    if not args.file.exists():  # before its format and the box are asked for: it is the clearer error
        raise SenderError(f"cannot read {args.file}: {os.strerror(errno.ENOENT)}")
    kind = format_of(args.file, args.format, args.preset)
    naming = _naming(args)
    if args.dry_run:
        return _dry_run(args, kind, _judge(args, settings, naming, kind, newest_ms=0))
    box = _box(settings)
    judge = _judge(args, settings, naming, kind, newest_ms=max(shard.newest_ms() for shard in box.shards))
    name = _journal(box, settings).name(digest_of(args.file), _options(args, kind), args.file, args.again)
    started_s = time.monotonic()
    with Batches(_importer(name, box, settings), box.shards, _room(settings)) as batches:
        if batches.is_whole:
            return _say_already(args, batches, short(name))
        with _rejects(args) as refuse:
            _import(args, kind, judge, batches, refuse)
    return _say(args, batches, refuse, judge.meanings, short(name), time.monotonic() - started_s)


def _journal(box: Box, settings: Settings) -> Journal:
    return Journal(settings.data_dir / "imports", box.archive, box.shards)


def _undo(args: argparse.Namespace, settings: Settings) -> int:
    box = _box(settings)
    journal = _journal(box, settings)
    if args.undo:
        name = journal.find(args.undo)
    elif args.file is None:
        raise SenderError("cannot undo: no import is named; `whimbrel import --list` lists them")
    else:
        digest = digest_of(args.file)
        name = journal.find(f"{digest}-{journal.last(digest)}")
    p = settings.persist
    saver = Saver(box.archive, box.connection, clock.now_ms, Bounds.of(p), p.quarantine_max_bytes)
    return undo_import(args, box, saver, name)


def _box(settings: Settings) -> Box:
    try:
        return Box(settings)
    except StoreUnavailable as error:
        raise StoreUnavailable(f"the box does not run: {error}; `whimbrel up` starts it") from None


def _importer(name: str, box: Box, settings: Settings) -> Importer:
    p = settings.persist
    saver = Saver(box.archive, box.connection, clock.now_ms, Bounds.of(p), p.quarantine_max_bytes)
    return Importer(
        name,
        box.archive,
        box.connection,
        saver,
        clock.now_ms,
        settings.collector.max_devices,
        settings.archive.grace_seconds / 2,
        step_reporter("import"),
    )


def _room(settings: Settings) -> Callable[[], None]:
    """What raises `BusyError` if the disk is short of room."""
    room = Room.of(settings)

    def require() -> None:
        if room.is_short():
            raise BusyError("the disk has too little room left (data.min_free_bytes); the same command goes on later")

    return require


def _naming(args: argparse.Namespace) -> Naming:
    preset = PRESETS[args.preset][1] if args.preset else Naming()
    pairs = [pair for pairs in args.map for pair in pairs]
    if len(dict(pairs)) < len(pairs):
        raise SenderError("cannot map one name to two columns: give each name to --map once")
    return preset._replace(
        columns={**preset.columns, **dict(pairs)},
        time_format=args.time_format or preset.time_format,
        zone=args.timezone or preset.zone,
        device=args.device,
        is_only_mapped=args.only_mapped,
    )


def _judge(args: argparse.Namespace, settings: Settings, naming: Naming, kind: str, newest_ms: int) -> Judge:
    c = settings.collector
    arrival: Arrival = clock.arrival(
        clock.now_us(), newest_ms, c.max_future_seconds, args.speed_unit or c.speed_unit, c.max_message_bytes
    )
    return Judge(naming, arrival, kind, args.transport)


def _options(args: argparse.Namespace, kind: str) -> dict[str, str]:
    return {"format": kind, **{name: str(getattr(args, name)) for name in OPTIONS}}


def _delimiter(args: argparse.Namespace) -> str | None:
    if args.delimiter in (None, "tab", "\\t"):
        return None if args.delimiter is None else "\t"
    if len(args.delimiter) != 1:
        raise SenderError("--delimiter must be one character, or `tab`")
    return str(args.delimiter)


# Reading ---------------------------------------------------------------------------------------------


class Refusals:
    """Counts bad rows, shows the first, and writes all of them where there is a file for them."""

    def __init__(self, file_name: str, file: IO[bytes] | None) -> None:
        self.count = 0
        self._file_name = file_name
        self._file = file

    def __call__(self, piece: Piece) -> None:
        for one in piece.refused:
            self.count += 1
            if self.count <= SHOWN:
                tqdm.write(printable(f"{self._file_name}, {one.where}: {one.reason}"), file=sys.stderr)
            if self.count == SHOWN + 1 and self._file is None:
                tqdm.write("... and more; --rejects FILE keeps all of them", file=sys.stderr)
            if self._file is not None:
                self._file.write(_reject(one))


def _reject(one: Refused) -> bytes:
    said = {"where": one.where, "reason": one.reason, "row": one.row}
    text: str = json.dumps(said, default=str)  # ASCII: a row may hold half a surrogate pair
    return text.encode() + b"\n"


@contextmanager
def _rejects(args: argparse.Namespace) -> Iterator[Refusals]:
    if args.rejects is None:
        yield Refusals(str(args.file), None)
        return
    try:
        file = args.rejects.open("wb")
    except OSError as error:
        raise SenderError(f"cannot write {args.rejects}: {error.strerror}") from None
    with closing(file):
        yield Refusals(str(args.file), file)


def _import(args: argparse.Namespace, kind: str, judge: Judge, batches: Batches, refuse: Refusals) -> None:
    with opened(args.file, args.encoding, _delimiter(args)) as source, _bar(args) as bar:
        try:
            for piece in READERS[kind](source, judge):
                refuse(piece)
                judge.meanings.look(piece.sent)
                batches.add(piece)
                bar.update(source.at() - bar.n)
                bar.set_postfix_str(f"{batches.imported} imported", refresh=False)
        except SenderError as error:
            batches.wait()
            raise SenderError(f"{error}; {batches.imported + batches.already} of its rows are imported") from None
        batches.end()


def _bar(args: argparse.Namespace) -> tqdm[NoReturn]:
    """Bytes of the file on standard error, if a person looks at it."""
    total = args.file.stat().st_size
    is_off = args.quiet or not sys.stderr.isatty()
    return tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=is_off, leave=False)


def _dry_run(args: argparse.Namespace, kind: str, judge: Judge) -> int:
    """Show what the first rows would be."""
    refuse, left, good = Refusals(str(args.file), None), SHOWN, 0
    with opened(args.file, args.encoding, _delimiter(args)) as source, closing(READERS[kind](source, judge)) as pieces:
        for piece in pieces:
            bad = [one for one in piece.refused if one.place < left]
            first = piece.sent[: max(0, min(left, piece.rows) - len(bad))]
            refuse(Piece(0, [], bad))
            judge.meanings.look(first)
            for sent in first:
                print_json(json.dumps(_shown(sent), ensure_ascii=False))
            good += len(first)
            left -= piece.rows
            if left <= 0:
                break
    if not args.json and not args.quiet:
        print(f"of the first {good + refuse.count} rows {good} would be imported", file=sys.stderr)
        _print_lines(judge.meanings.lines())
    _warn(judge.meanings.warnings(good, refuse.count))
    return OK if refuse.count == 0 else FAILED


def _shown(sent: Sent) -> dict[str, object]:
    record = sent.record
    fields = {name: value for name, value in msgspec.structs.asdict(record).items() if value is not None}
    fields.pop("timestamp_us")
    if record.attributes is not None:
        fields["attributes"] = json.loads(record.attributes)
    return {"device_id": sent.device_id, "timestamp": iso(record.timestamp_us), **fields}


# Saying ----------------------------------------------------------------------------------------------


def _say_already(args: argparse.Namespace, batches: Batches, import_id: str) -> int:
    rows = batches.done_rows
    if args.json:
        print(json.dumps({"imported": 0, "already": rows, "refused": 0, "days": 0, "is_whole": True, "id": import_id}))
    elif not args.quiet:
        print(
            f"nothing imported: all {rows} rows of {args.file} were imported before, as {import_id}; "
            "--again adds them once more"
        )
    return OK


def _print_lines(lines: Iterable[str], file: TextIO | None = None) -> None:
    for line in lines:
        print(printable(line), file=file or sys.stderr)


def _warn(sentences: Iterable[str]) -> None:
    _print_lines(f"warning: {sentence}" for sentence in sentences)


def _say(
    args: argparse.Namespace, batches: Batches, refuse: Refusals, meanings: Meanings, import_id: str, seconds: float
) -> int:
    imported, already, refused = batches.imported, batches.already, refuse.count
    warnings = meanings.warnings(imported + already, refused)
    rate, days = imported / seconds if seconds > 0 else 0.0, sorted(batches.days)
    if args.json:
        said: dict[str, object] = {"imported": imported, "already": already, "refused": refused, "days": len(days)}
        said |= {"is_whole": True, "id": import_id, "seconds": round(seconds, 3), "records_per_s": round(rate, 1)}
        print(json.dumps({**said, **meanings.as_json(), "warnings": warnings}))
    elif not args.quiet:
        print(
            f"{imported} imported, {already} already there, {refused} refused{_span(days)} in {seconds:.2f} s", end=""
        )
        print(f", {rate:.0f} records/s")
        undo = [f"to take it back: whimbrel import --undo {import_id}"] if imported + already else []
        _print_lines([*meanings.lines(), *undo], sys.stdout)
    _warn(warnings)
    return OK if refused == 0 else FAILED


def _span(days: list[int]) -> str:
    if not days:
        return ""
    first, last = (day_of(min(day * DAY_US, LATEST_US)).isoformat() for day in (days[0], days[-1]))
    return f", {len(days)} days from {first} to {last}" if len(days) > 1 else f", of {first}"


def _action(args: argparse.Namespace) -> str:
    if args.undo is not None and not args.list:
        return "import.undo"
    return "" if args.dry_run or args.list else "import"


COMMAND = Command(
    "Bring the records of a file into the archive, each once.", add_arguments, run, writes="archive", action=_action
)
