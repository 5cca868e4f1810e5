"""Records as the API's JSON shows them: every field present, times in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telemetry.model.record import Stored
from telemetry.model.utc import TimeText, iso

encode = msgspec.json.Encoder().encode


class RecordAnswer(msgspec.Struct, frozen=True, gc=False):
    """One record. Units are in the names; null is unknown; `attributes` is as the device sent it."""

    device_id: str
    timestamp: TimeText
    received_at: TimeText
    id: int
    transport: str
    source: str
    latitude: float | None
    longitude: float | None
    altitude_m: float | None
    speed_kmh: float | None
    heading_deg: float | None
    accuracy_m: float | None
    location: str | None
    attributes: Annotated[msgspec.Raw | None, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})]


def of_row(row: tuple[Any, ...]) -> RecordAnswer:
    """A record from a row of the archive's columns, its two times as µs since the epoch."""
    raw = None if row[-1] is None else msgspec.Raw(row[-1].encode())
    return RecordAnswer(row[0], iso(row[1]), iso(row[2]), *row[3:-1], raw)  # type: ignore[call-arg]


def of_stored(stored: Stored) -> RecordAnswer:
    """A record from the hot store."""
    r = stored.record
    return RecordAnswer(
        stored.device_id,
        iso(r.timestamp_us),
        iso(stored.received_ms * 1_000),
        stored.id,
        r.transport,
        r.source,
        r.latitude,
        r.longitude,
        r.altitude_m,
        r.speed_kmh,
        r.heading_deg,
        r.accuracy_m,
        r.location,
        None if r.attributes is None else msgspec.Raw(r.attributes.encode()),
    )


def json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(encode(value), status, headers, "application/json")


def wants_json(request: Request) -> bool:
    """Whether the client names JSON among what it accepts, as programs do and browsers don't."""
    return "json" in request.headers.get("accept", "")
