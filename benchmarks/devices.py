"""Many devices with one record each: memory, the status page, paging through latest, and one save of them all.

python -m benchmarks.devices [--devices 100000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.memory import sample
from tests.box import Box

PER_REQUEST = 5_000
PAGE_RECORDS = 5_000


def send(box: Box, devices: int) -> None:
    """One record of each device."""
    for first in range(0, devices, PER_REQUEST):
        records = [
            {"device_id": f"tag-{n:06}", "lat": 53 + n / 1e6, "lon": -2.9, "speed": n % 90, "fuel": 12, "sat": 7}
            for n in range(first, min(first + PER_REQUEST, devices))
        ]
        box.http.post("/v1/records", json=records).raise_for_status()


def pages(box: Box) -> Iterator[int]:
    """The number of devices on each page of latest."""
    cursor = ""
    while cursor is not None:
        page = box.http.get("/v1/latest", params={"limit": PAGE_RECORDS, "cursor": cursor}).json()
        yield len(page["records"])
        cursor = page["next_cursor"]


def taken_s(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took, and what it gave."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def measure(box: Box, devices: int) -> dict[str, float]:
    """Send, look, page, save."""
    found: dict[str, float] = {}
    found["send_s"], _ = taken_s(lambda: send(box, devices))
    found["save_s"], saved = taken_s(lambda: box.json("drain"))
    found["saved"] = saved["saved"]
    found["status_s"], _ = taken_s(lambda: box.http.get("/status").raise_for_status())
    found["latest_pages_s"], counts = taken_s(lambda: list(pages(box)))
    found["latest_devices"] = sum(counts)
    if found["latest_devices"] != devices:
        raise RuntimeError(f"latest knows {sum(counts)} devices, not {devices}")
    memory = sample(box)
    return found | {f"memory_mb_{name}": value for name, value in memory.items()} | {"memory_mb": sum(memory.values())}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder), persist__flush_records="200000") as box:
        found = measure(box, args.devices)
    for name, value in found.items():
        print(f"{name:<32} {value:12,.2f}")
    if args.json:
        Path(args.json).write_text(json.dumps({"results": found}), encoding="utf-8")


if __name__ == "__main__":
    main()
