"""`GET /v1/box`: how the box is and was in the last hour, for the page that draws it.

The same numbers as `/metrics` has, of which api/status/sampler.py keeps a sample every 10 s. All of it is in memory
here, so that it costs nothing to look, also while Redis is away.
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
from api.status.sampler import INTERVAL_S, Heard, Sample, Sampler, Stores, gauge_of
from telemetry.config.settings import Settings
from telemetry.coordination.metric_reports import Report, is_up
from telemetry.http.operations import Content, Operation
from telemetry.model.utc import TimeText, iso
from telemetry.observability import metrics
from telemetry.observability.metric_types import Buckets
from telemetry.system import clock


class Series(Struct, frozen=True):
    """A number for each of `times`; null where it was not known. Rates and quantiles are of the time since the one
    before."""

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
    """Something that is bounded: how much there is, how much there may be, and how much there
    could be at all, null where that is the same. The unit is in the name."""

    name: str
    value: float
    limit: float
    whole: float | None = None


class DecoderCounts(Struct, frozen=True):
    """What came of a protocol since the programs began, and within the last hour: records that were decoded, and
    messages or records that could not be used."""

    protocol: str
    transport: str
    records: int
    rejected: int
    last_hour_records: int
    last_hour_rejected: int


class Quarantine(Struct, frozen=True):
    """What could not be saved: how often that was, how much was dropped for want of room, what is there."""

    quarantined: int
    dropped: int
    replayed: int
    size_bytes: int


class ProgramState(Struct, frozen=True):
    """A process of the box. One that is down shows what it said last."""

    program: str
    process: int
    is_up: bool
    version: str
    uptime_s: float
    memory_bytes: int | None


class BoxAnswer(Struct, frozen=True):
    """How the box is and was. `uptime_s` is that of the program that runs longest; `refused` is how much was
    ever refused, by reason; it and `quarantine` are null while Redis does not answer."""

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
    "How the box is, and was in the last hour",
    "box",
    {200: Content("It", {"application/json": BoxAnswer})},
)


class BoxRoutes:
    """Answers who asks how the box is."""

    def __init__(self, sampler: Sampler, heard: Callable[[], Heard], settings: Settings) -> None:
        self._sampler = sampler
        self._heard = heard
        self._settings = settings
        self._version = version("whimbrel")

    def routes(self) -> list[Route]:
        """The route."""
        return [BOX.route(self.get_box)]

    async def get_box(self, request: Request) -> Response:
        """All that is known, without asking anybody."""
        samples, heard = self._sampler.samples(clock.now_ms()), self._heard()
        programs = sorted(_programs(heard, time.time()), key=lambda one: (one.program, one.process))
        answer = BoxAnswer(
            self._version,
            max((one.uptime_s for one in programs if one.is_up), default=0.0),
            INTERVAL_S,
            [iso(one.at_ms * 1_000) for one in samples],
            Series(**{name: [getattr(one, name) for one in samples] for name in Series.__struct_fields__}),
            list(bounded(self._sampler.stores(), heard, self._settings)),
            _decoders(self._sampler.counts().decoded, samples),
            self._sampler.stores().refused,
            _quarantine(self._sampler.stores()),
            programs,
        )
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return Response(msgspec.json.encode(answer), headers=headers)


def bounded(stores: Stores, heard: Heard, settings: Settings) -> Iterator[Bounded]:
    """What is bounded and known, with its limits."""
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
        found, most_of_it = gauge_of(heard, value.name), gauge_of(heard, limit.name)
        if found is not None and most_of_it:
            yield Bounded(name, found, most_of_it)


GAUGES = (
    ("open_day_files", metrics.OPEN_DAY_FILES, metrics.OPEN_DAY_LIMIT),
    ("pending_bytes", metrics.PENDING_BYTES, metrics.PENDING_LIMIT),
    ("tcp_connections", metrics.CONNECTIONS, metrics.CONNECTIONS_LIMIT),
    ("query_memory_bytes", metrics.QUERY_MEMORY, metrics.QUERY_MEMORY_LIMIT),
)
"""Bounded things that programs tell of."""


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


def _programs(heard: Heard, now_s: float) -> Iterator[ProgramState]:
    for (program, process), (report, age_s) in heard.items():
        uptime_s = round(max(now_s - report.started_s, 0.0), 1)
        yield ProgramState(program, process, is_up(age_s), report.version, uptime_s, _memory_bytes(report))


def _memory_bytes(report: Report) -> int | None:
    for _, value in report.samples.get(metrics.RESIDENT_BYTES.name, ()):
        if not isinstance(value, Buckets):
            return int(value)
    return None
