"""What events come of: looks at when devices were last seen, and at whether the box is ready."""

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
"""After so many looks that were left out it isn't known whether the box could hear devices."""

HEARING, READY = "hearing", "ready"
"""Notes in the store."""


class Devices:
    """Looks for devices that are silent or back, and has those events wait that receivers want."""

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
        """Go on until stopped."""
        while self._receivers and not stopped.is_set():
            self.look()
            stopped.wait(self._look_s)

    def look(self) -> None:
        """Look once. Whatever is in the way, nothing is made of what could not be seen."""
        try:
            self._look()
        except (StoreError, ConfigError, sqlite3.Error) as error:
            log.warning("cannot look for silent devices: %s", error)

    def _look(self) -> None:
        is_steady = self._steady.look() or self._is_first
        self._is_first = False
        can_hear, shards = False, list[Shard]()
        try:
            shards = list(self._attach())
            newest_ms = max(shard.newest_ms() for shard in shards)
            can_hear = is_steady and clock.problem(self._now_ms() * 1_000, newest_ms) is None and self._can_hear()
        finally:
            since_ms = self._heard(can_hear)
        rooms = {one.name: self._most_waiting - self._store.waiting(one.name) for one in self._receivers}
        is_whole = not any(must_rebuild(shard) for shard in shards)
        unseen = {one.name: set(one.silent) for one in self._receivers}
        for shard in shards:
            for piece in shard.seen():
                for one in self._receivers:
                    rooms[one.name] -= self._tell(one, piece, since_ms, rooms[one.name])
                    unseen[one.name].difference_update(device for device, _ in piece)
        for one in self._receivers if is_whole else ():
            self._forget(one, sorted(unseen[one.name]))

    def _heard(self, can_hear: bool) -> int | None:
        longest_ms = int(self._look_s * 1_000 * LONGEST_GAP_LOOKS)
        found = hearing(self._store.read(HEARING, Hearing), self._now_ms(), can_hear, longest_ms)
        self._store.note(HEARING, found)
        return found.since_ms

    def _forget(self, one: _Receiver, deleted: Sequence[bytes]) -> None:
        """A silent device that was deleted is never back."""
        if deleted:
            self._store.add_events(one.name, (), (), deleted)
            for device in deleted:
                del one.silent[device]

    def _tell(self, one: _Receiver, piece: Sequence[tuple[bytes, int]], since_ms: int | None, room: int) -> int:
        """Have a receiver's events of a piece wait, as many as there is room for. Returns how many."""
        now_ms = self._now_ms()
        found = list(islice(turns(piece, one.silent, one.time_outs, now_ms, since_ms), max(room, 0)))
        if not found:
            return 0
        bodies = [events.device_event(turn, now_ms) for turn in found if events.kind_of(turn) in one.events]
        silent = [(turn.device, turn.seen_ms) for turn in found if turn.is_silent]
        back = [turn.device for turn in found if not turn.is_silent]
        self._store.add_events(one.name, bodies, silent, back)
        one.silent.update(silent)
        for device in back:
            del one.silent[device]
        return len(bodies)


class _Receiver:
    """A receiver of events of devices, and which of them it knows to be silent."""

    def __init__(self, alert: Alert, silent: dict[bytes, int]) -> None:
        self.name, self.events, self.silent = alert.name, frozenset(alert.events), silent
        self.time_outs = TimeOuts(alert.silent_after_s, alert.rules)


class Readiness:
    """Asks whether the box is ready, and has an event wait once that has been otherwise for long enough.

    `ask` gives the reasons why it isn't, none if it is.
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
        """Go on until stopped."""
        while any(self._receivers.values()) and not stopped.is_set():
            try:
                self.look()
            except sqlite3.Error as error:
                log.warning("cannot keep whether the box is ready: %s", error)
            stopped.wait(min(self._least_s / 3, 10.0))

    def look(self) -> None:
        """Ask once."""
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
