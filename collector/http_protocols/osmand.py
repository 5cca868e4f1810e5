"""OsmAnd's protocol, which Traccar's phone apps speak, in three dialects: a query, a form, or JSON.

A query or form has a record's fields as they are. Nothing in it names the unit of its speed: OsmAnd and GPSLogger send
m/s, Traccar Client sends knots. `_speed_unit` tells them apart by the names of their fields, unless the listener has a
`speed_unit`. JSON, of Traccar Client 9, has one location, its speed in m/s; below 0 is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from urllib.parse import parse_qsl

from collector.framing.frame_decoder import Options
from collector.http_protocols.json_fields import flag, item, items, number, opened, read_json
from collector.http_protocols.protocol import Gathered, NotOurs, Post, Told
from collector.trackers.position import Attributes, Position, cell, sent
from telemetry.codec.record_parser import KMH, Arrival, read_number, read_timestamp
from telemetry.hot_store.entry_codec import Aside
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "osmand"
MAX_FIELDS = 1_000
TRUE = ("true", "1")

SECRETS = frozenset(("notificationToken", "token"))
"""Who holds the one may wake the phone, who holds the other may write as it; nobody who reads records needs either."""

RENAMED = {
    "batt": "battery_percent",
    "charge": "charging",
    "driverUniqueId": "driver_id",
    "sat": "satellites",
    "battery": "battery_v",
    "batteryLevel": "battery_percent",
    "power": "external_v",
    "odometer": "odometer_m",
    "rssi": "gsm_signal",
}
"""Names of the apps, and of programs that send what a Traccar server calls so, in the same units."""

PLACES = ("lat", "lon", "location", "speed", "bearing", "heading", "altitude", "accuracy", "valid")
KNOWN = frozenset(("id", "deviceid", "timestamp", "cell", "wifi", *PLACES, *SECRETS))
"""What is more than an attribute, in whatever case it is written. All else is one."""

_WRITTEN = {name.lower(): name for name in KNOWN}

TRACCAR_CLIENT, OTHER_APPS = "batt", "hdop"
"""Traccar Client sends `batt` in all versions and `hdop` in none; addresses for OsmAnd and GPSLogger have `hdop`."""

Pairs = Sequence[tuple[str, str]]


def read(post: Post, options: Options, arrival: Arrival) -> Told:
    """A request of any dialect. Raises `NotOurs`."""
    if post.content_type.startswith("application/json"):
        return _read_json(post.body, post.max_records, options, arrival)
    pairs = _as_known(post.query or _form(post.body))
    fields = dict(pairs)
    device_id = fields.get("id") or fields.get("deviceid") or ""
    if not device_id:
        raise NotOurs("neither a query nor a form with an `id`")
    try:
        return Told([_record(device_id, pairs, fields, options, arrival)])
    except RecordError as error:
        raw = "&".join(f"{name}={value}" for name, value in pairs if name not in SECRETS)
        return Told([], (Aside(device_id, str(error), raw.encode(errors="replace")),))


# A query or a form -----------------------------------------------------------------------------------


def _form(body: bytes) -> Pairs:
    try:
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise NotOurs(f"a form of more than {MAX_FIELDS} fields") from None


def _as_known(pairs: Pairs) -> Pairs:
    """The same with known names as `KNOWN` writes them. One that is sent in both ways stays, but for a secret."""
    as_sent = {name for name, _ in pairs} - SECRETS
    return [(name if (own := _WRITTEN.get(name.lower(), name)) in as_sent else own, value) for name, value in pairs]


def _record(device_id: str, pairs: Pairs, fields: dict[str, str], options: Options, arrival: Arrival) -> Sent:
    latitude, longitude = _coordinates(fields)
    speed = _from_0(read_number("speed", fields.get("speed") or None))
    attributes: Attributes = {
        RENAMED.get(name, name): _value(value) for name, value in pairs if name not in KNOWN and value != ""
    }
    attributes |= {"cells": _cells(pairs) or None, "wifi": _access_points(pairs) or None}
    position = Position(
        latitude,
        longitude,
        read_number("altitude", fields.get("altitude") or None),
        None if speed is None else speed * KMH[options.speed_unit or _speed_unit(fields)],
        _from_0(read_number("bearing", fields.get("bearing") or fields.get("heading") or None)),
        _from_0(read_number("accuracy", fields.get("accuracy") or None)),
        fields.get("valid", "true").lower() in TRUE,
    )
    at_us = _timestamp(fields.get("timestamp"), options.timezone, arrival)
    return sent(device_id, SOURCE, options, arrival, at_us, attributes, position)


def _speed_unit(fields: dict[str, str]) -> str:
    return "knots" if TRACCAR_CLIENT in fields and OTHER_APPS not in fields else "ms"


def _coordinates(fields: dict[str, str]) -> tuple[float | None, float | None]:
    latitude, longitude = fields.get("lat"), fields.get("lon")
    if latitude is None and longitude is None and "location" in fields:
        latitude, _, longitude = fields["location"].partition(",")
    return read_number("lat", latitude or None), read_number("lon", longitude or None)


def _timestamp(text: str | None, zone: tzinfo, arrival: Arrival) -> int | None:
    """An epoch in s or ms, ISO 8601, or `2026-11-24 10:25:00` where the devices are."""
    if not text:
        return None
    try:
        local = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
    except ValueError:
        return read_timestamp(text, arrival)
    return round(local.timestamp()) * 1_000_000


def _value(text: str) -> object:
    """A number or a truth, as it is written; else text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        found = read_number("", text)
    except RecordError:
        return text
    return text if found is None or (text.isdigit() and len(text) > 15) else found


