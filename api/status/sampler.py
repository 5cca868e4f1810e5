"""Samples of the most important metrics every 10 s, for the last hour.

The API program receives the metrics of all programs anyway, so it takes the samples, in its own thread. They are in its
memory, where `/v1/box` reads them, and in Redis (shared_state.py), so that they survive a restart.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import redis
from msgspec import Struct

from api.status import redis_facts
from api.status.counter_rates import Counts, Reports, between, counts_of, quantile
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.coordination.metric_reports import Report, is_up
from telemetry.hot_store import shard
from telemetry.hot_store.operations.append import LimitUsage, limit_usage
from telemetry.model.errors import BusyError, ConfigError, StoreError
from telemetry.observability import metrics
from telemetry.observability.metric_types import Buckets
from telemetry.system import clock, periodic
from telemetry.system.disk_space import Room

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
RETENTION_S = 3_600.0
MAX_SAMPLES = int(RETENTION_S / INTERVAL_S)
"""Maximum number of samples, some 400 bytes each."""

SAMPLES = "samples of the box"
"""Name of the sampling loop, in metrics."""

FIRST_S = 2.5
"""Delay of the first sample, after which all running programs have reported their metrics."""

LastReports = Mapping[tuple[str, int], tuple[Report, float]]
"""(program, process) → its last report, and the report's age in seconds."""


class Sample(Struct, frozen=True, omit_defaults=True):
    """The state of the box at a time, ms since epoch. Rates and quantiles cover the time since the previous sample.

    Unknown values are null. `decoded` has a protocol, a transport, and the numbers of decoded records and rejections.
    """

    at_ms: int
    accepted_per_s: float | None = None
    refused_per_s: float | None = None
    ack_p50_ms: float | None = None
    ack_p99_ms: float | None = None
    unsaved_records: int | None = None
    unsaved_age_s: float | None = None
    open_day_files: int | None = None
    redis_memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    decoded: list[tuple[str, str, int, int]] = []


class Stores(NamedTuple):
    """Facts about Redis and the disk at a time; None for a store that did not respond."""

    server: redis_facts.Server | None = None
    shards: list[redis_facts.ShardFacts] | None = None
    fills: list[LimitUsage] | None = None
    refused: dict[str, int] | None = None
    disk: redis_facts.Disk | None = None


class Look(NamedTuple):
    """All data read at a time: `at_s` in s since epoch, `since_s` by the monotonic clock."""

    at_s: float
    since_s: float
    reports: Reports
    stores: Stores


def ask(client: redis.Redis, settings: Settings, room: Room) -> Stores:
    """Read the facts about Redis and the disk."""
    stores = Stores()
    try:
        stores = stores._replace(disk=redis_facts.disk_of(room))
    except OSError as error:
        log.debug("cannot look at the disk: %s", error)  # /readyz reports it
    try:
        stores = stores._replace(server=redis_facts.server_of(client), refused=shared_state.refused(client))
        shards = shard.attach(client, settings.redis.shards)
        facts, fills = [redis_facts.shard_of(one, clock.now_ms) for one in shards], [limit_usage(one) for one in shards]
        return stores._replace(shards=facts, fills=fills)
    except (StoreError, BusyError, ConfigError) as error:
        log.debug("cannot read the state of Redis: %s", error)
    return stores


def sample_of(before: Look, now: Look, open_day_files: float | None) -> Sample:
    """The sample for the time between two looks."""
    took_s = max(now.since_s - before.since_s, 0.001)
    counts = between(before.reports, before.at_s, now.reports)
    stores = now.stores
    ages_s = [one.oldest_unsaved_age_s or 0.0 for one in stores.shards or ()]
    return Sample(
        round(now.at_s * 1_000),
        round(counts.accepted / took_s, 3),
        _rate(before.stores.refused, stores.refused, took_s),
        _ms(counts.ack, 0.5),
        _ms(counts.ack, 0.99),
        None if stores.shards is None else sum(one.unsaved_records for one in stores.shards),
        None if stores.shards is None else round(max(ages_s, default=0.0), 3),
        None if open_day_files is None else int(open_day_files),
        None if stores.server is None else stores.server.redis_memory_bytes,
        None if stores.disk is None else stores.disk.disk_free_bytes,
        _decoded(counts),
    )


