"""What a Traccar server forwards (`forward.type = json`): so Whimbrel keeps the history of any of its 260 protocols.

One position a request, with the device that it came from; 2xx is "delivered".
"""

from __future__ import annotations

from collector.framing.frame_decoder import Options
from collector.http_protocols.json_fields import Object, item, number, opened, read_json
from collector.http_protocols.protocol import Gathered, NotOurs, Post, Told
from collector.trackers.position import Attributes, Position, sent
from telemetry.codec.record_parser import KMH, Arrival, read_timestamp
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "traccar"

RENAMED = {
    "sat": "satellites",
    "batteryLevel": "battery_percent",
    "battery": "battery_v",
    "power": "external_v",
    "charge": "charging",
    "odometer": "odometer_m",
    "totalDistance": "total_distance_m",
    "tripOdometer": "trip_m",
    "driverUniqueId": "driver_id",
    "archive": "buffered",
    "rssi": "gsm_signal",
}
"""Traccar's name → ours (docs/attributes.md). All else keeps its own, and its unit."""


def read(post: Post, options: Options, arrival: Arrival) -> Told:
    """A forwarded position, or an array of them. Raises `NotOurs`."""
    gathered = Gathered(post.max_records)
    for forwarded in opened(read_json(post.body)):
        position, device = item(forwarded, "position"), item(forwarded, "device")
        device_id = str(device.get("uniqueId") or "")
        if not position or not device_id:
            raise NotOurs("it has no `position`, or no `device` with a `uniqueId`")
        try:
            record = _record(device_id, position, device, options, arrival)
        except RecordError as error:
            gathered.refuse(device_id, str(error), post.body)
        else:
            gathered.add(record)
    return gathered.told()


def _record(device_id: str, position: Object, device: Object, options: Options, arrival: Arrival) -> Sent:
    own = item(position, "attributes")
    attributes: Attributes = {RENAMED.get(name, name): value for name, value in own.items()}
    attributes |= {
        "protocol": position.get("protocol"),
        "address": position.get("address"),
        "name": device.get("name"),
        "geofence_ids": position.get("geofenceIds") or None,
        "cells": item(position, "network").get("cellTowers") or None,
    }
    speed_knots = number(position, "speed")
    place = Position(
        number(position, "latitude"),
        number(position, "longitude"),
        number(position, "altitude"),
        None if speed_knots is None else speed_knots * KMH["knots"],
        number(position, "course"),
        number(position, "accuracy") or None,  # 0 is unknown there
        position.get("valid") is not False,
    )
    at_us = read_timestamp(position.get("fixTime") or position.get("deviceTime"), arrival)
    return sent(device_id, SOURCE, options, arrival, at_us, attributes, place)
