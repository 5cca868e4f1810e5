"""What a Traccar server forwards, with its names and units made ours."""

from __future__ import annotations

from typing import Any

import pytest

from collector.http_protocols.protocol import NotOurs
from collector.http_protocols.traccar import read
from tests.collector.http_protocols.posting import only, posted, told

POSITION: dict[str, Any] = {
    "id": 0,
    "deviceId": 7,
    "protocol": "teltonika",
    "serverTime": "2026-03-01T12:00:05.000+00:00",
    "deviceTime": "2026-03-01T12:00:01.000+00:00",
    "fixTime": "2026-03-01T12:00:00.000+00:00",
    "valid": True,
    "latitude": 41.0082,
    "longitude": 28.9784,
    "altitude": 35.0,
    "speed": 19.438452,
    "course": 270.0,
    "address": "Karaköy",
    "accuracy": 0.0,
    "network": None,
    "geofenceIds": [3],
    "attributes": {"sat": 9, "batteryLevel": 80, "power": 12.65, "obdSpeed": 10, "ignition": True, "io99": 5},
}
DEVICE = {"id": 7, "name": "Van 7", "uniqueId": "356307042441013", "status": "online"}


def test_a_forwarded_position() -> None:
    device, record, attributes = only(told(read, posted({"position": POSITION, "device": DEVICE})))
    assert (device, record.source, record.timestamp_us) == ("356307042441013", "traccar", 1_772_366_400_000_000)
    assert (record.latitude, record.altitude_m, record.heading_deg, record.accuracy_m) == (41.0082, 35, 270, None)
    assert record.speed_kmh == pytest.approx(36.0, abs=1e-4)
    assert attributes == {
        "satellites": 9,
        "battery_percent": 80,
        "external_v": 12.65,
        "obdSpeed": 10,
        "ignition": True,
        "io99": 5,
        "protocol": "teltonika",
        "address": "Karaköy",
        "name": "Van 7",
        "geofence_ids": [3],
    }


def test_a_position_that_is_not_valid_is_no_fix() -> None:
    _, record, attributes = only(told(read, posted({"position": {**POSITION, "valid": False}, "device": DEVICE})))
    assert (record.has_fix, attributes["fix"]) == (False, False)


def test_a_bad_position_is_set_aside() -> None:
    found = told(read, posted({"position": {**POSITION, "latitude": 100}, "device": DEVICE}))
    assert (found.status, found.records, found.aside[0].device_id) == (200, [], "356307042441013")


@pytest.mark.parametrize("value", [{}, {"position": POSITION}, {"device": DEVICE}, b"x", [1]])
def test_what_no_traccar_sends(value: object) -> None:
    with pytest.raises(NotOurs):
        told(read, posted(value))
