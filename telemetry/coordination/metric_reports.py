"""Collects metrics of all processes: each publishes its metrics once a second, and the API program subscribes.

Metrics are published on a Redis channel and not stored in keys: with `appendfsync always`, a key per process would cost
an fsync per second each, and hundreds of MB of AOF a day. A process without a report for `SILENT_S` counts as down. Its
last counters stay valid, its gauges do not.

Counters start at 0 with their process, which Prometheus handles. A kill loses the metrics of the last second, never
records. Only rejections are summed in Redis permanently (rejection_counts.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import resource
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import redis
from msgspec import Struct

from telemetry.coordination import shared_state
from telemetry.hot_store import corruption
from telemetry.model.errors import BusyError, StoreError
from telemetry.observability import metrics
from telemetry.observability.metric_types import Value
from telemetry.system import periodic

log = logging.getLogger(__name__)

PUBLISH_S = 1.0
SILENT_S = 10.0
"""Ten missed reports: a process that decodes a large body or writes a save may miss some."""

WAIT_S = 0.5
"""Timeout of one wait of the listener, which limits the duration of `stop`, s; also its pause while Redis is
unreachable."""

PROCESS = Path("/proc/self")


class Report(Struct, frozen=True, array_like=True):
    """Metrics of a process: family → labels and value of each member. `process` numbers several processes of a program
    from 0; times are s since epoch."""

    program: str
    process: int
    version: str
    python: str
    started_s: float
    samples: dict[str, list[tuple[tuple[str, ...], Value]]]

    @property
    def name(self) -> tuple[str, int]:
        """Program and number of the process."""
        return self.program, self.process


class Reporter:
    """Makes the reports of a process."""

    def __init__(self, program: str, process: int = 0) -> None:
        self._program = program
        self._process = process
        self._version = version("whimbrel")
        self._started_s = time.time()
        corruption.count_from_zero()
        periodic.count_from_zero("meters")

    def report(self) -> Report:
        """The current values of all metrics."""
        _measure_process()
        samples = {name: list(family.read()) for name, family in metrics.FAMILIES.items()}
        known = {name: values for name, values in samples.items() if values}
        return Report(self._program, self._process, self._version, platform.python_version(), self._started_s, known)


def _measure_process() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    metrics.CPU_S.one.value = used.ru_utime + used.ru_stime
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    metrics.OPEN_FILES_LIMIT.one.set(soft)
    with contextlib.suppress(OSError, IndexError, ValueError):  # on systems without /proc
        metrics.OPEN_FILES.one.set(len(os.listdir(PROCESS / "fd")))
        pages = int((PROCESS / "statm").read_text().split()[1])
        metrics.RESIDENT_BYTES.one.set(pages * resource.getpagesize())


@contextlib.contextmanager
def publishing(connect: Callable[[], redis.Redis], reporter: Reporter) -> Iterator[None]:
    """Context with a thread that publishes the metrics once a second, and once more at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=_publish_until, args=(stop, connect, reporter), name="meters", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)


def _publish_until(stop: threading.Event, connect: Callable[[], redis.Redis], reporter: Reporter) -> None:
    with connect() as client:
        is_over = False
        while not is_over:
            is_over = stop.wait(PUBLISH_S)
            try:
                shared_state.publish_metrics(client, msgspec.msgpack.encode(reporter.report()))
            except (StoreError, BusyError) as error:
                log.debug("cannot publish metrics: %s", error)
            except Exception:  # a metric that cannot be read must not stop the reports
                periodic.note_error("meters")


class Listener:
    """The last reports of all processes, received in a thread."""

    def __init__(self, connect: Callable[[], redis.Redis], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._monotonic = monotonic
        self._reports: dict[tuple[str, int], tuple[Report, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen_for_ever, name="reports", daemon=True)
        periodic.count_from_zero("reports")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(2 * WAIT_S)

    def reports(self) -> dict[tuple[str, int], tuple[Report, float]]:
        """Process → its last report, and the report's age in seconds."""
        now_s = self._monotonic()
        return {name: (report, now_s - at_s) for name, (report, at_s) in list(self._reports.items())}

    def receive(self, data: bytes) -> None:
        """Store a report; one in the format of another release is skipped."""
        try:
            report = msgspec.msgpack.decode(data, type=Report)
        except msgspec.DecodeError as error:
            log.warning("cannot decode a metrics report: %s", error)
            return
        self._reports[report.name] = report, self._monotonic()

    def _listen_for_ever(self) -> None:
        while not self._stop.is_set():
            try:
                with self._connect() as client, client.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(shared_state.METERS)
                    self._listen(channel)
            except redis.RedisError as error:
                log.debug("cannot receive metrics reports: %s", error)
                self._stop.wait(WAIT_S)
            except Exception:  # the thread must continue
                periodic.note_error("reports")
                self._stop.wait(WAIT_S)

    def _listen(self, channel: redis.client.PubSub) -> None:
        """Receive until no report arrives, not even this process's own; then subscribe again."""
        heard_s = self._monotonic()
        while not self._stop.is_set() and self._monotonic() - heard_s < SILENT_S:
            message = channel.get_message(timeout=WAIT_S)
            if message is not None and message["type"] == "message":
                heard_s = self._monotonic()
                self.receive(message["data"])


def is_up(age_s: float) -> bool:
    """True if a process whose report has this age counts as running."""
    return age_s <= SILENT_S
