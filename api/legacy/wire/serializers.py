"""Serializes records as objects of the older service's two record sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from telemetry.codec import legacy_fields
from telemetry.hot_store.entry_codec import Latest, Slot
from telemetry.model.record import Stored


class Shown(NamedTuple):
    """The fields of a record that both sets use. It has coordinates only without a `location`."""

    device_id: str
    id: int
    timestamp_us: int
    latitude: float | None
    longitude: float | None
    speed_kmh: float | None
    location: str | None

    @classmethod
    def of(cls, stored: Stored) -> Shown:
        r = stored.record
        latitude, longitude = (r.latitude, r.longitude) if r.location is None else (None, None)
        return cls(stored.device_id, stored.id, r.timestamp_us, latitude, longitude, r.speed_kmh, r.location)


def http_record(shown: Shown) -> dict[str, Any]:
    """A record of `/tracking`."""
    return {
        "id": shown.id,
        "device_id": shown.device_id,
        "timestamp": _timestamp(shown),
        "location": _location(shown),
        "speed": legacy_fields.rounded(_speed(shown)),
    }


def tcp_record(shown: Shown) -> dict[str, Any]:
    """A record of `/tcp_tracking`."""
    return {
        "device_id": shown.device_id,
        "location": _location(shown),
        "speed": _speed(shown),
        "timestamp": _timestamp(shown),
    }


def _timestamp(shown: Shown) -> str:
    return legacy_fields.time_text(legacy_fields.moment(shown.timestamp_us))


def _location(shown: Shown) -> str:
    if shown.location is not None:
        return shown.location
    return "" if shown.latitude is None else f"{shown.latitude},{shown.longitude}"


def _speed(shown: Shown) -> float:
    return shown.speed_kmh or 0.0


class RecordSet(NamedTuple):
    """One of the two record sets: records received over HTTP, or all others."""

    path: str
    is_http: bool
    show: Callable[[Shown], dict[str, Any]]

    def holds(self, transport: str) -> bool:
        return (transport == "http") is self.is_http

    @property
    def condition(self) -> str:
        """The SQL condition that a record is in the set."""
        return f"transport {'=' if self.is_http else '<>'} 'http'"

    def newest(self, latest: Latest) -> Slot | None:
        return latest.http if self.is_http else latest.other


TRACKING = RecordSet("/tracking", True, http_record)
TCP_TRACKING = RecordSet("/tcp_tracking", False, tcp_record)
