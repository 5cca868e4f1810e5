"""Sends events to one webhook: oldest first, several per post, until it accepts them."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable

from telemetry.coordination.shared_state import AlertProgress
from telemetry.model.errors import BusyError
from telemetry.system.failpoints import Step, no_step_reporter
from worker.courier.alerts.events import body_of, signed
from worker.courier.delivery.backoff import Patience
from worker.courier.delivery.http_client import Peer
from worker.courier.delivery.state_db import Store

log = logging.getLogger(__name__)

MOST_EVENTS = 100
"""Maximum number of events per post."""

LOOK_S = 0.5


class Teller:
    """Posts the pending events of one `[[alert]]` in its own thread. `shown_url` is its URL without secrets."""

    def __init__(
        self,
        name: str,
        shown_url: str,
        host: str,
        secret: str,
        peer: Peer,
        store: Store,
        patience: Patience,
        now_ms: Callable[[], int],
        reached: Step = no_step_reporter,
    ) -> None:
        self._name, self._shown_url, self._host, self._secret = name, shown_url, host, secret
        self._peer, self._store, self._patience, self._now_ms, self._reached = peer, store, patience, now_ms, reached
        self._trouble = ""
        self._last_success_ms: int | None = None

    def run(self, stopped: threading.Event) -> None:
        """Run until stopped."""
        while not stopped.is_set():
            try:
                pause_s = 0.0 if self.step() else LOOK_S
                self._patience.succeeded()
                self._say("")
            except (OSError, BusyError, sqlite3.Error) as error:
                pause_s = self._patience.failed(error.retry_after_s if isinstance(error, BusyError) else 0)
                self._say(str(error))
            stopped.wait(pause_s)
        self._peer.close()

    def step(self) -> bool:
        """Post the oldest pending events. False without any. Raises `BusyError`, `OSError` if they are rejected."""
        events = self._store.events(self._name, MOST_EVENTS)
        if not events:
            return False
        body = body_of(self._host, [event.body for event in events])
        headers = {"Content-Type": "application/json", **signed(self._secret, body, self._now_ms() // 1_000)}
        self._reached("post")
        answer = self._peer.post(body, headers)
        if not answer.is_good:
            raise BusyError(f"it answers {answer}", int(answer.retry_after_s))
        self._reached("forget")
        self._store.told(self._name, events)
        self._last_success_ms = self._now_ms()
        return True

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("alert %s: %s; trying again", self._name, trouble)
        self._trouble = trouble

    def report(self) -> AlertProgress:
        """Sent and pending events."""
        return AlertProgress(
            self._name,
            self._shown_url,
            self._now_ms(),
            self._store.waiting(self._name),
            self._store.silent_count(self._name),
            self._store.told_count(self._name),
            self._last_success_ms,
            self._trouble,
        )
