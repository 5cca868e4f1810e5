"""OwnTracks over HTTP: locations as its phone apps and its recorders post them (booklet, "HTTP" and "JSON").

A message that is no location is answered as if it were taken: phones try a refused one for ever. The answer is an
empty array, for the app reads what it gets as messages to it.
"""

from __future__ import annotations

from collector.posts.contract import Post, Told
from collector.posts.json_body import Object, number, opened, read_json
from collector.protocols.framed import Options
from collector.protocols.tracker import Attributes, Position, sent
from telemetry.entries import Aside
from telemetry.errors import RecordError
from telemetry.fields import Arrival, read_timestamp
from telemetry.record import Sent

SOURCE = "owntracks"
NOTHING_TO_SAY = b"[]"

RENAMED = {
    "batt": "battery_percent",
    "uext": "external_v",
    "ubatt": "battery_v",
    "ign": "ignition",
    "vin": "vin",
    "name": "name",
    "rpm": "rpm",
    "motion": "motion",
    "t": "event",
}
"""What other protocols tell, too, by the name that it has there. All else keeps its own."""

KNOWN = frozenset(("_type", "lat", "lon", "alt", "vel", "cog", "acc", "tst", "tid", "topic", "odometer", "hmc"))

ALARMS = {"9": "power_cut", "1": "power_on", "i": "ignition_on", "I": "ignition_off", "E": "geofence_exit"}
ALARMS |= {"e": "geofence_enter", "!": "sos", "s": "overspeed", "h": "hard_cornering"}
"""Of trackers, not of phones: those have an `uext` or a `vin`."""


def read(post: Post, options: Options, arrival: Arrival) -> Told:
    """A message or an array of them. Raises `NotOurs`."""
    if not post.body.strip():
        return Told([], body=NOTHING_TO_SAY)  # the app's way to ask whether there is a message to it
    named = _named(post)
    records, aside = [], []
    for message in opened(read_json(post.body)):
        if message.get("_type") != "location":
            continue
        try:
            records.append(located(named, message, options, arrival))
        except RecordError as error:
            aside.append(Aside(device_of(named, message), str(error), post.body))
    return Told(records, tuple(aside), body=NOTHING_TO_SAY)


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
    attributes: Attributes = {RENAMED.get(name, name): value for name, value in message.items() if name not in KNOWN}
    odometer_km, engine_s = number(message, "odometer"), number(message, "hmc")
    trigger = message.get("t")
    attributes |= {
        "odometer_m": None if odometer_km is None else odometer_km * 1_000,
        "engine_s": engine_s,
        "alarm": ALARMS.get(trigger) if isinstance(trigger, str) and message.keys() & {"uext", "vin"} else None,
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
