"""A day of a million records: one hour of the whole fleet, and all of it as Parquet and CSV, beside a bare DuckDB.

    python -m benchmarks.exports [--quick] [--json FILE]

`GET /v1/summary` for one hour, while 19,000 records of it wait to be saved: count and mean speed of each device, the
first time and again; the same from a second past the hour on; and all that there is of each. `GET /v1/export` for the
day.
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import answers, archives, messages, report
from benchmarks.boxes import archive_of, box
from benchmarks.cpu import Meter, peak_mb, program
from benchmarks.ingest import FRAMES, Source
from benchmarks.messages import DEVICES
from benchmarks.report import Result
from benchmarks.sending import Connection, send
from telemetry.archive.schema import open_duckdb, sql_text
from tests.box import Box

HOUR = "/v1/summary?start={day}T00:00:00Z&end={day}T01:00:00Z&every=1h"
CUT = HOUR.replace("0:00Z", "0:01Z").removesuffix("&every=1h")
USUAL = "&fields=count,speed_kmh_mean"
SUMMARIES = {"fleet_hour": HOUR + USUAL, "fleet_hour_cut": CUT + USUAL, "fleet_hour_all_fields": HOUR}
EXPORT = "/v1/export?start={day}&end={day}&format={kind}"
COPIES = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER true"}
HOUR_MS, FIRST_BYTE_MS, MEMORY_MB = 10.0, 200.0, 64.0
SECONDS = {"parquet": 0.5, "csv": 0.9}
TAIL = {"persist__flush_records": "200000", "persist__flush_seconds": "3600"}
TAIL_RECORDS = 19_000
READ_BYTES = 2**18


class Size(NamedTuple):
    """Records of a device, and rounds."""

    a_device: int = archives.A_DAY
    rounds: int = 5
    questions: int = 20


QUICK = Size(100, 3, 10)


class Exported(NamedTuple):
    """One export: seconds, ms until its first byte, bytes, MB that the query program grew by at most, and lines."""

    seconds: float
    first_ms: float
    bytes: int
    grown_mb: float
    lines: int


def export(box: Box, target: str) -> Exported:
    """Read an export to its end."""
    [query] = [one for one in psutil.Process(box.pid).children(recursive=True) if program(one.cmdline()) == "query"]
    Path(f"/proc/{query.pid}/clear_refs").write_text("5", encoding="ascii")  # forget the peak
    before_mb, start_s = query.memory_info().rss / 1e6, time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", box.api_port, timeout=120)) as connection:
        connection.request("GET", target)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{target}: {answer.status} {answer.read(400)!r}")
        size = lines = 0
        first_s = 0.0
        while data := answer.read(READ_BYTES) if first_s else answer.read(1):
            first_s = first_s or time.perf_counter() - start_s
            size += len(data)
            lines += data.count(b"\n")
        seconds = time.perf_counter() - start_s
    return Exported(seconds, 1e3 * first_s, size, peak_mb(query.pid) - before_mb, lines)


def exports(box: Box, kind: str, records: int, size: Size) -> Iterator[Result]:
    """All rounds of one format."""
    name = f"export_{kind}"
    target = EXPORT.format(day=messages.day(0), kind=kind)
    export(box, target)  # opens the DuckDB of exports
    meter = Meter(box)
    found = [export(box, target) for _ in range(size.rounds)]
    if kind == "csv" and any(one.lines != records + 1 for one in found):
        raise RuntimeError(f"exports of {found[0].lines} lines, not {records + 1}")
    cost = meter.cost(size.rounds * records)
    yield Result(name, statistics.median(one.seconds for one in found), "s", SECONDS[kind])
    yield Result(f"{name}_first_byte", statistics.median(one.first_ms for one in found), "ms", FIRST_BYTE_MS)
    yield Result(f"{name}_memory", max(one.grown_mb for one in found), "MB more of the query program", MEMORY_MB)
    yield Result(f"{name}_size", found[0].bytes / records, "bytes a record")
    yield from cost.results(name)


def hour(box: Box, size: Size) -> Iterator[Result]:
    """One hour of the fleet."""
    for name, form in SUMMARIES.items():
        target = form.format(day=messages.day(0))
        start_s = time.perf_counter()
        found = box.http.get(target).raise_for_status().json()
        first_ms = 1e3 * (time.perf_counter() - start_s)
        records = sum(one["count"] for one in found["summaries"])
        if records <= TAIL_RECORDS or found["next_cursor"] is not None:
            raise RuntimeError(f"summaries of {records} records, fewer than there are")
        meter, made = Meter(box), [messages.get(target)] * size.questions
        loads = [send([Connection(("127.0.0.1", box.api_port), made, answers.Http())]) for _ in range(size.rounds)]
        ms = statistics.median(load.ms(0.5) for load in loads)
        yield Result(name, ms, "ms", HOUR_MS if name == "fleet_hour" else None)
        yield Result(f"{name}_first", first_ms, "ms, the first time")
        yield Result(f"{name}_p99", statistics.median(load.ms(0.99) for load in loads), "ms")
        yield from meter.cost(size.questions * size.rounds).results(name, "µs a question")


def bare(box: Box, size: Size) -> Iterator[Result]:
    """What DuckDB takes that is told the day's file: the hour, and to copy it all into one file, in order."""
    archive = archive_of(box)
    [file] = [file.path for file in archive.live(archive.open()) if file.day == messages.day(0)]
    source = f"read_parquet({sql_text(file)})"
    start = f"TIMESTAMPTZ '{messages.day(0)} 00:00:00Z'"
    when = f"timestamp >= {start} AND timestamp < {start} + INTERVAL 1 hour"
    sql = f"SELECT device_id, count(*), avg(speed_kmh) FROM {source} WHERE {when} GROUP BY device_id"
    with open_duckdb() as connection, tempfile.TemporaryDirectory() as folder:
        ms = _median_ms(lambda: connection.sql(sql).to_arrow_table(), size.rounds * size.questions)
        yield Result("fleet_hour_bare_duckdb", ms, "ms")
        for kind, options in COPIES.items():
            out = sql_text(f"{folder}/{kind}")
            copy = f"COPY (SELECT * FROM {source} ORDER BY device_id, timestamp, id) TO {out} ({options})"
            ms = _median_ms(partial(connection.execute, copy), size.rounds)
            yield Result(f"export_{kind}_bare_duckdb", ms / 1e3, "s")


def _median_ms(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - start_s))
    return statistics.median(taken)


def fill(box: Box, size: Size) -> int:
    """Write a day; returns its records."""
    archives.add_days(archive_of(box), archives.one_day(DEVICES, size.a_device), 0, 1)
    return DEVICES * size.a_device


def measure(box: Box, records: int, size: Size) -> Iterator[Result]:
    """Ask for the day, of so many records, whole; then have a tail and ask for the hour."""
    for kind in SECONDS:
        yield from exports(box, kind, records, size)
    send(Source(box, FRAMES, messages.batches(TAIL_RECORDS), "tail").connections(0))
    yield from hour(box, size)
    yield from bare(box, size)


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own, which saves nothing meanwhile."""
    with box(**TAIL) as found:
        size = QUICK if quick else Size()
        yield from measure(found, fill(found, size), size)


if __name__ == "__main__":
    report.run_alone(__doc__, run)
