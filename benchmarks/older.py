"""The older service's latest and list pages, as one of its clients asks for them, over one keep-alive connection.

python -m benchmarks.older [--records 1000000] [--order time|device|arrival] [--json FILE]

Records of 1,000 devices, spread evenly over one day, come by `POST /tracking/data/`: in the order of their
times, one device after the other, or without a timestamp. The place of each is a text of its own. No page
is asked for twice in a row; of devices and random pages none is asked for twice at all. "after start" are pages of a
box that was stopped and started, the first one asked a second after it said that it is ready.
"""

from __future__ import annotations

import http.client
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.report import Result
from telemetry.config.loader import load
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from tests.box import Box

DEVICES = 1_000
PER_REQUEST = 5_000
PER_PAGE = 50
ROUNDS = 21
DAY = datetime(2026, 11, 20, tzinfo=UTC)
AIMS_MS = {"latest": 1.0, "first_page": 30.0, "page_1000": 30.0, "page_last": 30.0, "page_random": 30.0, "day": 60.0}
AIMS_AFTER_START_MS = {"first_after_start": 60.0, "deep_after_start": 30.0}
RESTARTS = 5


def made(records: int, order: str, seed: int) -> Iterator[dict[str, Any]]:
    """The records to send."""
    dice = random.Random(seed)
    per_device = records // DEVICES
    for n in range(records):
        device, number = divmod(n, per_device) if order == "device" else (n % DEVICES, n // DEVICES)
        one: dict[str, Any] = {
            "device_id": f"bus-{device:04}",
            "location": f"{dice.uniform(36, 42):.6f},{dice.uniform(26, 45):.6f}",
            "speed": round(dice.uniform(0, 120), 1),
        }
        if order != "arrival":
            at = DAY + timedelta(days=1) * ((number + device / DEVICES) / per_device)
            one["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield one


class Client:
    """One connection of a client of the older service."""

    def __init__(self, box: Box) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", box.api_port)

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON of a good answer."""
        headers = {"Content-Type": "application/json"} if body else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 202):
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)

    def list_of(self, **arguments: object) -> Any:
        """One page of the list."""
        return self.ask("GET", "/tracking/data/list/?" + "&".join(f"{name}={v}" for name, v in arguments.items()))


def fill(box: Box, client: Client, records: int, order: str) -> None:
    """Send all and wait until all are saved."""
    batch: list[dict[str, Any]] = []
    for one in tqdm(made(records, order, seed=1), total=records, unit="record", disable=None):
        batch.append(one)
        if len(batch) == PER_REQUEST:
            client.ask("POST", "/tracking/data/", json.dumps(batch).encode())
            batch = []
    with connect(load(environ=box.environ)) as redis:
        [shard] = hot.attach(redis, 1)
        while shard.unsaved():
            time.sleep(0.2)


def taken_ms(ask: Callable[[], object]) -> float:
    """How long one call took."""
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1_000


def measure(client: Client, records: int) -> dict[str, list[float]]:
    """Times in ms of each kind of question."""
    dice, last = random.Random(2), records // PER_PAGE
    first = taken_ms(client.list_of)
    if client.list_of()["count"] != records:
        raise RuntimeError("the count is not exact")
    found: dict[str, list[float]] = {"first_ever": [first], **{name: [] for name in AIMS_MS}}
    devices = dice.sample(range(DEVICES), ROUNDS)
    for device, page in zip(devices, dice.sample(range(1, last + 1), ROUNDS), strict=True):
        found["latest"].append(taken_ms(lambda: client.ask("GET", f"/tracking/data/latest/bus-{device:04}/")))  # noqa: B023
        found["first_page"].append(taken_ms(client.list_of))
        found["page_1000"].append(taken_ms(lambda: client.list_of(page=min(1_000, last))))
        found["page_last"].append(taken_ms(lambda: client.list_of(page="last")))
        found["page_random"].append(taken_ms(lambda: client.list_of(page=page)))  # noqa: B023
        found["day"].append(taken_ms(lambda: whole_day(client, f"bus-{device:04}", records // DEVICES)))  # noqa: B023
    return found


def whole_day(client: Client, device_id: str, expected: int) -> None:
    """All pages of one device's day."""
    seen, page = 0, 1
    while True:
        answer = client.list_of(device_id=device_id, start_date="2026-11-20", end_date="2030-01-01", page=page)
        seen += len(answer["results"])
        if answer["next"] is None:
            break
        page += 1
    if seen != expected:
        raise RuntimeError(f"{seen} records of {device_id}, not {expected}")


def measure_starts(box: Box) -> dict[str, list[float]]:
    """The same of the first page, and of one deep in the list, after starts of the box."""
    found: dict[str, list[float]] = {name: [] for name in AIMS_AFTER_START_MS}
    for number in range(RESTARTS):
        box.stop()
        box.start()
        time.sleep(1)
        client = Client(box)
        found["first_after_start"].append(taken_ms(client.list_of))
        found["deep_after_start"].append(taken_ms(lambda: client.list_of(page=1_000 * (number + 1))))  # noqa: B023
    return found


def main() -> None:
    """Run and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="a multiple of 50,000")
    parser.add_argument("--order", choices=("time", "device", "arrival"), default="time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder), persist__flush_seconds="1") as box:
        client = Client(box)
        fill(box, client, args.records, args.order)
        files = len(list((box.data / "archive").glob("date=*/*.parquet")))
        found = measure(client, args.records) | measure_starts(box)
    print(f"{args.records} records in the order of {args.order}, {files} files")
    results, aims = [], AIMS_MS | AIMS_AFTER_START_MS
    for name, times in found.items():
        results.append(Result(f"older_{name}", statistics.median(times), "ms", aims.get(name)))
        results.append(Result(f"older_{name}_worst", max(times), "ms"))
    report.report(results, args.json)


if __name__ == "__main__":
    main()
