"""What a message over MQTT says: a record or an array of them as JSON, or one of OwnTracks; its topic names the device.

A message that names its own device, as one of a gateway may, is of that device, whatever its topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from collector.framing.frame_decoder import Options
from collector.http_protocols import owntracks
from collector.http_protocols.json_fields import Object, opened, read_json
from collector.http_protocols.protocol import MAX_RECORDS, Gathered, NotOurs
from telemetry.codec.record_parser import Arrival, field_of
from telemetry.codec.record_parser import read as read_fields
from telemetry.hot_store.entry_codec import Aside
from telemetry.model.errors import RecordError, TooLarge
from telemetry.model.mqtt_topics import Filter
from telemetry.model.record import Sent

SOURCE = "mqtt"


class Heard(NamedTuple):
    """What a message says, and what of it can't be used."""

    records: list[Sent]
    aside: tuple[Aside, ...] = ()
    refused: int = 0
    """Records that can't be used; of the first of them `aside` has the message."""


def read(topic: str, payload: bytes, filters: Sequence[Filter], options: Options, arrival: Arrival) -> Heard:
    """A message of any kind. What can never be taken is set aside: the broker would bring it for ever.

    A topic that no filter matches has no records: the session at the broker still has a subscription that the settings
    no longer name.
    """
    devices = [found for one in filters if (found := one.device_of(topic)) is not None]
    if not payload or not devices:  # a message without payload makes the broker forget the one that it retained
        return Heard([])
    device_id = next(filter(None, devices), "")
    try:
        messages = opened(read_json(payload))
    except NotOurs as error:
        return _refused(device_id or topic, f"{topic}: {error}", payload)
    gathered = Gathered(MAX_RECORDS)
    try:
        for message in messages:
            _gather(gathered, topic, device_id, message, payload, options, arrival)
    except TooLarge as error:
        return _refused(device_id or topic, f"{topic}: {error}", payload)
    return Heard(gathered.records, tuple(gathered.aside), gathered.refused)


def _refused(device_id: str, reason: str, payload: bytes) -> Heard:
    return Heard([], (Aside(device_id, reason, payload),), 1)


def _gather(
    gathered: Gathered, topic: str, device_id: str, message: Object, payload: bytes, options: Options, arrival: Arrival
) -> None:
    try:
        found = _records(topic, device_id, message, options, arrival)
    except RecordError as error:
        gathered.refuse(device_id or topic, f"{topic}: {error}", payload)
        return
    for record in found:
        gathered.add(record)


def _records(topic: str, device_id: str, message: Object, options: Options, arrival: Arrival) -> list[Sent]:
    if "_type" in message:
        is_location = message["_type"] == "location"
        return [owntracks.located(topic, {**message, "topic": topic}, options, arrival)] if is_location else []
    is_unnamed = bool(device_id) and not any(field_of(name) == "device_id" for name in message)
    named = {"device_id": device_id, **message} if is_unnamed else message
    of_unit = arrival._replace(speed_unit=options.speed_unit) if options.speed_unit else arrival
    found = read_fields(named, options.transport, SOURCE, of_unit)
    return [replace(found, is_stored_once=found.record.timestamp_us != arrival.now_us)]
