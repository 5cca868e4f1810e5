"""How what each process counts comes together: it tells its meters once a second, and the API program listens.

They are told over a channel of Redis, not kept in a key: with `appendfsync always` a key of each of seven processes
would be seven fsyncs a second and hundreds of MB of AOF a day. Who is not heard for `SILENT_S` is taken to be down; of
what it said last, its counts stay true, while its gauges are of no worth any more.

A count begins with its process. Prometheus knows a counter that begins anew; what was counted within the last second
before a kill is lost to the page, never to the records. Refusals alone are added up in Redis for ever
(rejection_counts.py).
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

TELL_S = 1.0
SILENT_S = 10.0
"""Ten reports missed: a process that decodes a large body or writes a save may miss some."""

WAIT_S = 0.5
"""How long a listener waits at once, and so takes to end at most; and pauses while Redis is away."""

PROCESS = Path("/proc/self")


class Report(Struct, frozen=True, array_like=True):
    """What a process has counted: family → labels and value of each member. `process` tells several of a program
    apart, from 0; times are s since epoch."""

    program: str
    process: int
    version: str
    python: str
    started_s: float
    samples: dict[str, list[tuple[tuple[str, ...], Value]]]

    @property
    def name(self) -> tuple[str, int]:
        """Who says it."""
        return self.program, self.process


class Teller:
    """What a process says of itself."""

    def __init__(self, program: str, process: int = 0) -> None:
        self._program = program
        self._process = process
        self._version = version("whimbrel")
        self._started_s = time.time()
        corruption.count_from_zero()
        periodic.count_from_zero("meters")

    def report(self) -> Report:
        """All its meters now."""
        _measure_process()
        samples = {name: list(family.read()) for name, family in metrics.FAMILIES.items()}
        told = {name: found for name, found in samples.items() if found}
        return Report(self._program, self._process, self._version, platform.python_version(), self._started_s, told)


def _measure_process() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    metrics.CPU_S.one.value = used.ru_utime + used.ru_stime
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    metrics.OPEN_FILES_LIMIT.one.set(soft)
    with contextlib.suppress(OSError, IndexError, ValueError):  # where there is no /proc
        metrics.OPEN_FILES.one.set(len(os.listdir(PROCESS / "fd")))
        pages = int((PROCESS / "statm").read_text().split()[1])
        metrics.RESIDENT_BYTES.one.set(pages * resource.getpagesize())


@contextlib.contextmanager
def told(connect: Callable[[], redis.Redis], teller: Teller) -> Iterator[None]:
    """Within this a thread tells what is counted, once a second, and once more at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=_tell_until, args=(stop, connect, teller), name="meters", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)


def _tell_until(stop: threading.Event, connect: Callable[[], redis.Redis], teller: Teller) -> None:
    with connect() as client:
        is_over = False
        while not is_over:
            is_over = stop.wait(TELL_S)
            try:
                shared_state.tell_meters(client, msgspec.msgpack.encode(teller.report()))
            except (StoreError, BusyError) as error:
                log.debug("nobody is told what was counted: %s", error)
            except Exception:  # a meter that can't be read must not silence the others for good
                periodic.note_error("meters")


class Listener:
    """What all processes of the box said last, heard in a thread of its own."""

    def __init__(self, connect: Callable[[], redis.Redis], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._monotonic = monotonic
        self._heard: dict[tuple[str, int], tuple[Report, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen_for_ever, name="reports", daemon=True)
        periodic.count_from_zero("reports")

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(2 * WAIT_S)

    def heard(self) -> dict[tuple[str, int], tuple[Report, float]]:
        """Who was ever heard → what it said last, and how many seconds ago."""
        now_s = self._monotonic()
        return {name: (report, now_s - at_s) for name, (report, at_s) in list(self._heard.items())}

    def hear(self, data: bytes) -> None:
        """Take note of a report; one of another release that says it otherwise is left out."""
        try:
            report = msgspec.msgpack.decode(data, type=Report)
        except msgspec.DecodeError as error:
            log.warning("what a program counted can't be read: %s", error)
            return
        self._heard[report.name] = report, self._monotonic()

    def _listen_for_ever(self) -> None:
        while not self._stop.is_set():
            try:
                with self._connect() as client, client.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(shared_state.METERS)
                    self._listen(channel)
            except redis.RedisError as error:
                log.debug("nothing is heard of what was counted: %s", error)
                self._stop.wait(WAIT_S)
            except Exception:  # the thread must not end
                periodic.note_error("reports")
                self._stop.wait(WAIT_S)

    def _listen(self, channel: redis.client.PubSub) -> None:
        """Listen until nothing is heard any more, not even what this process tells itself: then anew."""
        heard_s = self._monotonic()
        while not self._stop.is_set() and self._monotonic() - heard_s < SILENT_S:
            message = channel.get_message(timeout=WAIT_S)
            if message is not None and message["type"] == "message":
                heard_s = self._monotonic()
                self.hear(message["data"])


def is_up(age_s: float) -> bool:
    """Whether a process that was heard so many seconds ago is taken to work."""
    return age_s <= SILENT_S
