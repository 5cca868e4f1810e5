"""`/metrics`: what all programs of the box count and what Redis and the disk say, for Prometheus, on one page.

The programs tell their meters once a second (telemetry/coordination/metric_reports.py); Redis and the disk are asked
when somebody looks. While Redis is away the page says so, and what is known without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import redis
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.status import redis_metrics
from api.status.probe_operations import METRICS
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.coordination.metric_reports import Listener, Report, Reporter, is_up
from telemetry.observability import metrics
from telemetry.observability.metric_types import Buckets, Counter, Family, Gauge, Histogram, Value
from telemetry.system.disk_space import Room

ASK_S = 1.0
"""How long Redis may take: Prometheus gives a scrape 10 s, and wants to know that Redis is silent."""

WHO = ("program", "process")
"""Labels of whatever a program counts."""


class Metrics:
    """Answers who scrapes."""

    def __init__(self, page: Collector) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(page)
        self._turn = asyncio.Lock()

    def routes(self) -> list[Route]:
        """The route."""
        return [METRICS.route(self.get_metrics)]

    async def get_metrics(self, request: Request) -> Response:
        """The page as text or OpenMetrics, whichever is asked for; one at a time."""
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        async with self._turn:
            body = await asyncio.to_thread(encoder, self._registry)
        return Response(body, headers={"Content-Type": content_type, "Vary": "Accept", "Cache-Control": "no-store"})


class Page(Collector):
    """Makes the page anew at each look."""

    def __init__(
        self, settings: Settings, reporter: Reporter, listener: Listener, client: redis.Redis, room: Room
    ) -> None:
        self._settings = settings
        self._reporter = reporter
        self._listener = listener
        self._client = client
        self._room = room

    def describe(self) -> Iterable[Metric]:
        """Nothing: to ask for names must not make a page."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        own = self._reporter.report()
        heard = self._listener.reports() | {own.name: (own, 0.0)}
        yield from redis_metrics.of_disk(self._room)
        yield from redis_metrics.of_redis(self._client, self._settings)
        yield from _programs(self._settings, heard)
        for family in metrics.FAMILIES.values():
            yield _page_of(family, heard)


Heard = dict[tuple[str, int], tuple[Report, float]]


def expected(settings: Settings) -> list[tuple[str, int]]:
    """The processes that a box has."""
    collectors = [(shared_state.COLLECTOR, number) for number in range(settings.collector.processes)]
    others = [shared_state.WORKER, shared_state.SCHEDULER, shared_state.QUERY, shared_state.API]
    if settings.needs_courier:  # else it need not run
        others.append(shared_state.COURIER)
    return [*collectors, *((program, 0) for program in others)]


def _programs(settings: Settings, heard: Heard) -> Iterator[Metric]:
    up = GaugeMetricFamily("whimbrel_up", "1 if the process has told its meters within 10 s, else 0.", labels=WHO)
    build = GaugeMetricFamily(
        "whimbrel_build_info", "The release that a process runs.", labels=(*WHO, "version", "python")
    )
    age = GaugeMetricFamily("whimbrel_report_age_seconds", "How long ago a process last told its meters.", labels=WHO)
    started = GaugeMetricFamily("whimbrel_start_time_seconds", "When a process began, s since epoch.", labels=WHO)
    for program, process in dict.fromkeys([*expected(settings), *heard]):
        who = (program, str(process))
        report, age_s = heard.get((program, process), (None, float("inf")))
        up.add_metric(who, is_up(age_s))
        if report is not None:
            age.add_metric(who, age_s)
            started.add_metric(who, report.started_s)
            build.add_metric((*who, report.version, report.python), 1)
    yield from (up, build, age, started)


def _page_of(family: Family[Any], heard: Heard) -> Metric:
    """A family of all processes. What was counted stays so; what was so is of worth only from those that are up."""
    found: Metric = KINDS[family.kind](family.name, family.meaning, labels=(*family.labels, *WHO))
    for report, age_s in heard.values():
        if family.kind is Gauge and not is_up(age_s):
            continue
        for values, value in report.samples.get(family.name, ()):
            if len(values) == len(family.labels):
                _add(found, (*values, report.program, str(report.process)), value, family)
    return found


def _add(found: Any, labels: Sequence[str], value: Value, family: Family[Any]) -> None:
    if isinstance(found, HistogramMetricFamily):
        if isinstance(value, Buckets) and len(value.counts) == len(family.bounds) + 1:
            ends = (*map(floatToGoString, family.bounds), "+Inf")
            found.add_metric(labels, list(zip(ends, accumulate(value.counts), strict=True)), value.sum)
    elif not isinstance(value, Buckets):
        found.add_metric(labels, value)


KINDS: dict[Any, type[Any]] = {
    Counter: CounterMetricFamily,
    Gauge: GaugeMetricFamily,
    Histogram: HistogramMetricFamily,
}
"""Kind of meter → what it is on the page."""
