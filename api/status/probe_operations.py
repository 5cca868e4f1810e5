"""The operations of who watches the box: `/readyz` and `/metrics`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from telemetry.http.operations import Content, Operation


class Readiness(Struct, frozen=True):
    """Whether the box does its work, and if not, why."""

    status: Literal["ready", "not ready"]
    reasons: list[str]


READYZ = Operation(
    "GET",
    "/readyz",
    "get_readyz",
    "Whether the box does its work",
    "box",
    {
        200: Content("It does", {"application/json": Readiness}),
        503: Content("It doesn't, and why", {"application/json": Readiness}),
    },
)

METRICS = Operation(
    "GET",
    "/metrics",
    "get_metrics",
    "What the whole box counts, for Prometheus",
    "box",
    {
        200: Content(
            "Its text format, or OpenMetrics",
            {"text/plain": {"type": "string"}, "application/openmetrics-text": {"type": "string"}},
        )
    },
)
