"""A page of metrics, parsed with Prometheus's parser."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


class Scrape(dict[str, dict[Labels, float]]):
    """Name → labels → value."""

    @classmethod
    def of(cls, text: str) -> Scrape:
        found = cls()
        for family in families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float:
        """The only series of that name that has these labels; NaN if there is none."""
        found = [value for series, value in self.get(name, {}).items() if labels.items() <= dict(series).items()]
        assert len(found) <= 1, found
        return found[0] if found else float("nan")

    def or_0(self, name: str, **labels: str) -> float:
        """The same; 0 if there is none yet."""
        found = self.value(name, **labels)
        return 0.0 if math.isnan(found) else found


def families(text: str) -> Iterator[Metric]:
    """All families of a page."""
    yield from text_string_to_metric_families(text)
