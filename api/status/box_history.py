"""`GET /v1/box`: the state of the box now and in the last hour, for the page's charts.

The numbers are the same as in `/metrics`; sampler.py takes a sample every 10 s. All of them are in memory, so that
requests are cheap and work while Redis is down.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.status.counter_rates import Decoded, Protocol
from api.status.sampler import INTERVAL_S, LastReports, Sample, Sampler, Stores, gauge_of
from telemetry.config.settings import Settings
from telemetry.coordination.metric_reports import Report, is_up
from telemetry.http.operations import Content, Operation
from telemetry.model.utc import TimeText, iso
from telemetry.observability import metrics
from telemetry.observability.metric_types import Buckets
from telemetry.system import clock


class Series(Struct, frozen=True):
    """A value for each of `times`; null if unknown. Rates and quantiles cover the time since the previous sample."""

    accepted_per_s: list[float | None]
    refused_per_s: list[float | None]
    ack_p50_ms: list[float | None]
    ack_p99_ms: list[float | None]
    unsaved_records: list[int | None]
    unsaved_age_s: list[float | None]
    open_day_files: list[int | None]
    redis_memory_bytes: list[int | None]
    disk_free_bytes: list[int | None]


class Bounded(Struct, frozen=True):
    """A limited quantity: its value, its limit, and the total capacity, null if the limit is the capacity. The name
    contains the unit."""

    name: str
    value: float
    limit: float
    whole: float | None = None


class DecoderCounts(Struct, frozen=True):
    """Counts of a protocol since the programs started, and in the last hour: decoded records, and rejected messages or
    records."""

    protocol: str
    transport: str
    records: int
    rejected: int
    last_hour_records: int
    last_hour_rejected: int


class Quarantine(Struct, frozen=True):
    """Data that could not be saved: the counts of quarantined, dropped (no space left) and replayed items, and the
    current size."""

    quarantined: int
    dropped: int
    replayed: int
    size_bytes: int


class ProgramState(Struct, frozen=True):
    """A process of the box. If it is down, the values are from its last report."""

    program: str
    process: int
    is_up: bool
    version: str
    uptime_s: float
    memory_bytes: int | None


class BoxAnswer(Struct, frozen=True):
    """The state of the box now and in the last hour. `uptime_s` is the uptime of the program that has run the longest.
    `refused` counts all rejections by reason; it and `quarantine` are null while Redis does not respond."""

    version: str
    uptime_s: float
    interval_s: float
    times: list[TimeText]
    series: Series
    bounded: list[Bounded]
    decoders: list[DecoderCounts]
    refused: dict[str, int] | None
    quarantine: Quarantine | None
    programs: list[ProgramState]


BOX = Operation(
    "GET",
    "/v1/box",
    "get_box",
    "The state of the box now and in the last hour",
    "box",
    {200: Content("The state", {"application/json": BoxAnswer})},
)


class BoxRoutes:
    """Handler of `GET /v1/box`."""

    def __init__(self, sampler: Sampler, reports_by_process: Callable[[], LastReports], settings: Settings) -> None:
        self._sampler = sampler
        self._last_reports = reports_by_process
        self._settings = settings
        self._version = version("whimbrel")

    def routes(self) -> list[Route]:
        """The route."""
        return [BOX.route(self.get_box)]

    async def get_box(self, request: Request) -> Response:
        """The state, from memory."""
        samples, reports_by_process = self._sampler.samples(clock.now_ms()), self._last_reports()
        programs = sorted(_programs(reports_by_process, time.time()), key=lambda one: (one.program, one.process))
        answer = BoxAnswer(
            self._version,
            max((one.uptime_s for one in programs if one.is_up), default=0.0),
            INTERVAL_S,
            [iso(one.at_ms * 1_000) for one in samples],
            Series(**{name: [getattr(one, name) for one in samples] for name in Series.__struct_fields__}),
            list(bounded(self._sampler.stores(), reports_by_process, self._settings)),
            _decoders(self._sampler.counts().decoded, samples),
            self._sampler.stores().refused,
            _quarantine(self._sampler.stores()),
            programs,
        )
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return Response(msgspec.json.encode(answer), headers=headers)


def bounded(stores: Stores, reports_by_process: LastReports, settings: Settings) -> Iterator[Bounded]:
    """The known limited quantities."""
    if (server := stores.server) is not None and server.redis_memory_limit_bytes:
        whole = server.redis_memory_limit_bytes
        full = whole * settings.redis.full_percent / 100
        yield Bounded("redis_memory_bytes", server.redis_memory_bytes, full, whole)
    if (disk := stores.disk) is not None:
        used, most = disk.disk_bytes - disk.disk_free_bytes, disk.disk_bytes - disk.disk_min_free_bytes
        yield Bounded("disk_used_bytes", used, max(most, 0), disk.disk_bytes)
    if (fills := stores.fills) is not None:
        shards = len(fills)
        yield Bounded("devices", sum(one.devices for one in fills), settings.collector.max_devices * shards)
        size = sum(one.quarantine_bytes for one in fills)
        yield Bounded("quarantine_bytes", size, settings.persist.quarantine_max_bytes * shards)
    for name, value, limit in GAUGES:
        found, most_of_it = gauge_of(reports_by_process, value.name), gauge_of(reports_by_process, limit.name)
        if found is not None and most_of_it:
            yield Bounded(name, found, most_of_it)


GAUGES = (
    ("open_day_files", metrics.OPEN_DAY_FILES, metrics.OPEN_DAY_LIMIT),
    ("pending_bytes", metrics.PENDING_BYTES, metrics.PENDING_LIMIT),
    ("tcp_connections", metrics.CONNECTIONS, metrics.CONNECTIONS_LIMIT),
    ("query_memory_bytes", metrics.QUERY_MEMORY, metrics.QUERY_MEMORY_LIMIT),
)
"""Limited quantities in the programs' metrics: name, gauge of the value, gauge of the limit."""


def _decoders(counts: dict[Protocol, Decoded], samples: Sequence[Sample]) -> list[DecoderCounts]:
    hour: defaultdict[Protocol, list[int]] = defaultdict(lambda: [0, 0])
    for sample in samples:
        for protocol, transport, records, rejected in sample.decoded:
            hour[protocol, transport][0] += records
            hour[protocol, transport][1] += rejected
    found = {**counts, **{name: counts.get(name, Decoded()) for name in hour}}
    return [
        DecoderCounts(*name, int(one.records), int(one.rejected), *hour.get(name, (0, 0)))
        for name, one in sorted(found.items())
        if one.records or one.rejected or name in hour
    ]


def _quarantine(stores: Stores) -> Quarantine | None:
    if (fills := stores.fills) is None:
        return None
    counts = [one.quarantine for one in fills]
    return Quarantine(
        sum(one.kept for one in counts),
        sum(one.dropped for one in counts),
        sum(one.replayed for one in counts),
        sum(one.quarantine_bytes for one in fills),
    )


def _programs(reports_by_process: LastReports, now_s: float) -> Iterator[ProgramState]:
    for (program, process), (report, age_s) in reports_by_process.items():
        uptime_s = round(max(now_s - report.started_s, 0.0), 1)
        yield ProgramState(program, process, is_up(age_s), report.version, uptime_s, _memory_bytes(report))


def _memory_bytes(report: Report) -> int | None:
    for _, value in report.samples.get(metrics.RESIDENT_BYTES.name, ()):
        if not isinstance(value, Buckets):
            return int(value)
    return None
