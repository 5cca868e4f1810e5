"""`/metrics` for Prometheus: the metrics of all programs of the box, of Redis and of the disk.

The programs report their metrics once a second (telemetry/coordination/metric_reports.py). Redis and the disk are read
at each scrape. While Redis is down, `whimbrel_redis_up` is 0, and the other metrics remain available.
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
"""Timeout of Redis commands: well below the 10 s of a scrape, so that a scrape reports an unresponsive Redis."""

PROCESS_LABELS = ("program", "process")
"""Labels of all metrics of programs."""


class Metrics:
    """Handler of `/metrics`."""

    def __init__(self, page: Collector) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(page)
        self._turn = asyncio.Lock()

    def routes(self) -> list[Route]:
        """The route."""
        return [METRICS.route(self.get_metrics)]

    async def get_metrics(self, request: Request) -> Response:
        """The metrics in the requested format, text or OpenMetrics; one scrape at a time."""
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        async with self._turn:
            body = await asyncio.to_thread(encoder, self._registry)
        return Response(body, headers={"Content-Type": content_type, "Vary": "Accept", "Cache-Control": "no-store"})


class Page(Collector):
    """Collects the metrics at each scrape."""

    def __init__(
        self, settings: Settings, reporter: Reporter, listener: Listener, client: redis.Redis, room: Room
    ) -> None:
        self._settings = settings
        self._reporter = reporter
        self._listener = listener
        self._client = client
        self._room = room

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registration does not collect metrics."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metric families."""
        own = self._reporter.report()
        reports_by_process = self._listener.reports() | {own.name: (own, 0.0)}
        yield from redis_metrics.of_disk(self._room)
        yield from redis_metrics.of_redis(self._client, self._settings)
        yield from _programs(self._settings, reports_by_process)
        for family in metrics.FAMILIES.values():
            yield _page_of(family, reports_by_process)


LastReports = dict[tuple[str, int], tuple[Report, float]]


def expected(settings: Settings) -> list[tuple[str, int]]:
    """The processes that should run in a box with these settings."""
    collectors = [(shared_state.COLLECTOR, number) for number in range(settings.collector.processes)]
    others = [shared_state.WORKER, shared_state.SCHEDULER, shared_state.QUERY, shared_state.API]
    if settings.needs_courier:  # otherwise it need not run
        others.append(shared_state.COURIER)
    return [*collectors, *((program, 0) for program in others)]


def _programs(settings: Settings, reports_by_process: LastReports) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "whimbrel_up", "1 if the process has reported its metrics within 10 s, else 0.", labels=PROCESS_LABELS
    )
    build = GaugeMetricFamily(
        "whimbrel_build_info", "Release of a process.", labels=(*PROCESS_LABELS, "version", "python")
    )
    age = GaugeMetricFamily("whimbrel_report_age_seconds", "Age of a process's last report.", labels=PROCESS_LABELS)
    started = GaugeMetricFamily(
        "whimbrel_start_time_seconds", "Start time of a process, s since epoch.", labels=PROCESS_LABELS
    )
    for program, process in dict.fromkeys([*expected(settings), *reports_by_process]):
        labels = (program, str(process))
        report, age_s = reports_by_process.get((program, process), (None, float("inf")))
        up.add_metric(labels, is_up(age_s))
        if report is not None:
            age.add_metric(labels, age_s)
            started.add_metric(labels, report.started_s)
            build.add_metric((*labels, report.version, report.python), 1)
    yield from (up, build, age, started)


def _page_of(family: Family[Any], reports_by_process: LastReports) -> Metric:
    """A metric family of all processes. Counters of stopped processes are kept; gauges only of processes that are
    up."""
    found: Metric = KINDS[family.kind](family.name, family.meaning, labels=(*family.labels, *PROCESS_LABELS))
    for report, age_s in reports_by_process.values():
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
"""Kind of metric → class of its family for Prometheus."""
