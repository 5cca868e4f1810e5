"""What was counted between two looks at all processes' reports, and what a histogram's buckets say of it.

A process that was started again counts from 0. One that is heard for the first time, but began before the last look,
was counted already by somebody: only what follows is.
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
    """What came of a protocol: records that were decoded, stored or not, and messages or records of no use."""

    records: float = 0
    rejected: float = 0

    def less(self, other: Decoded) -> Decoded:
        """What came since it was `other`."""
        return Decoded(self.records - other.records, self.rejected - other.rejected)


Protocol = tuple[str, str]
"""A protocol, and over what it came: `("teltonika", "tcp")`."""


class Counts(NamedTuple):
    """What all processes together have counted: from their beginning, or between two looks."""

    accepted: float
    ack: Buckets
    decoded: dict[Protocol, Decoded]


def counts_of(reports: Iterable[Report]) -> Counts:
    """What they have counted since they began."""
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
    """What was counted since the reports of `before`, which were looked at at `before_s`, s since epoch."""
    goes_on = {name for name, one in now.items() if name in before and before[name].started_s == one.started_s}
    begun = {name for name, one in now.items() if one.started_s >= before_s}
    old = counts_of(before[name] for name in goes_on)
    new = counts_of(now[name] for name in goes_on | begun)
    decoded = {name: found.less(old.decoded.get(name, Decoded())) for name, found in new.decoded.items()}
    return Counts(new.accepted - old.accepted, _plus(new.ack, old.ack, -1), decoded)


def quantile(bounds: Sequence[float], buckets: Buckets, part: float) -> float | None:
    """The value that `part` of all are at most, taken to lie evenly within a bucket; None if there are none.

    What lies above all bounds is said to be the last one.
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
