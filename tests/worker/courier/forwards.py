"""Forwards as tests run them: step by step, stopped at any step, again from what was kept."""

from __future__ import annotations

import json
from collections import Counter

from telemetry.archive import commit_log
from telemetry.archive.change_feed import change_at
from telemetry.archive.table import Archive
from telemetry.config.settings import Forward
from telemetry.system import clock
from telemetry.system.failpoints import Step, no_step_reporter
from tests.worker.conftest import Content
from tests.worker.courier.receiver import Receiver
from worker.courier.delivery.backoff import Patience
from worker.courier.delivery.state_db import Store
from worker.courier.forwarding.forwarder import Forwarder
from worker.courier.forwarding.version_delivery import Delivery, Records, Table
from worker.courier.targets import RECORD_TARGETS, TABLE_TARGETS, Place

TIMEOUT_S = 3


class Killed(Exception):
    """Instead of the program's end."""


class KillAt:
    """Ends a forward when it reaches a step for the nth time."""

    def __init__(self, step: str, nth: int = 1) -> None:
        self._step, self._left = step, nth

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                raise Killed(step)


class Forwards:
    """Makes forwards of an archive, each as after a start of the program, and ends them."""

    def __init__(self, archive: Archive, store: Store) -> None:
        self._archive, self._store = archive, store
        self._made: list[Forwarder] = []

    def __call__(self, entry: Forward, reached: Step = no_step_reporter) -> Forwarder:
        root, look_s = self._archive.root, 0.05
        place, grace_s = Place(entry, root, TIMEOUT_S, lambda _: None), 0.0 if entry.mirror else None
        delivery: Delivery
        if entry.scheme in TABLE_TARGETS:
            delivery = Table(
                TABLE_TARGETS[entry.scheme](place), self._store, entry.name, grace_s, clock.now_ms, reached
            )
        else:
            delivery = Records(RECORD_TARGETS[entry.scheme](place), root, entry.on_refused, entry.name, reached)
        patience = Patience(1, lambda: 0.0)
        found = Forwarder(entry, self._archive, self._store, delivery, patience, clock.now_ms, look_s, reached)
        self._made.append(found)
        return found

    def close(self) -> None:
        """Leave all receivers."""
        for one in self._made:
            one.close()


def run(found: Forwarder) -> int:
    """Go on until there is nothing more. Returns how many versions were done."""
    done = 0
    while found.step():
        done += 1
    found.look()
    return done


def received(receiver: Receiver) -> Counter[Content]:
    """What a receiver of NDJSON has, as `Ledger` knows it."""
    lines = [json.loads(line) for post in receiver.posts for line in post.lines]
    return Counter((line["device_id"], int(line["altitude_m"])) for line in lines)


def rows_of(archive: Archive) -> list[int]:
    """How many records each version brought."""
    log = commit_log.folder(archive.root)
    return [change.rows for version in commit_log.entries(log) if (change := change_at(log, version))]


def cleaned(archive: Archive, below: int) -> None:
    """As if the log had been cleaned while this forward was not in the settings."""
    archive.open().create_checkpoint()
    log = commit_log.folder(archive.root)
    for version in commit_log.entries(log):
        if version < below:
            (archive.root / commit_log.entry_name(version)).unlink()
