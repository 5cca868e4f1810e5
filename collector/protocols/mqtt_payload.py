"""Decoder of MQTT payloads: a JSON record or array of records, or an OwnTracks message. The topic names the device.

If a message names a device itself, as messages of a gateway may, that device is used instead of the topic's.
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


class DecodedPayload(NamedTuple):
    """Records of a message, and its rejected records."""

    records: list[Sent]
    aside: tuple[Aside, ...] = ()
    refused: int = 0
    """Number of rejected records. `aside` has the message once, for the first of them."""


def read(topic: str, payload: bytes, filters: Sequence[Filter], options: Options, arrival: Arrival) -> DecodedPayload:
    """Decode any message. Rejected ones go to quarantine: without an acknowledgement, the broker would repeat them.

    A topic that no filter matches has no records: the session at the broker still has a subscription that the settings
    no longer name.
    """
    devices = [device for topic_filter in filters if (device := topic_filter.device_of(topic)) is not None]
    if not payload or not devices:  # an empty payload deletes the broker's retained message
        return DecodedPayload([])
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
    return DecodedPayload(gathered.records, tuple(gathered.aside), gathered.refused)


def _refused(device_id: str, reason: str, payload: bytes) -> DecodedPayload:
    return DecodedPayload([], (Aside(device_id, reason, payload),), 1)


def _gather(
    gathered: Gathered, topic: str, device_id: str, message: Object, payload: bytes, options: Options, arrival: Arrival
) -> None:
    try:
        records = _records(topic, device_id, message, options, arrival)
    except RecordError as error:
        gathered.refuse(device_id or topic, f"{topic}: {error}", payload)
        return
    for record in records:
        gathered.add(record)


def _records(topic: str, device_id: str, message: Object, options: Options, arrival: Arrival) -> list[Sent]:
    if "_type" in message:
        is_location = message["_type"] == "location"
        return [owntracks.located(topic, {**message, "topic": topic}, options, arrival)] if is_location else []
    is_unnamed = bool(device_id) and not any(field_of(name) == "device_id" for name in message)
    named = {"device_id": device_id, **message} if is_unnamed else message
    of_unit = arrival._replace(speed_unit=options.speed_unit) if options.speed_unit else arrival
    sent = read_fields(named, options.transport, SOURCE, of_unit)
    return [replace(sent, is_stored_once=sent.record.timestamp_us != arrival.now_us)]
