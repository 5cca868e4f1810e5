"""The courier at work: a thread a forward and a receiver of events, so that none holds up another; and their notes."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec
import redis

from telemetry.config.secret_values import value_of, values_of
from telemetry.config.settings import Alert, Settings
from telemetry.config.urls import api_url, collector_url
from telemetry.coordination import shared_state
from telemetry.hot_store import shard
from telemetry.hot_store.client import READ_TIMEOUT_S, connect
from telemetry.model.errors import BusyError, StoreError, WhimbrelError
from telemetry.network.tls import any_certificate
from telemetry.system import clock
from telemetry.system.failpoints import step_reporter
from telemetry.system.systemd_notify import watchdog
from worker.courier.alerts.monitors import Devices, Readiness
from worker.courier.alerts.notifier import Teller
from worker.courier.delivery.backoff import Patience
from worker.courier.delivery.http_client import Peer, TlsFiles, shown
from worker.courier.delivery.state_db import Store

log = logging.getLogger(__name__)

NOTE_S = 2.0
"""How often it notes how far it is."""

STOP_S = 3.0
"""So long it waits for its threads; what is under way then is sent again after the next start."""

ASK_S = 5.0
"""The API and the collector of this box may take so long to answer."""

Run = Callable[[threading.Event], None]


class Forwarder(Protocol):
    """A forward at work (forwarder.py). What it takes to make one, 60 MB, is loaded where there is one."""

    def run(self, stopped: threading.Event) -> None:
        """Go on until stopped."""

    def report(self) -> shared_state.ForwardProgress:
        """How far it is."""


def serve(settings: Settings, stopped: Callable[[], bool]) -> None:
    """Forward and tell until stopped."""
    stop, crash = threading.Event(), threading.Event()
    store = Store(settings.courier_dir)
    forwarders: list[Forwarder] = []
    if settings.forward:
        forwarders = importlib.import_module("worker.courier.forwarding.factory").forwarders(settings, store, stop)
    tellers = [_teller(settings, alert, store) for alert in settings.alert]
    store.forget_others([alert.name for alert in settings.alert])
    with connect(settings, READ_TIMEOUT_S) as client:
        runs = [*(one.run for one in forwarders), *(one.run for one in tellers), *_watches(settings, client, store)]
        threads = [threading.Thread(target=_guarded, args=(run, stop, crash), daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        _note_until(stopped, crash, client, forwarders, tellers)
        stop.set()
        _leave(threads, crash)
    store.close()


def _guarded(run: Run, stop: threading.Event, crash: threading.Event) -> None:
    """What nobody has thought of ends the program, which is started again, rather than a part of it unseen."""
    try:
        run(stop)
    except Exception:
        log.exception("the courier can't go on")
        crash.set()


def _note_until(
    stopped: Callable[[], bool],
    crash: threading.Event,
    client: redis.Redis,
    forwarders: Sequence[Forwarder],
    tellers: Sequence[Teller],
) -> None:
    said = ""
    while not stopped() and not crash.is_set():
        watchdog.beat()
        try:
            shared_state.note_forwards(client, [one.report() for one in forwarders])
            shared_state.note_alerts(client, [one.report() for one in tellers])
            said = ""
        except (StoreError, BusyError) as error:
            if str(error) != said:
                said = str(error)
                log.warning("cannot note how far it is: %s", said)
        _sleep(stopped, crash)


def _sleep(stopped: Callable[[], bool], crash: threading.Event) -> None:
    for _ in range(int(NOTE_S / 0.1)):
        if stopped() or crash.wait(0.1):
            return


def _leave(threads: Sequence[threading.Thread], crash: threading.Event) -> None:
    """End the threads. Raises `WhimbrelError` after a crash."""
    end_s = time.monotonic() + STOP_S
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    if crash.is_set():
        raise WhimbrelError("a part of the courier ended")
    if any(thread.is_alive() for thread in threads):
        logging.shutdown()
        os._exit(0)  # a receiver that doesn't answer can't be waited for, and all that matters is on disk


# Parts -----------------------------------------------------------------------------------------------


def _teller(settings: Settings, alert: Alert, store: Store) -> Teller:
    headers = values_of(alert.headers, os.environ)
    peer = Peer(alert.url, settings.courier.timeout_s, headers, TlsFiles.of(alert))
    patience = Patience(settings.courier.longest_wait_s)
    secret = value_of(alert.secret, os.environ)
    host = socket.gethostname()
    return Teller(
        alert.name, shown(alert.url), host, secret, peer, store, patience, clock.now_ms, step_reporter("alert")
    )


def _watches(settings: Settings, client: redis.Redis, store: Store) -> list[Run]:
    if not settings.alert:
        return []
    c = settings.courier
    attach = partial(shard.attach, client, settings.redis.shards)
    collector = _own(c.collector_url, collector_url(settings))
    key = value_of(c.key, os.environ)
    api = _own(c.api_url, api_url(settings), values_of({"Authorization": f"Bearer {key}"}, {}) if key else {})
    devices = Devices(
        settings.alert, store, attach, partial(_can_hear, collector), c.silence_look_seconds, c.max_pending_events
    )
    readiness = Readiness(settings.alert, store, partial(_reasons, api), c.not_ready_seconds)
    return [devices.run, readiness.run]


def _own(named: str, usual: str, headers: Mapping[str, str] | None = None) -> Peer:
    """A program of the box; at its usual place, which is on this machine, its certificate has another's name."""
    return Peer(named, ASK_S, headers) if named else Peer(usual, ASK_S, headers, tls=any_certificate())


def _can_hear(collector: Peer) -> bool:
    """Whether the collector is there to hear devices."""
    try:
        return collector.get("/healthz").is_good
    except OSError:
        return False


def _reasons(api: Peer) -> list[str]:
    """Why the box isn't ready; none if it is."""
    try:
        answer = api.get("/readyz")
    except OSError as error:
        return [f"the API gives no answer: {error}"]
    if answer.is_good:
        return []
    try:
        return msgspec.json.decode(answer.body, type=_Readyz).reasons or [str(answer)]
    except msgspec.DecodeError:
        return [f"the API answers {answer}"]


class _Readyz(msgspec.Struct):
    reasons: list[str] = []