def _rate(before: dict[str, int] | None, now: dict[str, int] | None, took_s: float) -> float | None:
    """Rejections per second; None if Redis was down or was emptied meanwhile."""
    if before is None or now is None:
        return None
    more = sum(now.values()) - sum(before.values())
    return None if more < 0 else round(more / took_s, 3)


def _ms(buckets: Buckets, part: float) -> float | None:
    quantile_s = quantile(metrics.WAIT_S, buckets, part)
    return None if quantile_s is None else round(quantile_s * 1_000, 3)


def _decoded(counts: Counts) -> list[tuple[str, str, int, int]]:
    rows = ((*name, int(decoded.records), int(decoded.rejected)) for name, decoded in sorted(counts.decoded.items()))
    return [row for row in rows if row[2] or row[3]]


def gauge_of(reports_by_process: LastReports, name: str) -> float | None:
    """The sum of a gauge over all processes that are up; None if none reports it."""
    values = [
        value
        for report, age_s in reports_by_process.values()
        if is_up(age_s)
        for _, value in report.samples.get(name, ())
        if not isinstance(value, Buckets)
    ]
    return sum(values) if values else None


class Sampler:
    """Takes samples and keeps the samples of the last hour."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        ask: Callable[[redis.Redis], Stores],
        reports_by_process: Callable[[], LastReports],
        monotonic: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._ask = ask
        self._last_reports = reports_by_process
        self._monotonic = monotonic
        self._kept: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._look: Look | None = None
        self._has_read = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(1)

    def samples(self, now_ms: int) -> list[Sample]:
        """The samples of the last hour, the oldest first."""
        return [one for one in list(self._kept) if now_ms - RETENTION_S * 1_000 < one.at_ms <= now_ms]

    def stores(self) -> Stores:
        """The facts about Redis and the disk at the last sample."""
        return self._look.stores if self._look else Stores()

    def counts(self) -> Counts:
        """Sums of the counters of all processes since their start."""
        return counts_of(report for report, _ in self._last_reports().values())

    def take(self, client: redis.Redis) -> None:
        """Read the state of the box, and add a sample for the time since the last call, if there was one."""
        reports_by_process = self._last_reports()
        reports = {name: report for name, (report, _) in reports_by_process.items()}
        look = Look(clock.now_us() / 1_000_000, self._monotonic(), reports, self._ask(client))
        before, self._look = self._look, look
        try:
            self._read(client)
            if before is not None:
                self._keep(client, sample_of(before, look, gauge_of(reports_by_process, metrics.OPEN_DAY_FILES.name)))
        except (StoreError, BusyError) as error:
            log.debug("cannot store a sample of the box in Redis: %s", error)

    def _read(self, client: redis.Redis) -> None:
        """Load the samples from before the start of this program, once."""
        if not self._has_read:
            self._kept.extendleft(reversed(list(_readable(shared_state.samples(client)))))
            self._has_read = True

    def _keep(self, client: redis.Redis, sample: Sample) -> None:
        while self._kept and self._kept[-1].at_ms >= sample.at_ms:  # the box's clock was set back
            self._kept.pop()
        self._kept.append(sample)
        shared_state.keep_sample(client, msgspec.json.encode(sample), MAX_SAMPLES)

    def _run(self) -> None:
        periodic.count_from_zero(SAMPLES)
        with self._connect() as client:
            wait_s = FIRST_S
            while not self._stop.wait(wait_s):
                wait_s = INTERVAL_S
                try:
                    self.take(client)
                except Exception:  # the next sample may succeed
                    periodic.note_error(SAMPLES)


def _readable(texts: list[bytes]) -> list[Sample]:
    """The samples that this release can decode; other releases may have written others."""
    samples = []
    for text in texts:
        try:
            samples.append(msgspec.json.decode(text, type=Sample))
        except msgspec.DecodeError as error:
            log.debug("cannot decode a sample: %s", error)
    return samples
