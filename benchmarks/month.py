"""A month of a million records a day: how long one device's day takes to read at its beginning and at its end.

python -m benchmarks.month [--days 30] [--json FILE]

1,000 simulated vehicles, sent over TCP as fast as the box takes them and saved by the ordinary path.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

from tqdm import tqdm

from benchmarks import report
from benchmarks.report import Result
from telemetry.archive.table import Archive
from tests.box import Box

START = date(2026, 3, 1)
INTERVAL_S = 48
"""Between two reports of a vehicle that drives; with those of parked ones about a million records a day."""

DEVICES = 21
DAY_TIMEOUT_S = 1_200
"""To send and save one day; to merge all."""


def fill(box: Box, days: Iterable[int]) -> int:
    """Send some days and save them; return how many records were taken."""
    accepted = 0
    for day in days:
        start = (START + timedelta(days=day)).isoformat()
        sent = box.json(
            *("simulate", "--over", "tcp", "--days", "1", "--start", start),
            *("--interval", str(INTERVAL_S), "--seed", str(day + 1), "--quiet"),
            timeout_s=DAY_TIMEOUT_S,
        )
        accepted += int(sent["accepted"])
    box.json("drain", timeout_s=DAY_TIMEOUT_S)
    return accepted


def device_day_ms(box: Box, names: list[str], day: int) -> float:
    """The median time of one device's day, each device asked once."""
    at = (START + timedelta(days=day)).isoformat()
    taken = []
    for name in names:
        start = time.perf_counter()
        answer = box.http.get("/v1/records", params={"device_id": name, "start": at, "end": at, "limit": 50_000})
        taken.append((time.perf_counter() - start) * 1_000)
        if not answer.json()["records"]:
            raise RuntimeError(f"no records of {name} on {at}")
    return statistics.median(taken)


def archive_of(box: Box, when: str, days: int) -> list[Result]:
    """Files and bytes a day, and the size of the log."""
    archive = Archive(box.data / "archive")
    files = archive.live(archive.open())
    log = [path.stat().st_size for path in (archive.root / "_delta_log").iterdir()]
    size = sum(file.size_bytes for file in files)
    return [
        Result(f"{when}_files_a_day", len(files) / days, "files"),
        Result(f"{when}_bytes_a_day", size / days, "bytes"),
        Result(f"{when}_bytes_a_record", size / sum(file.rows or 0 for file in files), "bytes"),
        Result(f"{when}_log_bytes", sum(log), "bytes"),
        Result(f"{when}_log_files", len(log), "files"),
    ]


def measure(box: Box, days: int) -> list[Result]:
    """Fill, read, merge, read."""
    start = time.monotonic()
    records = fill(box, [0])
    latest = box.http.get("/v1/latest", params={"limit": 1_000}).json()["records"]
    names = [one["device_id"] for one in latest][:: len(latest) // DEVICES][:DEVICES]
    found = [Result("after_1_day_first_day", device_day_ms(box, names, 0), "ms")]
    records += fill(box, tqdm(range(1, days), unit="day", initial=1, total=days, disable=None))
    per_s = records / (time.monotonic() - start)
    found += [Result("records", records, "records"), Result("records_per_s", per_s, "records/s")]
    for when in ("as_saved", "merged"):
        if when == "merged":
            start = time.monotonic()
            box.json("compact", "--all", timeout_s=DAY_TIMEOUT_S)
            found.append(Result("merge", time.monotonic() - start, "s"))
        found += archive_of(box, when, days)
        found.append(Result(f"{when}_first_day", device_day_ms(box, names, 0), "ms"))
        found.append(Result(f"{when}_last_day", device_day_ms(box, names, days - 1), "ms"))
    return found


def main() -> None:
    """Run and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--days", type=int, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder)) as box:
        report.report(measure(box, args.days), args.json)


if __name__ == "__main__":
    main()
