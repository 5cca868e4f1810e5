"""Metrics of Redis and the disk, read at each scrape of `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from api.status import redis_facts
from telemetry.config.settings import Settings
from telemetry.coordination import rejection_counts, shared_state
from telemetry.hot_store import shard as hot
from telemetry.hot_store.operations.append import limit_usage
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, ConfigError, StoreError
from telemetry.system import clock
from telemetry.system.disk_space import Room


def gauge(name: str, meaning: str, value: float | None) -> Iterator[Metric]:
    """A family with one value; without a series if the value is unknown."""
    family = GaugeMetricFamily(f"whimbrel_{name}", meaning, labels=())
    if value is not None:
        family.add_metric((), value)
    yield family


def of_disk(room: Room) -> Iterator[Metric]:
    """Metrics of the disk with the least free space."""
    try:
        disk = redis_facts.disk_of(room)
    except OSError:
        return  # /readyz reports it
    yield from gauge("disk_bytes", "Size of the disk with the least free space.", disk.disk_bytes)
    yield from gauge("disk_free_bytes", "Free bytes on this disk.", disk.disk_free_bytes)
    yield from gauge(
        "disk_min_free_bytes", "data.min_free_bytes: with less, records are rejected.", disk.disk_min_free_bytes
    )


def of_redis(client: redis.Redis, settings: Settings) -> Iterator[Metric]:
    """`whimbrel_redis_up`, and the metrics of Redis; the first failed read ends the list."""
    reads: Sequence[Callable[[], list[Metric]]] = (
        lambda: list(_server(client, settings)),
        lambda: list(_notes(client, settings)),
        lambda: list(_courier(client, settings)),
        lambda: list(_shards(hot.attach(client, settings.redis.shards), settings)),
    )
    families: list[Metric] = []
    is_up = True
    for read in reads:
        try:
            families += read()
        except ConfigError:
            continue
        except (StoreError, BusyError):
            is_up = bool(families)  # a Redis that is not set up yet responds, too
            break
    yield from gauge("redis_up", "1 if Redis responded during this scrape, else 0.", is_up)
    yield from families


def _server(client: redis.Redis, settings: Settings) -> Iterator[Metric]:
    server = redis_facts.server_of(client)
    info = GaugeMetricFamily("whimbrel_redis_info", "The server.", labels=("kind", "version"))
    info.add_metric((server.redis_kind, server.redis_version), 1)
    yield info
    yield from gauge("redis_uptime_seconds", "Uptime of Redis.", server.redis_uptime_s)
    yield from gauge("redis_start_time_seconds", "Start time of Redis, s since epoch.", server.redis_started_s)
    yield from gauge("redis_memory_bytes", "Memory that Redis uses.", server.redis_memory_bytes)
    yield from gauge("redis_memory_limit_bytes", "Redis's maxmemory.", server.redis_memory_limit_bytes)
    yield from gauge(
        "redis_memory_refuse_ratio",
        "redis.full_percent as a ratio: above it, records are rejected.",
        settings.redis.full_percent / 100,
    )
    yield from gauge("redis_aof_bytes", "Size of Redis's AOF.", server.redis_aof_bytes)
    is_written = server.redis_aof_last_write == "ok"
    yield from gauge("redis_aof_last_write_ok", "1 if Redis's last write of its AOF succeeded, else 0.", is_written)


def _notes(client: redis.Redis, settings: Settings) -> Iterator[Metric]:
    refused = CounterMetricFamily(
        "whimbrel_refused_total", "Rejections of the whole box, by reason.", labels=("reason",)
    )
    for reason, count in (dict.fromkeys(rejection_counts.REASONS, 0) | redis_facts.refusals_of(client).refused).items():
        refused.add_metric((reason,), count)
    yield refused
    seen = GaugeMetricFamily(
        "whimbrel_sign_of_life_age_seconds", "Age of a program's last heartbeat.", labels=("program",)
    )
    programs = redis_facts.programs_of(client, clock.now_ms)
    backup = redis_facts.backup_of(client, clock.now_ms)
    yield from gauge("backup_age_seconds", "Age of the state in the last backup.", backup.last_backup_age_s)
    yield from gauge(
        "backup_age_limit_seconds", "backup.max_age_s; absent if it is 0.", settings.backup.max_age_s or None
    )
    yield from gauge("backup_duration_seconds", "Duration of the last backup.", backup.last_backup_took_s)
    yield from gauge("backup_bytes", "Size of the last backup.", backup.last_backup_bytes)
    for program, age_s in (
        (shared_state.WORKER, programs.worker_seen_age_s),
        (shared_state.SCHEDULER, programs.scheduler_seen_age_s),
    ):
        if age_s is not None:
            seen.add_metric((program,), age_s)
    yield seen


FORWARD: dict[str, tuple[str, Callable[[shared_state.ForwardProgress], float | None]]] = {
    "whimbrel_forward_behind_seconds": (
        "Age of the oldest record that waits to be forwarded.",
        lambda one: one.behind_s,
    ),
    "whimbrel_forward_behind_records": ("Records that wait to be forwarded.", lambda one: one.behind_records),
    "whimbrel_forward_behind_bytes": ("Bytes of files that wait to be forwarded.", lambda one: one.behind_bytes),
    "whimbrel_forward_is_stuck": ("1 if the forward cannot continue, else 0.", lambda one: bool(one.trouble)),
    "whimbrel_forward_note_age_seconds": (
        "Age of the courier's last note of this forward.",
        lambda one: clock.now_ms() / 1_000 - one.noted_ms / 1_000 if one.noted_ms else None,
    ),
}
FORWARD_COUNTS: dict[str, tuple[str, Callable[[shared_state.ForwardProgress], float]]] = {
    "whimbrel_forward_sent_records_total": ("Records that the receiver has accepted.", lambda one: one.sent_records),
    "whimbrel_forward_refused_records_total": ("Records that the receiver rejected.", lambda one: one.refused_records),
    "whimbrel_forward_dropped_records_total": (
        "Records dropped because of max_lag_bytes.",
        lambda one: one.dropped_records,
    ),
}
ALERT: dict[str, tuple[str, Callable[[shared_state.AlertProgress], float | None]]] = {
    "whimbrel_alert_pending_events": ("Events that wait for a receiver.", lambda one: one.pending_events),
    "whimbrel_alert_silent_devices": ("Devices that are silent by this alert's times.", lambda one: one.silent_devices),
    "whimbrel_alert_is_stuck": ("1 if the receiver accepts no events, else 0.", lambda one: bool(one.trouble)),
}
ALERT_COUNTS: dict[str, tuple[str, Callable[[shared_state.AlertProgress], float]]] = {
    "whimbrel_alert_sent_events_total": ("Events that the receiver has accepted.", lambda one: one.sent_events),
}


def _courier(client: redis.Redis, settings: Settings) -> Iterator[Metric]:
    """A series for each `[[forward]]` and `[[alert]]` of the settings."""
    courier = redis_facts.courier_of(client, redis_facts.Entries.of(settings), clock.now_ms)
    yield from _named(GaugeMetricFamily, FORWARD, courier.forwards)
    yield from _named(CounterMetricFamily, FORWARD_COUNTS, courier.forwards)
    yield from _named(GaugeMetricFamily, ALERT, courier.alerts)
    yield from _named(CounterMetricFamily, ALERT_COUNTS, courier.alerts)
    limit = GaugeMetricFamily(
        "whimbrel_forward_behind_limit_bytes", "max_lag_bytes of forwards with this limit.", labels=("name",)
    )
    for entry in settings.forward:
        if entry.max_lag_bytes:
            limit.add_metric((entry.name,), entry.max_lag_bytes)
    yield limit
    yield from gauge("alert_pending_limit_events", "courier.max_pending_events.", settings.courier.max_pending_events)


def _named(kind: Any, definitions: Any, notes: Sequence[Any]) -> Iterator[Metric]:
    for name, (meaning, value_of) in definitions.items():
        family = kind(name, meaning, labels=("name",))
        for note in notes:
            if (value := value_of(note)) is not None:
                family.add_metric((note.name,), value)
        yield family


def _shards(shards: Sequence[Shard], settings: Settings) -> Iterator[Metric]:
    facts = [redis_facts.shard_of(shard, clock.now_ms) for shard in shards]
    fills = [limit_usage(shard) for shard in shards]
    c = settings.collector
    columns: tuple[tuple[type[Any], str, str, list[float | None]], ...] = (
        (GaugeMetricFamily, "unsaved_records", "Records that wait to be saved.", [f.unsaved_records for f in facts]),
        (
            GaugeMetricFamily,
            "unsaved_age_seconds",
            "Age of the oldest record that waits to be saved; 0 if none does.",
            [f.oldest_unsaved_age_s or 0.0 for f in facts],
        ),
        (CounterMetricFamily, "saves_total", "Finished saves.", [f.saves for f in facts]),
        (GaugeMetricFamily, "devices", "Known devices.", [f.devices for f in fills]),
        (GaugeMetricFamily, "devices_limit", "collector.max_devices.", [c.max_devices for _ in fills]),
        (GaugeMetricFamily, "senders", "Senders of numbered batches that are remembered.", [f.senders for f in fills]),
        (GaugeMetricFamily, "senders_limit", "collector.max_senders.", [c.max_senders for _ in fills]),
        (GaugeMetricFamily, "idempotency_keys", "Idempotency-Keys that are remembered.", [f.names for f in fills]),
        (
            GaugeMetricFamily,
            "idempotency_keys_limit",
            "collector.max_idempotency_keys.",
            [c.max_idempotency_keys for _ in fills],
        ),
        (GaugeMetricFamily, "quarantine_bytes", "Bytes in quarantine.", [f.quarantine_bytes for f in fills]),
        (
            GaugeMetricFamily,
            "quarantine_limit_bytes",
            "persist.quarantine_max_bytes.",
            [settings.persist.quarantine_max_bytes for _ in fills],
        ),
        (CounterMetricFamily, "quarantined_total", "Entries put into quarantine.", [f.quarantine.kept for f in fills]),
        (
            CounterMetricFamily,
            "quarantine_dropped_total",
            "Oldest entries dropped from quarantine to free space.",
            [f.quarantine.dropped for f in fills],
        ),
    )
    for kind, name, meaning, values in columns:
        family = kind(f"whimbrel_{name}", meaning, labels=("shard",))
        for shard, value in zip(shards, values, strict=True):
            family.add_metric((str(shard.shard),), value)
        yield family
