"""A load that lasts: HTTP and TCP senders at once while a reader pages through the day again and again.

python -m benchmarks.load [--seconds 300] [--rate 5000] [--json FILE]

Half of the 1,000 devices send over either way. Afterwards every acknowledged record must be once in
`/v1/records` and once in the archive, and `latest` must be right for each device.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmarks import report
from benchmarks.memory import sample
from benchmarks.report import Result
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from tests.box import PROJECT, Box

DEVICES = 1_000
SAMPLE_S = 5.0
PAGE_RECORDS = 5_000
MAX_MB = 700
MAX_FILES = 24
MAX_UNSAVED_S = 2 * 30


class Sample(NamedTuple):
    """The box at one moment of the load."""

    unsaved: int
    oldest_unsaved_s: float
    memory_mb: dict[str, float]
    open_files: int


def send(box: Box, over: str, seed: int, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Start a sender of half of the devices."""
    command = [sys.executable, "-m", "cli.main", "simulate", "--over", over, "--devices", str(DEVICES // 2)]
    command += ["--seed", str(seed), "--start", datetime.now(UTC).date().isoformat(), "--rate", str(rate)]
    command += ["--duration", str(seconds), "--quiet", "--json"]
    return subprocess.Popen(command, cwd=PROJECT, env=box.environ, text=True, stdout=subprocess.PIPE)


class Reader(threading.Thread):
    """Pages through the day until told to stop; what it saw once must be there again, and nothing twice."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.walks, self.pages, self.doubled, self.shrunk = 0, 0, 0, 0
        self.page_ms: list[float] = []
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{box.api_port}", timeout=60)
        self._seen = 0

    def run(self) -> None:
        """Walk and walk."""
        while not self.stopped.is_set():
            ids = self.walk()
            self.doubled += len(ids) - len(set(ids))
            self.shrunk += len(ids) < self._seen and not self.stopped.is_set()
            self._seen = max(self._seen, len(ids))
            self.walks += 1

    def walk(self, to_the_end: bool = False) -> list[int]:
        """The ids of all records, page by page."""
        ids: list[int] = []
        cursor = ""
        while to_the_end or not self.stopped.is_set():
            start = time.perf_counter()
            answer = self._http.get("/v1/records", params={"limit": PAGE_RECORDS, "cursor": cursor})
            answer.raise_for_status()
            self.page_ms.append((time.perf_counter() - start) * 1_000)
            page = answer.json()
            ids += [record["id"] for record in page["records"]]
            self.pages += 1
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return ids


def look(box: Box) -> Sample:
    """Take a sample."""
    facts = box.http.get("/status", headers={"Accept": "application/json"}).json()
    today = datetime.now(UTC).date().isoformat()
    files = next((day["files"] for day in facts["newest_days"] if day["day"] == today), 0)
    return Sample(facts["unsaved_records"], facts["oldest_unsaved_age_s"] or 0.0, sample(box), files)


def wrong_latest(box: Box, connection: Any, files: list[str]) -> int:
    """Devices whose latest isn't the record with the greatest timestamp."""
    rows = connection.execute(
        "SELECT device_id, max(epoch_us(timestamp)) FROM read_parquet($1) GROUP BY device_id", [files]
    ).fetchall()
    latest = {}
    for one in box.http.get("/v1/latest", params={"limit": 50_000}).json()["records"]:
        latest[one["device_id"]] = round(datetime.fromisoformat(one["timestamp"]).timestamp() * 1e6)
    return sum(latest.get(device) != newest for device, newest in rows) + abs(len(latest) - len(rows))  # type: ignore[no-any-return]


def measure(box: Box, seconds: float, rate: float) -> list[Result]:
    """Load the box, then check it."""
    senders = [send(box, over, seed, rate / 2, seconds) for seed, over in ((1, "http"), (2, "tcp"))]
    reader = Reader(box)
    reader.start()
    samples: list[Sample] = []
    while any(sender.poll() is None for sender in senders):
        time.sleep(SAMPLE_S)
        samples.append(look(box))
    said = [json.loads(sender.communicate()[0].splitlines()[-1]) for sender in senders]
    reader.stopped.set()
    reader.join()
    box.json("drain")
    archive = Archive(box.data / "archive")
    files = archive.files(archive.open())
    with open_duckdb() as connection:
        stored = Counter(row[0] for row in connection.execute("SELECT id FROM read_parquet($1)", [files]).fetchall())
        wrong = wrong_latest(box, connection, files)
    paged = Counter(reader.walk(to_the_end=True))
    accepted = sum(one["accepted"] for one in said)
    top = max(samples, key=lambda one: sum(one.memory_mb.values()))
    return [
        Result("accepted", accepted, "records"),
        Result("rate", accepted / seconds, "records/s"),
        Result("not_stored", abs(accepted - len(stored)), "records", 0),
        Result("stored_twice", stored.total() - len(stored), "records", 0),
        Result("not_paged", abs(accepted - len(paged)), "records", 0),
        Result("paged_twice", paged.total() - len(paged), "records", 0),
        Result("reader_walks", reader.walks, "walks"),
        Result("reader_doubled", reader.doubled, "records", 0),
        Result("reader_shrunk", reader.shrunk, "walks", 0),
        Result("page", statistics.median(reader.page_ms), "ms"),
        Result("wrong_latest", wrong, "devices", 0),
        Result("unsaved_most", max(one.unsaved for one in samples), "records"),
        Result("unsaved_oldest", max(one.oldest_unsaved_s for one in samples), "s", MAX_UNSAVED_S),
        Result("open_files_most", max(one.open_files for one in samples), "files", MAX_FILES),
        *(Result(f"memory_{name}", value, "MB PSS") for name, value in top.memory_mb.items()),
        Result("memory_most", sum(top.memory_mb.values()), "MB PSS", MAX_MB),
    ]


def main() -> None:
    """Run and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="how long records are sent")
    parser.add_argument("--rate", type=float, default=5_000, help="records a second, of both senders together")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder)) as box:
        report.report(measure(box, args.seconds, args.rate), args.json)


if __name__ == "__main__":
    main()
