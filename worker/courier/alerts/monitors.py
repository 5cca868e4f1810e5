"""Monitors that create events: the times devices were last seen, and the box's readiness."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice

from telemetry.config.settings import Alert
from telemetry.hot_store.operations.latest_rebuild import must_rebuild
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import ConfigError, StoreError
from telemetry.system import clock
from worker.courier.alerts import events
from worker.courier.alerts.silence_rules import Hearing, TimeOuts, hearing, turns
from worker.courier.delivery.state_db import Store

log = logging.getLogger(__name__)

LONGEST_GAP_LOOKS = 3
"""After this number of missed checks it is unknown whether the box could receive from devices."""

HEARING, READY = "hearing", "ready"
"""Names of notes in the store."""


class Devices:
    """Detects silent and returned devices, and queues events for the receivers that want them."""

    def __init__(
        self,
        alerts: Sequence[Alert],
        store: Store,
        attach: Callable[[], Sequence[Shard]],
        can_hear: Callable[[], bool],
        look_s: float,
        most_waiting: int,
        now_ms: Callable[[], int] = clock.now_ms,
        steady: clock.Steady | None = None,
    ) -> None:
        self._store, self._attach, self._can_hear = store, attach, can_hear
        self._look_s, self._most_waiting, self._now_ms = look_s, most_waiting, now_ms
        self._steady = steady or clock.Steady()
        self._is_first = True
        wanted = [alert for alert in alerts if {events.SILENT, events.BACK} & set(alert.events)]
        self._receivers = [_Receiver(alert, store.silent(alert.name)) for alert in wanted]

    def run(self, stopped: threading.Event) -> None:
        """Run until stopped."""
        while self._receivers and not stopped.is_set():
            self.look()
            stopped.wait(self._look_s)

    def look(self) -> None:
        """Check once. After an error, no conclusions are drawn."""
        try:
            self._look()
        except (StoreError, ConfigError, sqlite3.Error) as error:
            log.warning("cannot check for silent devices: %s", error)

    def _look(self) -> None:
        is_steady = self._steady.look() or self._is_first
        self._is_first = False
        can_hear, shards = False, list[Shard]()
        try:
            shards = list(self._attach())
            newest_ms = max(shard.newest_ms() for shard in shards)
            can_hear = is_steady and clock.problem(self._now_ms() * 1_000, newest_ms) is None and self._can_hear()
        finally:
            since_ms = self._receiving_since(can_hear)
        rooms = {receiver.name: self._most_waiting - self._store.waiting(receiver.name) for receiver in self._receivers}
        is_whole = not any(must_rebuild(shard) for shard in shards)
        unseen = {receiver.name: set(receiver.silent) for receiver in self._receivers}
        for shard in shards:
            for piece in shard.seen():
                for receiver in self._receivers:
                    rooms[receiver.name] -= self._queue(receiver, piece, since_ms, rooms[receiver.name])
                    unseen[receiver.name].difference_update(device for device, _ in piece)
        for receiver in self._receivers if is_whole else ():
            self._forget(receiver, sorted(unseen[receiver.name]))

    def _receiving_since(self, can_hear: bool) -> int | None:
        longest_ms = int(self._look_s * 1_000 * LONGEST_GAP_LOOKS)
        found = hearing(self._store.read(HEARING, Hearing), self._now_ms(), can_hear, longest_ms)
        self._store.note(HEARING, found)
        return found.since_ms

    def _forget(self, receiver: _Receiver, deleted: Sequence[bytes]) -> None:
        """Forget a deleted device: it never returns."""
        if deleted:
            self._store.add_events(receiver.name, (), (), deleted)
            for device in deleted:
                del receiver.silent[device]

    def _queue(self, receiver: _Receiver, piece: Sequence[tuple[bytes, int]], since_ms: int | None, room: int) -> int:
        """Queue events of a piece for a receiver, as many as there is room for. Returns their number."""
        now_ms = self._now_ms()
        changes = list(islice(turns(piece, receiver.silent, receiver.time_outs, now_ms, since_ms), max(room, 0)))
        if not changes:
            return 0
        bodies = [events.device_event(turn, now_ms) for turn in changes if events.kind_of(turn) in receiver.events]
        silent = [(turn.device, turn.seen_ms) for turn in changes if turn.is_silent]
        back = [turn.device for turn in changes if not turn.is_silent]
        self._store.add_events(receiver.name, bodies, silent, back)
        receiver.silent.update(silent)
        for device in back:
            del receiver.silent[device]
        return len(bodies)


class _Receiver:
    """A receiver of device events, and the devices reported to it as silent."""

    def __init__(self, alert: Alert, silent: dict[bytes, int]) -> None:
        self.name, self.events, self.silent = alert.name, frozenset(alert.events), silent
        self.time_outs = TimeOuts(alert.silent_after_s, alert.rules)


class Readiness:
    """Checks whether the box is ready, and queues an event once that has changed for long enough.

    `ask` returns the reasons why it is not ready, none if it is.
    """

    def __init__(
        self,
        alerts: Sequence[Alert],
        store: Store,
        ask: Callable[[], Sequence[str]],
        least_s: float,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receivers = {
            kind: [a.name for a in alerts if kind in a.events] for kind in (events.NOT_READY, events.READY)
        }
        self._store, self._ask, self._least_s, self._now_ms, self._monotonic = store, ask, least_s, now_ms, monotonic
        told = store.read(READY, bool)
        self._is_ready = True if told is None else told
        self._other_since_s: float | None = None

    def run(self, stopped: threading.Event) -> None:
        """Run until stopped."""
        while any(self._receivers.values()) and not stopped.is_set():
            try:
                self.look()
            except sqlite3.Error as error:
                log.warning("cannot store whether the box is ready: %s", error)
            stopped.wait(min(self._least_s / 3, 10.0))

    def look(self) -> None:
        """Check once."""
        reasons, now_s = self._ask(), self._monotonic()
        is_ready = not reasons
        if is_ready == self._is_ready:
            self._other_since_s = None
            return
        if self._other_since_s is None:
            self._other_since_s = now_s
        if now_s - self._other_since_s < self._least_s:
            return
        log.warning("the box is %s", "ready again" if is_ready else f"not ready: {'; '.join(reasons)}")
        event = events.box_event(reasons, self._now_ms())
        self._store.tell_all(self._receivers[events.READY if is_ready else events.NOT_READY], event, READY, is_ready)
        self._is_ready, self._other_since_s = is_ready, None
