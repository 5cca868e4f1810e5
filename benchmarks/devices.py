"""Many devices with one record each: memory, the status page, paging through latest, and one save of them all.

python -m benchmarks.devices [--devices 100000] [--json FILE]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.memory import sample
from benchmarks.report import Result
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


def measure(box: Box, devices: int) -> list[Result]:
    """Send, look, page, save."""
    send_s, _ = taken_s(lambda: send(box, devices))
    save_s, saved = taken_s(lambda: box.json("drain"))
    status_s, _ = taken_s(lambda: box.http.get("/status").raise_for_status())
    latest_s, counts = taken_s(lambda: list(pages(box)))
    if sum(counts) != devices:
        raise RuntimeError(f"latest knows {sum(counts)} devices, not {devices}")
    memory = sample(box)
    return [
        Result("send", send_s, "s"),
        Result("save", save_s, "s"),
        Result("saved", saved["saved"], "records"),
        Result("status", status_s, "s"),
        Result("latest_pages", latest_s, "s"),
        *(Result(f"memory_{name}", value, "MB PSS") for name, value in memory.items()),
        Result("memory", sum(memory.values()), "MB PSS"),
    ]


def main() -> None:
    """Run and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder), persist__flush_records="200000") as box:
        report.report(measure(box, args.devices), args.json)


if __name__ == "__main__":
    main()
