"""Receivers of forwards, one file for each kind of URL.

A new kind is a file and a line here. Imported by `forwarding/`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from telemetry.config.settings import Forward
from telemetry.system import clock
from worker.courier.delivery.http_client import Peer, TlsFiles
from worker.courier.targets.target import RecordTarget, Sent, TableTarget


class Place(NamedTuple):
    """Arguments for a receiver: its settings with secrets resolved, and the archive's folder."""

    entry: Forward
    root: Path
    timeout_s: float
    sent: Sent


def _whimbrel(place: Place) -> RecordTarget:
    e = place.entry
    return _class("whimbrel", "Whimbrel")(e.url, place.timeout_s, TlsFiles.of(e), e.key, place.sent)  # type: ignore[no-any-return]


def _http(place: Place) -> RecordTarget:
    e = place.entry
    peer = Peer(e.url, place.timeout_s, e.headers, TlsFiles.of(e))
    return _class("http", "Http")(peer, e.batch_records, e.secret, clock.now_ms, place.sent)  # type: ignore[no-any-return]


def _s3(place: Place) -> TableTarget:
    e = place.entry
    options = {
        "endpoint": e.s3_endpoint,
        "region": e.s3_region,
        "access_key_id": e.s3_access_key_id,
        "secret_access_key": e.s3_secret_access_key,
    }
    return _class("s3", "S3")(place.root, e.url, place.timeout_s, options, place.sent)  # type: ignore[no-any-return]


def _class(module: str, name: str) -> Any:
    """Load a class of receivers on first use: S3's needs much memory."""
    return getattr(importlib.import_module(f"worker.courier.targets.{module}"), name)


RECORD_TARGETS: dict[str, Callable[[Place], RecordTarget]] = {
    "whimbrel": _whimbrel,
    "whimbrels": _whimbrel,
    "http": _http,
    "https": _http,
}
TABLE_TARGETS: dict[str, Callable[[Place], TableTarget]] = {"s3": _s3}
