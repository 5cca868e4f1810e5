"""What forwarding costs: an archive that waits to be sent to another Whimbrel, to an HTTP endpoint, and to S3.

    python -m benchmarks.forwards [--quick] [--json FILE]

The rate is that at which the receiver has taken records, one batch after the other as the courier sends them; CPU is
that of the courier. The other Whimbrel is a box on the same machine, the endpoint a server that reads and forgets.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import archives, report
from benchmarks.boxes import box
from benchmarks.report import Finding, Missing, Result
from telemetry.archive.table import Archive
from telemetry.config.settings import Forward
from tests.worker.courier.bucket import BUCKET, KEYS, MOTO, Moto
from tests.worker.courier.forwards import Forwards
from tests.worker.courier.forwards import run as send_all
from worker.courier.delivery.state_db import Store

DEVICES, DAYS = 200, 5
A_DAY, QUICK_A_DAY = archives.A_DAY, 100
"""Records of a device a day: one of these is a save and a file."""


class Sink(BaseHTTPRequestHandler):
    """Reads what is posted, and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response_only(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _serve(pipe: Connection) -> None:
    server = HTTPServer(("127.0.0.1", 0), Sink)
    pipe.send(server.server_port)
    server.serve_forever()


@contextmanager
def sink() -> Iterator[str]:
    """The URL of an endpoint in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ours.recv()}/in"
    process.kill()
    process.join()


@contextmanager
def bucket() -> Iterator[str]:
    """The endpoint of an S3 that has a bucket."""
    moto = Moto()
    try:
        moto.make(BUCKET)
        yield f"http://127.0.0.1:{moto.port}"
    finally:
        moto.close()


def measure(archive: Archive, records: int, entry: Forward) -> Iterator[Result]:
    """Send all of it."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        found = Forwards(archive, store)(entry)
        start_s, cpu_s = time.perf_counter(), time.process_time()
        send_all(found)
        took_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        behind = found.report().behind_records
        found.close()
        store.close()
    if behind:
        raise RuntimeError(f"{behind} records were not sent")
    yield Result(f"forward_{entry.name}", records / took_s, "records/s")
    yield Result(f"forward_{entry.name}_cpu", 1e6 * cpu_s / records, "µs a record")


def run(quick: bool) -> Iterator[Finding]:
    """All three, one after the other."""
    a_day = QUICK_A_DAY if quick else A_DAY
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        archive = Archive(Path(folder) / "archive")
        archives.add_days(archive, archives.one_day(DEVICES, a_day), 0, DAYS)
        records = DEVICES * a_day * DAYS
        with box() as other:
            url = f"whimbrel://127.0.0.1:{other.tcp_port}"
            yield from measure(archive, records, Forward(name="whimbrel", url=url, start="all"))
        with sink() as url:
            yield from measure(archive, records, Forward(name="http", url=url, start="all"))
        if not MOTO.exists():
            yield Missing("forward_s3", "scripts/install-moto was not run")
            return
        with bucket() as endpoint:
            more: dict[str, Any] = {"s3_endpoint": endpoint, **KEYS}
            yield from measure(archive, records, Forward(name="s3", url=f"s3://{BUCKET}/box", **more))


if __name__ == "__main__":
    report.run_alone(__doc__, run)