def _cells(pairs: Pairs) -> list[dict[str, int]]:
    """Of `cell=mcc,mnc,lac,cid[,rssi]`, any number of them."""
    found = []
    for name, value in pairs:
        parts = value.split(",")
        if name == "cell" and len(parts) in (4, 5) and all(part.lstrip("-").isdecimal() for part in parts):
            mcc, mnc, lac, cid, *rssi = map(int, parts)
            found.append(cell(mcc, mnc, lac, cid) | ({"level": rssi[0]} if rssi else {}))
    return found


def _access_points(pairs: Pairs) -> list[dict[str, object]]:
    """Of `wifi=mac,rssi`, the bytes of the address with a `-` between them."""
    found: list[dict[str, object]] = []
    for name, value in pairs:
        mac, _, rssi = value.partition(",")
        if name == "wifi" and rssi.lstrip("-").isdecimal():
            found.append({"mac": mac.replace("-", ":").lower(), "level": int(rssi)})
    return found


# JSON ------------------------------------------------------------------------------------------------


def _read_json(body: bytes, max_records: int, options: Options, arrival: Arrival) -> Told:
    gathered = Gathered(max_records)
    for one in opened(read_json(body)):
        device_id = str(one.get("device_id") or "")
        if not device_id:
            raise NotOurs("JSON without a `device_id`")
        for location in items(one, "location"):
            try:
                record = _located(device_id, location, options, arrival)
            except RecordError as error:
                gathered.refuse(device_id, str(error), body)
            else:
                gathered.add(record)
    return gathered.told()


def _located(device_id: str, location: dict[str, object], options: Options, arrival: Arrival) -> Sent:
    coords, battery = item(location, "coords"), item(location, "battery")
    level = _from_0(number(battery, "level"))
    attributes: Attributes = {
        **item(location, "extras"),
        "event": location.get("event") or None,
        "motion": flag(location, "is_moving"),
        "odometer_m": number(location, "odometer"),
        "activity": item(location, "activity").get("type"),
        "battery_percent": None if level is None else round(level * 100, 1),
        "charging": flag(battery, "is_charging"),
        "alarm": location.get("alarm") or item(location, "extras").get("alarm") or None,
        "mock": True if location.get("mock") is True else None,
    }
    speed_ms = _from_0(number(coords, "speed"))
    position = Position(
        number(coords, "latitude"),
        number(coords, "longitude"),
        number(coords, "altitude"),
        None if speed_ms is None else speed_ms * KMH["ms"],
        _from_0(number(coords, "heading")),
        _from_0(number(coords, "accuracy")),
    )
    at_us = read_timestamp(location.get("timestamp"), arrival)
    return sent(device_id, SOURCE, options, arrival, at_us, attributes, position)


def _from_0(value: float | None) -> float | None:
    """Below 0 is unknown."""
    return value if value is not None and value >= 0 else None
