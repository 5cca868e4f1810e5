"""Runs the courier: one thread per forward and per receiver of events, so that none delays another."""

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
"""Interval at which progress is recorded in Redis, s."""

STOP_S = 3.0
"""Timeout for the threads at the end, s; unfinished deliveries are repeated after the next start."""

ASK_S = 5.0
"""Timeout of requests to the API and the collector of this box, s."""

Run = Callable[[threading.Event], None]


class Forwarder(Protocol):
    """A running forward (forwarder.py). Its modules take much memory and are loaded only if needed."""

    def run(self, stopped: threading.Event) -> None:
        """Run until stopped."""

    def report(self) -> shared_state.ForwardProgress:
        """Progress of the forward."""


def serve(settings: Settings, stopped: Callable[[], bool]) -> None:
    """Forward records and send alerts until stopped."""
    stop, crash = threading.Event(), threading.Event()
    store = Store(settings.courier_dir)
    forwarders: list[Forwarder] = []
    if settings.forward:
        forwarders = importlib.import_module("worker.courier.forwarding.factory").forwarders(settings, store, stop)
    tellers = [_teller(settings, alert, store) for alert in settings.alert]
    store.forget_others([alert.name for alert in settings.alert])
    with connect(settings, READ_TIMEOUT_S) as client:
        runs = [*(part.run for part in forwarders), *(part.run for part in tellers), *_watches(settings, client, store)]
        threads = [threading.Thread(target=_guarded, args=(run, stop, crash), daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        _note_until(stopped, crash, client, forwarders, tellers)
        stop.set()
        _leave(threads, crash)
    store.close()


def _guarded(run: Run, stop: threading.Event, crash: threading.Event) -> None:
    """Run a part. An unexpected error ends the program, which is restarted, instead of only this part."""
    try:
        run(stop)
    except Exception:
        log.exception("the courier cannot continue")
        crash.set()


def _note_until(
    stopped: Callable[[], bool],
    crash: threading.Event,
    client: redis.Redis,
    forwarders: Sequence[Forwarder],
    tellers: Sequence[Teller],
) -> None:
    error_text = ""
    while not stopped() and not crash.is_set():
        watchdog.beat()
        try:
            shared_state.note_forwards(client, [part.report() for part in forwarders])
            shared_state.note_alerts(client, [part.report() for part in tellers])
            error_text = ""
        except (StoreError, BusyError) as error:
            if str(error) != error_text:
                error_text = str(error)
                log.warning("cannot record the progress: %s", error_text)
        _sleep(stopped, crash)


def _sleep(stopped: Callable[[], bool], crash: threading.Event) -> None:
    for _ in range(int(NOTE_S / 0.1)):
        if stopped() or crash.wait(0.1):
            return


def _leave(threads: Sequence[threading.Thread], crash: threading.Event) -> None:
    """Stop the threads. Raises `WhimbrelError` after a crash."""
    end_s = time.monotonic() + STOP_S
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    if crash.is_set():
        raise WhimbrelError("a part of the courier ended")
    if any(thread.is_alive() for thread in threads):
        logging.shutdown()
        os._exit(0)  # do not wait for a receiver that does not respond; all state is on disk


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
    """A client for a program of the box; at its usual local address its certificate has another name."""
    return Peer(named, ASK_S, headers) if named else Peer(usual, ASK_S, headers, tls=any_certificate())


def _can_hear(collector: Peer) -> bool:
    """True if the collector can receive from devices."""
    try:
        return collector.get("/healthz").is_good
    except OSError:
        return False


def _reasons(api: Peer) -> list[str]:
    """Why the box is not ready; empty if it is."""
    try:
        answer = api.get("/readyz")
    except OSError as error:
        return [f"the API does not respond: {error}"]
    if answer.is_good:
        return []
    try:
        return msgspec.json.decode(answer.body, type=_Readyz).reasons or [str(answer)]
    except msgspec.DecodeError:
        return [f"the API answers {answer}"]


class _Readyz(msgspec.Struct):
    reasons: list[str] = []
