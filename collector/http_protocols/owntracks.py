"""OwnTracks over HTTP: locations as its phone apps and its recorders post them (booklet, "HTTP" and "JSON").

A message that is no location is answered as if it were taken: phones try a refused one for ever. The answer is an
empty array, for the app reads what it gets as messages to it.
"""

from __future__ import annotations

import re

from collector.framing.frame_decoder import Options
from collector.http_protocols.json_fields import Object, number, opened, read_json
from collector.http_protocols.protocol import Gathered, Post, Told
from collector.trackers.position import Attributes, Position, sent
from telemetry.codec.record_parser import Arrival, read_timestamp
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "owntracks"
NOTHING_TO_SAY = b"[]"

RENAMED = {
    "batt": "battery_percent",
    "uext": "external_v",
    "ubatt": "battery_v",
    "ign": "ignition",
    "vin": "vin",
    "name": "vin",
    "rpm": "rpm",
    "motion": "motion",
    "t": "event",
}
"""What other protocols tell, too, by the name that it has there. All else keeps its own."""

KNOWN = frozenset(("_type", "lat", "lon", "alt", "vel", "cog", "acc", "tst", "tid", "topic", "odometer", "hmc"))

ALARMS = {
    "9": "low_battery",
    "1": "power_on",
    "E": "power_restored",
    "e": "power_cut",
    "!": "tow",
    "s": "overspeed",
}
HARSH = ("hard_braking", "hard_acceleration", "hard_cornering") * 2
"""Of what kind an `h` is, by its `rty`."""

IGNITIONS = {"i": True, "I": False}
"""Of trackers: phones have other triggers."""

_DEGREES = re.compile(r"temp_c-(\d\d)", re.ASCII)


def read(post: Post, options: Options, arrival: Arrival) -> Told:
    """A message or an array of them. Raises `NotOurs`."""
    if not post.body.strip():
        return Told([], body=NOTHING_TO_SAY)  # the app's way to ask whether there is a message to it
    named = _named(post)
    gathered = Gathered(post.max_records)
    for message in opened(read_json(post.body)):
        if message.get("_type") != "location":
            continue
        try:
            record = located(named, message, options, arrival)
        except RecordError as error:
            gathered.refuse(device_of(named, message), str(error), post.body)
        else:
            gathered.add(record)
    return gathered.told(body=NOTHING_TO_SAY)


def _named(post: Post) -> str:
    """What the request itself says of its sender: the recorder's `u` and `d`, or the same as headers."""
    query = dict(post.query)
    user = query.get("u") or post.headers.get("x-limit-u") or post.user
    device = query.get("d") or post.headers.get("x-limit-d") or ""
    return f"owntracks/{user}/{device}" if user and device else ""


def device_of(named: str, message: Object) -> str:
    """The device: its topic, as over MQTT; else what the request says; else its two letters."""
    for found in (message.get("topic"), named, message.get("tid")):
        if isinstance(found, str) and found:
            return found
    return ""


def located(named: str, message: Object, options: Options, arrival: Arrival) -> Sent:
    """The record of a location. `named` is the device where the message doesn't say. Raises `RecordError`."""
    attributes: Attributes = {_name(name): value for name, value in message.items() if name not in KNOWN}
    odometer_km, engine_s = number(message, "odometer"), number(message, "hmc")
    attributes |= {
        "odometer_m": None if odometer_km is None else odometer_km * 1_000,
        "engine_hours": None if engine_s is None else round(engine_s / 3_600, 4),
        **_triggered(message),
    }
    position = Position(
        number(message, "lat"),
        number(message, "lon"),
        number(message, "alt"),
        number(message, "vel"),
        number(message, "cog"),
        number(message, "acc"),
    )
    at_us = read_timestamp(message.get("tst"), arrival)
    return sent(device_of(named, message), SOURCE, options, arrival, at_us, attributes, position)


def _name(name: str) -> str:
    if degrees := _DEGREES.fullmatch(name):
        at = int(degrees[1]) + 1
        return f"temperature{at}_c" if at > 1 else "temperature_c"
    return RENAMED.get(name, name)


def _triggered(message: Object) -> Attributes:
    """What the trigger of a tracker's message means."""
    trigger, kind = message.get("t"), message.get("rty")
    if not isinstance(trigger, str):
        return {}
    if trigger in IGNITIONS:
        return {"ignition": IGNITIONS[trigger]}
    if trigger == "h" and isinstance(kind, int) and 0 <= kind < len(HARSH):
        return {"alarm": HARSH[kind]}
    return {"alarm": ALARMS[trigger]} if trigger in ALARMS else {}
