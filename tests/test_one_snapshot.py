"""Four writers, the worker, the compactor, retention, the sweep and four readers run together; rows are compared.

Guarantees for a reader. For days that are kept: a set of pages has every record that was acknowledged before its first
page, once, as it was sent, under one id. Retention deletes a day as a whole, and late records begin it again. So a page
of such a day has each device's newest records without a gap, and deleted records do not come back.
"""

from __future__ import annotations

import random
import re
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.crash_ledger.faults import tidy
from benchmarks.crash_ledger.http_sender import HttpWay
from benchmarks.crash_ledger.ledger import NEVER, Entry, Ledger
from benchmarks.crash_ledger.readback import read_back
from benchmarks.crash_ledger.readers import DAY_US, MOST_RECORDS, Pages, Range, Reader
from benchmarks.crash_ledger.run import SETTINGS
from benchmarks.crash_ledger.senders import LAST_DAYS, Sender, Way
from benchmarks.crash_ledger.steps import Steps
from benchmarks.crash_ledger.tcp_senders import Frames, JsonLines
from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.system.failpoints import VARIABLE
from tests.box import PROJECT, Box
from tests.senders import Beside, reasons, wait_until

pytestmark = pytest.mark.slow

SECONDS, MOST_SECONDS = 12.0, 120.0
"""At least, and until all that must be seen was seen."""

LEAST_STEPS = {"save done": 10, "compact done": 5, "compact give up": 4, "sweep delete": 1}
"""How often each must have been reached beside readers."""

LEAST_LATE, LEAST_SETS, LEAST_SHRUNK = 1_000, 2, 2
"""Records of days that are over, sets of pages of each reader, and days that a reader saw go: more than so many."""

RETENTION_DAYS = 10
GIVEN_UP = (12, 13)
"""Days before today that are given up whenever retention looks; far enough from those kept, should midnight come."""

TIDY_S = 1.5
MANY_DEVICES = 1_500
"""Three chunks of a trim, and tails that take sixty pipelines to read: saves end in the middle of that."""

READ_S = 0.1


class Tidy(Beside):
    """Asks for retention and sweep again and again."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def _run(self) -> None:
        while not self._stopped.wait(TIDY_S):
            tidy(self._settings)


class DaysGivenUp(Beside):
    """Reads the days that are given up, each time in one page, and sees that each is there from some record on."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        super().__init__()
        self.shrunk = 0
        self._ledger = ledger
        self._pages = Pages(port, ledger, self._stopped)
        self._span = Range(None, 1, ledger.kept_from_us, limit=MOST_RECORDS)
        self._gone: set[str] = set()

    def _run(self) -> None:
        while not self._stopped.wait(READ_S):
            since_s = time.monotonic()
            due = [entry for entry in list(self._ledger.entries) if self._is_due(entry, since_s)]
            rows = self._pages.check(self._span)
            if rows is not None:
                self._hold_against(due, {row.key for row in rows})
        self._pages.close()

    def _is_due(self, entry: Entry, since_s: float) -> bool:
        return not self._ledger.is_kept(entry) and entry.must_show(since_s)

    def _hold_against(self, due: list[Entry], found: set[str]) -> None:
        if back := found & self._gone:
            self._ledger.anomaly("given up, then back", f"{len(back)}: {sorted(back)[:3]}")
        for (device, day), entries in by_day(due).items():
            shown = [entry.key in found for entry in entries]
            if shown != sorted(shown):
                self._ledger.anomaly("given up in part", f"{device}, day {day}: {shown}")
        gone = {entry.key for entry in due} - found
        self.shrunk += bool(gone - self._gone)
        self._gone |= gone


def by_day(entries: list[Entry]) -> dict[tuple[str, int], list[Entry]]:
    """The records of each device and day, in the order in which they were stored: that in which they were sent, since
    who sends them repeats each batch until it is answered."""
    found: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.device_id, entry.timestamp_us // DAY_US].append(entry)
    return found


