"""Differences of counters between two sets of reports from all processes, and quantiles of histograms.

A restarted process counts from 0. A process without an earlier report that started before the earlier time is ignored:
the part of its counts that is new is unknown. Its later differences are used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from telemetry.coordination.metric_reports import Report
from telemetry.observability import metrics
from telemetry.observability.metric_types import Buckets

Reports = Mapping[tuple[str, int], Report]
"""(program, process) → its last report."""


class Decoded(NamedTuple):
    """Counts of a protocol: decoded records, stored or not, and rejected messages or records."""

    records: float = 0
    rejected: float = 0

    def minus(self, other: Decoded) -> Decoded:
        """The difference to earlier counts."""
        return Decoded(self.records - other.records, self.rejected - other.rejected)


Protocol = tuple[str, str]
"""A protocol and its transport: `("teltonika", "tcp")`."""


class Counts(NamedTuple):
    """Sums of the counters of all processes, since their start or between two times."""

    accepted: float
    ack: Buckets
    decoded: dict[Protocol, Decoded]


def counts_of(reports: Iterable[Report]) -> Counts:
    """The sums since the start of each process."""
    accepted = 0.0
    ack = _none()
    records: defaultdict[Protocol, float] = defaultdict(float)
    rejected: defaultdict[Protocol, float] = defaultdict(float)
    for report in reports:
        accepted += sum(number for _, number in _numbers(report, metrics.ACCEPTED.name))
        ack = _plus(ack, _ack(report), 1)
        for (protocol, transport, *_), number in _numbers(report, metrics.DECODED.name):
            records[protocol, transport] += number
        for (protocol, transport, *_), number in _numbers(report, metrics.REJECTED.name):
            rejected[protocol, transport] += number
    decoded = {name: Decoded(records[name], rejected[name]) for name in {**records, **rejected}}
    return Counts(accepted, ack, decoded)


def between(before: Reports, before_s: float, now: Reports) -> Counts:
    """The differences since the reports `before`, which were read at `before_s`, s since epoch."""
    same = {name for name, report in now.items() if name in before and before[name].started_s == report.started_s}
    started = {name for name, report in now.items() if report.started_s >= before_s}
    old = counts_of(before[name] for name in same)
    new = counts_of(now[name] for name in same | started)
    decoded = {name: counts.minus(old.decoded.get(name, Decoded())) for name, counts in new.decoded.items()}
    return Counts(new.accepted - old.accepted, _plus(new.ack, old.ack, -1), decoded)


def quantile(bounds: Sequence[float], buckets: Buckets, part: float) -> float | None:
    """The quantile `part` of a histogram, interpolated linearly within a bucket; None if it is empty.

    For values above all bounds, the last bound is returned.
    """
    rank = part * sum(buckets.counts)
    if rank <= 0:
        return None
    below = 0.0
    for count, low, high in zip(buckets.counts, (0.0, *bounds), bounds, strict=False):
        if count and below + count >= rank:
            return low + (high - low) * (rank - below) / count
        below += count
    return bounds[-1]


def _numbers(report: Report, name: str) -> Iterator[tuple[tuple[str, ...], float]]:
    for labels, value in report.samples.get(name, ()):
        if not isinstance(value, Buckets):
            yield labels, value


def _ack(report: Report) -> Buckets:
    values = (value for _, value in report.samples.get(metrics.ACK_S.name, ()))
    return next((one for one in values if isinstance(one, Buckets) and len(one.counts) == _BUCKETS), _none())


def _plus(one: Buckets, other: Buckets, sign: int) -> Buckets:
    counts = [a + sign * b for a, b in zip(one.counts, other.counts, strict=True)]
    return Buckets(counts, one.sum + sign * other.sum)


_BUCKETS = len(metrics.WAIT_S) + 1


def _none() -> Buckets:
    return Buckets([0] * _BUCKETS, 0.0)
