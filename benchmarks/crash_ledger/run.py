"""One run: a box, senders and readers, all faults, then quiet, and what the ledger says."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.crash_ledger.faults import Faults, tidy
from benchmarks.crash_ledger.http_sender import HttpWay
from benchmarks.crash_ledger.ledger import Ledger, Verdict
from benchmarks.crash_ledger.poison import Counts, Poison
from benchmarks.crash_ledger.programs import Programs
from benchmarks.crash_ledger.readback import read_back
from benchmarks.crash_ledger.readers import Pages, Reader
from benchmarks.crash_ledger.schedule import POINTS, schedule
from benchmarks.crash_ledger.senders import Sender, Way
from benchmarks.crash_ledger.steps import Steps
from benchmarks.crash_ledger.tcp_senders import BareMsgpack, Frames, JsonLines
from telemetry.config.loader import load
from telemetry.system.failpoints import VARIABLE
from tests.box import Box

SETTINGS = {
    "persist__flush_seconds": "1",
    "archive__max_open_files": "4",
    "archive__quiet_seconds": "5",
    "archive__grace_seconds": "6",
    "collector__processes": "2",
}
"""Saves and merges every second, files swept after six: each step is reached hundreds of times."""

MANY_DEVICES = 520
"""Of one shard: more than one chunk of a trim."""

READERS = 3
"""One of them a slow one."""

LOOK_S = 0.5
PATIENCE_S = 180.0
"""How long points that nobody has reached when the time is over are waited for, and then the box's quiet."""


