"""One device's day of 1,000 records as JSON, of archives of 10 and of 100 days of a million records.

    python -m benchmarks.days [--quick] [--json FILE]

One keep-alive connection, one question after the other, each of a device and a day of its own; beside it what a bare
DuckDB takes that is told the day's file. The archive is written beforehand, past the collector: about 2 GB.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import duckdb
import pyarrow as pa

from benchmarks import answers, archives, messages, report
from benchmarks.boxes import archive_of, box
from benchmarks.cpu import Meter
from benchmarks.messages import DEVICE_IDS, DEVICES
from benchmarks.report import Result
from benchmarks.sending import Connection, Load, Message, send
from telemetry.archive.schema import open_duckdb, sql_text
from tests.box import Box

DAY_MS, TIMES = 2.5, 1.3


class Size(NamedTuple):
    """Records of a device a day, days of a small and of a large archive, questions in a round, rounds."""

    a_device: int = archives.A_DAY
    few: int = 10
    many: int = 100
    questions: int = 50
    rounds: int = 5


QUICK = Size(100, 3, 15, 20, 3)


class Asked(NamedTuple):
    """Whose records of which day."""

    device_id: str
    day: str


def questions(dice: Random, days: int, count: int) -> list[Asked]:
    """Devices and days."""
    return [
        Asked(DEVICE_IDS[dice.randrange(DEVICES)], messages.day(dice.randrange(days)).isoformat()) for _ in range(count)
    ]


def question(one: Asked) -> Message:
    """The request for it."""
    return messages.get(f"/v1/records?device_id={one.device_id}&start={one.day}&end={one.day}")


def ask(box: Box, some: Sequence[Asked]) -> Load:
    """One after the other."""
    made = [question(one) for one in some]
    return send([Connection(("127.0.0.1", box.api_port), made, answers.Http())])


def check(box: Box, one: Asked, expected: int) -> None:
    """See that the answer is right. Raises `RuntimeError`."""
    answer = box.http.get("/v1/records", params={"device_id": one.device_id, "start": one.day, "end": one.day})
    found = answer.raise_for_status().json()["records"]
    if len(found) != expected or not all(record["timestamp"].startswith(one.day) for record in found):
        raise RuntimeError(f"{len(found)} records of {one}, not {expected}")


def bare_ms(connection: duckdb.DuckDBPyConnection, files: dict[str, str], some: Sequence[Asked]) -> list[float]:
    """What DuckDB takes to read each, as rows of Arrow."""
    taken = []
    for one in some:
        start_s = time.perf_counter()
        source = f"read_parquet({sql_text(files[one.day])})"
        connection.sql(
            f"SELECT * FROM {source} WHERE device_id = '{one.device_id}' ORDER BY timestamp"
        ).to_arrow_table()
        taken.append(1e3 * (time.perf_counter() - start_s))
    return taken


def measure(box: Box, day: pa.Table, size: Size) -> Iterator[Result]:
    """Write the small archive and ask; write on and ask again."""
    archive, written, p50_ms = archive_of(box), 0, []
    with open_duckdb() as connection:
        for name, days in (("day_10m", size.few), ("day_100m", size.many)):
            archives.add_days(archive, day, written, days)
            written, dice = days, Random(days)
            files = {file.day.isoformat(): file.path for file in archive.live(archive.open())}
            check(box, questions(dice, days, 1)[0], size.a_device)
            ask(box, questions(dice, days, size.questions))
            asked = [questions(dice, days, size.questions) for _ in range(size.rounds)]
            meter = Meter(box)
            loads = [ask(box, some) for some in asked]
            cost = meter.cost(size.rounds * size.questions)
            bare = [statistics.median(bare_ms(connection, files, some)) for some in asked]
            p50_ms.append(statistics.median(load.ms(0.5) for load in loads))
            yield Result(name, p50_ms[-1], "ms", DAY_MS)
            yield Result(f"{name}_p99", statistics.median(load.ms(0.99) for load in loads), "ms")
            yield Result(f"{name}_bare_duckdb", statistics.median(bare), "ms")
            yield from cost.results(name, "µs a question")
    yield Result("day_ratio", p50_ms[1] / p50_ms[0], "times", TIMES)


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    size = QUICK if quick else Size()
    with box() as found:
        yield from measure(found, archives.one_day(DEVICES, size.a_device), size)


if __name__ == "__main__":
    report.run_alone(__doc__, run)
