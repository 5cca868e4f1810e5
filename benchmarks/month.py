"""A month of a million records a day: how long one device's day takes to read at its beginning and at its end.

python -m benchmarks.month [--days 30] [--json FILE]

1,000 simulated vehicles, sent over TCP as fast as the box takes them and saved by the ordinary path.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from telemetry.archive import Archive
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


def archive_of(box: Box, days: int) -> dict[str, Any]:
    """Files and bytes a day, and the size of the log."""
    archive = Archive(box.data / "archive")
    files = archive.live(archive.open())
    log = [path.stat().st_size for path in (archive.root / "_delta_log").iterdir()]
    return {
        "files_a_day": len(files) / days,
        "bytes_a_day": sum(file.size_bytes for file in files) / days,
        "bytes_a_record": sum(file.size_bytes for file in files) / sum(file.rows or 0 for file in files),
        "log_bytes": sum(log),
        "log_files": len(log),
    }


def measure(box: Box, days: int) -> dict[str, Any]:
    """Fill, read, merge, read."""
    start = time.monotonic()
    records = fill(box, [0])
    latest = box.http.get("/v1/latest", params={"limit": 1_000}).json()["records"]
    names = [one["device_id"] for one in latest][:: len(latest) // DEVICES][:DEVICES]
    found: dict[str, Any] = {"after_1_day_first_ms": device_day_ms(box, names, 0)}
    records += fill(box, tqdm(range(1, days), unit="day", initial=1, total=days, disable=None))
    found |= {"records": records, "records_per_s": records / (time.monotonic() - start)}
    for when in ("as_saved", "merged"):
        if when == "merged":
            start = time.monotonic()
            box.json("compact", "--all", timeout_s=DAY_TIMEOUT_S)
            found["merge_s"] = time.monotonic() - start
        found |= {f"{when}_{name}": value for name, value in archive_of(box, days).items()}
        found[f"{when}_first_day_ms"] = device_day_ms(box, names, 0)
        found[f"{when}_last_day_ms"] = device_day_ms(box, names, days - 1)
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder)) as box:
        found = measure(box, args.days)
    for name, value in found.items():
        print(f"{name:<24} {value:14,.1f}")
    if args.json:
        Path(args.json).write_text(json.dumps({"results": found}), encoding="utf-8")


if __name__ == "__main__":
    main()
