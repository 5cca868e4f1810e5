"""Creates the forwards of the settings."""

from __future__ import annotations

import os
import threading

import msgspec

from telemetry.archive.table import Archive
from telemetry.config.secret_values import value_of, values_of
from telemetry.config.settings import Forward, Settings
from telemetry.system import clock
from telemetry.system.failpoints import step_reporter
from worker.courier.delivery.backoff import Patience
from worker.courier.delivery.bandwidth_limit import Pace
from worker.courier.delivery.state_db import Store
from worker.courier.forwarding.forwarder import Forwarder
from worker.courier.forwarding.version_delivery import Delivery, Records, Table
from worker.courier.targets import RECORD_TARGETS, TABLE_TARGETS, Place


def forwarders(settings: Settings, store: Store, stop: threading.Event) -> list[Forwarder]:
    """One for each entry. Raises `ConfigError` for a secret or certificate that cannot be read."""
    return [_forwarder(settings, entry, store, stop) for entry in settings.forward]


def _forwarder(settings: Settings, entry: Forward, store: Store, stop: threading.Event) -> Forwarder:
    archive = Archive(settings.archive_dir)
    reached, grace_s = step_reporter("forward"), settings.archive.grace_seconds
    arguments = Place(_with_secrets(entry), archive.root, settings.courier.timeout_s, Pace(entry.max_bytes_per_s, stop))
    delivery: Delivery
    if entry.scheme in TABLE_TARGETS:
        mirror_grace_s = grace_s if entry.mirror else None
        target = TABLE_TARGETS[entry.scheme](arguments)
        delivery = Table(target, store, entry.name, mirror_grace_s, clock.now_ms, reached)
    else:
        records = RECORD_TARGETS[entry.scheme](arguments)
        delivery = Records(records, archive.root, entry.on_refused, entry.name, reached)
    patience = Patience(settings.courier.longest_wait_s)
    return Forwarder(entry, archive, store, delivery, patience, clock.now_ms, settings.courier.look_seconds, reached)


def _with_secrets(entry: Forward) -> Forward:
    return msgspec.structs.replace(
        entry,
        key=value_of(entry.key, os.environ),
        headers=values_of(entry.headers, os.environ),
        s3_access_key_id=value_of(entry.s3_access_key_id, os.environ),
        secret=value_of(entry.secret, os.environ),
        s3_secret_access_key=value_of(entry.s3_secret_access_key, os.environ),
    )