class Run:
    """A run and what it found."""

    def __init__(self, box: Box, folder: Path, seed: int, seconds: float) -> None:
        settings = load(environ={name: value for name, value in box.environ.items() if name.startswith("WHIMBREL__")})
        self._many = MANY_DEVICES * settings.redis.shards
        self.ledger = Ledger()
        self.seed = seed
        self.seconds = seconds
        self.box = box
        box.environ[VARIABLE] = str(folder / "steps.sock")
        self.programs = Programs(box, folder / "second-worker.log")
        self.steps = Steps(folder / "steps.sock", self.programs.kill)
        self._tidy = partial(tidy, settings)
        self.poison = Poison(settings, box, self.ledger)
        self.faults = Faults(schedule(seed, seconds), self.programs, self.steps, self._tidy, self.poison)
        self.senders = [self._sender(name, *how) for name, how in self._ways().items()]
        self._counts = Counts()
        self._reading = threading.Event()
        devices = [device for sender in self.senders for device in sender.devices]
        self.readers = [self._reader(f"reader {number}", devices, number == 0) for number in range(READERS)]

    def _ways(self) -> dict[str, tuple[Way, int, tuple[int, int], float]]:
        """Name → how it sends, its number of devices, sizes of batches, seconds between two."""
        box, complain = self.box, lambda detail: self.ledger.anomaly("wrong answer to a sender", detail)
        ports = (box.http_port, box.api_port)

        def http(form: str, is_named: bool, is_packed: bool = False) -> HttpWay:
            return HttpWay(ports if is_named else ports[:1], form, is_named, is_packed, complain)

        return {
            "http-json-key": (http("json", True), 5, (1, 8), 0.3),
            "http-msgpack-key": (http("msgpack", True, is_packed=True), 5, (1, 8), 0.3),
            "http-ndjson-key-many": (http("ndjson", True), self._many, (self._many, self._many), 3.0),
            "http-json": (http("json", False), 5, (1, 8), 0.3),
            "http-msgpack": (http("msgpack", False), 5, (1, 8), 0.3),
            "tcp-frames-named": (Frames(box.tcp_port, True, complain), 5, (1, 4), 0.3),
            "tcp-frames": (Frames(box.tcp_port, False, complain), 5, (1, 4), 0.5),
            "tcp-json": (JsonLines(box.tcp_port, complain), 5, (1, 4), 0.3),
            "tcp-msgpack": (BareMsgpack(box.tcp_port, complain), 5, (1, 8), 0.3),
        }

    def _sender(self, name: str, way: Way, devices: int, sizes: tuple[int, int], every_s: float) -> Sender:
        return Sender(name, self.ledger, way, random.Random(f"{self.seed} {name}"), devices, sizes, every_s)

    def _reader(self, name: str, devices: Sequence[str], is_slow: bool) -> Reader:
        pages = Pages(self.box.api_port, self.ledger, self._reading, is_slow)
        return Reader(name, pages, random.Random(f"{self.seed} {name}"), devices)

    def carry_out(self) -> dict[str, Any]:
        """Do all of it. Returns the summary."""
        start_s = time.monotonic()
        self.steps.start()
        with self._ending():
            self.programs.start()
            for thread in (*self.senders, *self.readers, self.faults):
                thread.start()
            self._watch()
            quiet_s = time.monotonic()
            verdict = self._settle()
        return self._summary(verdict) | {
            "storm_s": round(quiet_s - start_s, 1),
            "all_s": round(time.monotonic() - start_s, 1),
        }

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Whatever happens, nothing of it stays."""
        try:
            yield
        finally:
            self.faults.stopping.set()
            self._reading.set()
            for sender in self.senders:
                sender.stop(0)
            self.programs.end()
            self.steps.close()

    def _watch(self) -> None:
        """Show how it goes, until the time is over and every point was reached, or patience ends."""
        start_s = time.monotonic()
        with tqdm(total=round(self.seconds), unit=" s", leave=False, disable=None) as bar:
            while self.faults.is_alive() or self.steps.waiting:
                passed_s = time.monotonic() - start_s
                if passed_s > self.seconds + PATIENCE_S:
                    break
                if passed_s > self.seconds:
                    self._tidy()
                if not self.faults.is_alive():
                    self.poison.put()  # as it did: without an entry that nobody can read no save comes to that point
                bar.update(round(min(passed_s, self.seconds)) - bar.n)
                bar.set_postfix_str(f"{len(self.ledger.entries)} records, {self.ledger.anomalies.total()} anomalies")
                time.sleep(LOOK_S)
        self.faults.stopping.set()

    def _settle(self) -> Verdict:
        """No more faults: everything is sent to its end, everything saved, everything read back."""
        self.steps.forget()
        end_s = time.monotonic() + PATIENCE_S
        self._await("every program running", lambda: not self.steps.is_any_stopped and self._is_ready(), end_s)
        for sender in self.senders:
            sender.stop(end_s)
        for sender in self.senders:
            sender.join()
        self._await("everything saved", self._is_saved, end_s)
        self.poison.replay_all()
        self._counts = self.poison.counts()
        self._await("everything saved that was in quarantine", self._is_saved, end_s)
        self._reading.set()
        for reader in self.readers:
            reader.join()
        return self.ledger.judge(read_back(self.box.api_port, self.box.data / "archive", self.ledger))

    def _await(self, what: str, is_so: Callable[[], bool], end_s: float) -> None:
        while not is_so():
            if time.monotonic() > end_s:
                self.ledger.anomaly("no quiet", f"not {what} after {PATIENCE_S:.0f} s")
                return
            time.sleep(LOOK_S)

    def _is_ready(self) -> bool:
        try:
            return self.box.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _is_saved(self) -> bool:
        """As the command counts, for the page of the API may show what was some seconds ago."""
        done = self.box.whimbrel("status", "--json")
        return done.returncode == 0 and json.loads(done.stdout)["unsaved_records"] == 0

    def _summary(self, verdict: Verdict) -> dict[str, Any]:
        kills, stops = self.programs.kills, self.programs.stops
        pages: Sequence[Pages] = [reader.pages for reader in self.readers]
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "sent": len(self.ledger.entries),
            "acknowledged": verdict.acknowledged,
            "stored": verdict.stored,
            "unacknowledged_stored": verdict.unacknowledged_stored,
            "lost": verdict.lost,
            "doubled": verdict.doubled,
            "anomalies": self.ledger.anomalies.total(),
            "quarantined": self._counts.quarantined,
            "replayed": self._counts.replayed,
            "kills": kills.total() + self.steps.kills_of_reached,
            "kills_by_program": dict(sorted(kills.items())),
            "kills_by_point": {point: self.steps.kills[point] for point in POINTS},
            "stops": stops.total() + self.steps.stops.total(),
            "stops_by_program": dict(sorted(stops.items())),
            "stops_by_point": {point: self.steps.stops[point] for point in POINTS},
            "stops_overtaken": self.steps.overtaken,
            "reached_by_point": {point: self.steps.reached[point] for point in (*POINTS, *sorted(self.steps.reached))},
            "sets_of_pages": sum(one.sets for one in pages),
            "pages": sum(one.read for one in pages),
            "pages_refused": sum(one.refused for one in pages),
            "anomalies_by_kind": dict(self.ledger.anomalies),
            "offenders": [*verdict.offenders, *self.ledger.named],
        }
