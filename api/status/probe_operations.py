"""The OpenAPI operations of `/readyz` and `/metrics`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from telemetry.http.operations import Content, Operation


class Readiness(Struct, frozen=True):
    """Readiness of the box, with the reasons if it is not ready."""

    status: Literal["ready", "not ready"]
    reasons: list[str]


READYZ = Operation(
    "GET",
    "/readyz",
    "get_readyz",
    "Readiness of the box",
    "box",
    {
        200: Content("Ready", {"application/json": Readiness}),
        503: Content("Not ready, with the reasons", {"application/json": Readiness}),
    },
)

METRICS = Operation(
    "GET",
    "/metrics",
    "get_metrics",
    "Metrics of the whole box, for Prometheus",
    "box",
    {
        200: Content(
            "Prometheus text format, or OpenMetrics",
            {"text/plain": {"type": "string"}, "application/openmetrics-text": {"type": "string"}},
        )
    },
)
