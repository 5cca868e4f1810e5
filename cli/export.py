"""`whimbrel export`: records of a range, saved or not, as one snapshot in one Parquet or CSV file."""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
from tqdm import tqdm

from api.history import relation
from api.params import moment_us
from api.snapshot import Snapshots, Wanted
from cli.command import OK, Command
from telemetry import hot
from telemetry.archive import ROW_GROUP_ROWS, Archive
from telemetry.columns import COLUMNS, open_duckdb, sql_text
from telemetry.config import Settings
from telemetry.days import DAY_US
from telemetry.durable import fsync
from telemetry.errors import WhimbrelError
from telemetry.record import EARLIEST_US, LATEST_US
from telemetry.redis_client import connect

FORMATS = {
    "parquet": f"FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, ROW_GROUP_SIZE {ROW_GROUP_ROWS}",
    "csv": "FORMAT csv, HEADER true",
}
_CSV_TIME = "strftime({0}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {0}"


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Write the file beside its name first, so that a file under its name is always whole."""
    out = Path(args.file)
    kind = args.format or out.suffix.lstrip(".")
    if kind not in FORMATS:
        raise WhimbrelError(f"cannot export to {out}: name it .parquet or .csv, or say --format")
    wanted = Wanted(
        tuple(args.device),
        moment_us(args.start, 0) if args.start else EARLIEST_US,
        moment_us(args.end, DAY_US) if args.end else LATEST_US,
    )
    client = connect(settings)
    snapshots = Snapshots(lambda: hot.pinned(client, settings.redis.shards), Archive(settings.archive_dir))
    connection = open_duckdb(settings.data_dir / "tmp" / "cli")
    start_s = time.monotonic()
    records = relation(connection, snapshots.take(wanted), wanted)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        rows = _copy(connection, f"SELECT {_columns(kind)} FROM ({records}) {_ORDER}", part, kind)
        fsync(part)
        part.replace(out)
    except (OSError, duckdb.IOException) as error:
        raise WhimbrelError(f"cannot write {out}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    done = {"records": rows, "file": str(out), "bytes": out.stat().st_size, "seconds": time.monotonic() - start_s}
    print(json.dumps(done) if args.json else f"{rows} records, {done['bytes']} bytes in {out}")
    return OK


_ORDER = "ORDER BY device_id, timestamp, id"


def _columns(kind: str) -> str:
    times = ("timestamp", "received_at")
    return ", ".join(_CSV_TIME.format(n) if kind == "csv" and n in times else n for n in COLUMNS.names)


def _copy(connection: duckdb.DuckDBPyConnection, select: str, path: Path, kind: str) -> int:
    """Run the COPY in a thread, showing how far it is. Returns the number of rows."""
    sql = f"COPY ({select}) TO {sql_text(str(path))} ({FORMATS[kind]})"
    with ThreadPoolExecutor(1) as pool, tqdm(total=100, unit=" %", disable=None, leave=False) as bar:
        copying = pool.submit(lambda: connection.execute(sql).fetchall())
        while not copying.done():
            time.sleep(0.05)
            bar.update(max(connection.query_progress(), 0) - bar.n)
        return int(copying.result()[0][0])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="file to write; .parquet or .csv says its format")
    parser.add_argument("--device", action="append", default=[], metavar="ID", help="only this device; repeatable")
    parser.add_argument("--start", metavar="TIME", help="ISO 8601, epoch s, or a date; inclusive")
    parser.add_argument("--end", metavar="TIME", help="exclusive; a bare date includes that whole day")
    parser.add_argument("--format", choices=FORMATS, help="instead of the file's ending")
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")


COMMAND = Command("Write the records of a range to one Parquet or CSV file.", _add_arguments, run)