def writers(box: Box, ledger: Ledger) -> list[Sender]:
    """Four ways to the box. Those that repeat what was not answered send to the days that are given up, too."""
    days = (*LAST_DAYS, *GIVEN_UP)
    ports = (box.http_port,)
    complain = partial(ledger.anomaly, "wrong answer to a sender")

    def sender(
        name: str, way: Way, every_s: float, devices: int = 5, least: int = 1, days: Sequence[int] = days
    ) -> Sender:
        return Sender(name, ledger, way, random.Random(name), devices, (least, max(least, 6)), every_s, days)

    many = HttpWay(ports, "msgpack", True, True, complain)
    return [
        sender("http-json", HttpWay(ports, "json", True, False, complain), 0.1),
        sender("http-many", many, 3.0, MANY_DEVICES, MANY_DEVICES),
        sender("tcp-frames", Frames(box.tcp_port, True, complain), 0.1),
        sender("tcp-json", JsonLines(box.tcp_port, complain), 0.1, days=LAST_DAYS),
    ]


@contextmanager
def running(threads: list[Sender] | list[Reader], stop: Callable[[], None]) -> Iterator[None]:
    """Start threads; in the end stop them and wait for them."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop()
        for thread in threads:
            thread.join()


def readers(box: Box, ledger: Ledger, devices: list[str], stopping: threading.Event) -> list[Reader]:
    """Two of ranges that are drawn, and a slow one of all there is. `DaysGivenUp` is the fourth."""
    return [
        Reader(f"reader {number}", Pages(box.api_port, ledger, stopping, number == 0), random.Random(number), devices)
        for number in range(3)
    ]


class Seen(NamedTuple):
    """What was there to see, for as long as it takes."""

    ledger: Ledger
    steps: Steps
    pages: list[Reader]
    given_up: DaysGivenUp

    def missing(self) -> list[str]:
        """Observations that are not frequent enough yet."""
        over_us = (time.time_ns() // 1_000 // DAY_US - 1) * DAY_US
        late = sum(entry.timestamp_us < over_us for entry in list(self.ledger.entries))
        found = [step for step, least in LEAST_STEPS.items() if self.steps.reached[step] < least]
        found += ["late records"] if late <= LEAST_LATE else []
        found += [one.name for one in self.pages if one.pages.sets <= LEAST_SETS]
        return found + (["days that go"] if self.given_up.shrunk <= LEAST_SHRUNK else [])


def send_and_read(box: Box, ledger: Ledger, settings: Settings, steps: Steps) -> Seen:
    """All at once, then all of it saved."""
    senders = writers(box, ledger)
    reading = threading.Event()
    pages = readers(box, ledger, [device for one in senders for device in one.devices], reading)
    given_up = DaysGivenUp(box.api_port, ledger)
    seen = Seen(ledger, steps, pages, given_up)

    def stop_sending() -> None:
        for one in senders:
            one.stop(time.monotonic() + 30)

    with running(pages, reading.set), given_up:
        with running(senders, stop_sending), Tidy(settings):
            time.sleep(SECONDS)
            end_s = time.monotonic() + MOST_SECONDS - SECONDS
            while seen.missing() and time.monotonic() < end_s:
                time.sleep(READ_S)
        wait_until(lambda: box.json("status")["unsaved_records"] == 0)
    return seen


def records_given_up(box: Box) -> int:
    """As the box's log counts them."""
    found = re.findall(r"is beyond retention: deleted (\d+) records in \d+ files", "".join(box.output))
    return sum(map(int, found))


@pytest.mark.timeout(300)
def test_all_at_once_and_each_page_is_right() -> None:
    today = time.time_ns() // 1_000 // DAY_US
    ledger = Ledger(kept_from_us=(today - RETENTION_DAYS) * DAY_US)
    with tempfile.TemporaryDirectory(prefix="pages-") as folder:
        box = Box(Path(folder), (), PROJECT, **SETTINGS, archive__retention_days=str(RETENTION_DAYS))
        settings = load(environ={name: value for name, value in box.environ.items() if name.startswith("WHIMBREL__")})
        steps = Steps(Path(folder) / "steps.sock", lambda _: None)
        box.environ[VARIABLE] = str(Path(folder) / "steps.sock")
        steps.start()
        with box:
            seen = send_and_read(box, ledger, settings, steps)
            verdict = ledger.judge(read_back(box.api_port, box.data / "archive", ledger))
            assert reasons(box) == []
            assert box.stop() == 0
        steps.close()
    assert (ledger.anomalies, verdict.lost, verdict.doubled) == ({}, 0, 0), [*verdict.offenders, *ledger.named]

    acknowledged = sum(entry.acked_s < NEVER for entry in ledger.entries)
    assert acknowledged <= verdict.stored + records_given_up(box) <= len(ledger.entries)
    assert seen.missing() == []
