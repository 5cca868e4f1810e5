"""What a message over MQTT says: a record or an array of them as JSON, or one of OwnTracks; its topic names the device.

A topic to hear is a filter, in which the level that is the device's id may be written `{device_id}`:

    fleet/{device_id}/position      owntracks/+/+
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from collector.posts import owntracks
from collector.posts.contract import NotOurs
from collector.posts.json_body import Object, opened, read_json
from collector.protocols.framed import Options
from telemetry.entries import Aside
from telemetry.errors import RecordError
from telemetry.fields import Arrival
from telemetry.fields import read as read_fields
from telemetry.record import Sent

SOURCE = "mqtt"
DEVICE = "{device_id}"
ONE_LEVEL, ALL_LEVELS = "+", "#"


class Filter(NamedTuple):
    """A topic to hear, level by level."""

    levels: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Filter:
        """Raises `ValueError` for what is no filter."""
        levels = tuple(text.split("/"))
        for place, level in enumerate(levels):
            is_last = place == len(levels) - 1
            if not text or (ALL_LEVELS in level and not (level == ALL_LEVELS and is_last)):
                raise ValueError("# stands for all further levels, and so alone at the end")
            if level not in (ONE_LEVEL, DEVICE) and set(level) & set("+{}"):
                raise ValueError("+ and {device_id} stand for a whole level")
        if levels.count(DEVICE) > 1:
            raise ValueError("a topic has one device")
        return cls(levels)

    @property
    def subscription(self) -> str:
        """As the broker knows it."""
        return "/".join(ONE_LEVEL if level == DEVICE else level for level in self.levels)

    def device_of(self, topic: str) -> str | None:
        """The device that a topic names, empty if this filter doesn't say where; None if it is no topic of its."""
        found, levels = "", topic.split("/")
        for place, level in enumerate(self.levels):
            if level == ALL_LEVELS:
                return found
            if place >= len(levels) or level not in (ONE_LEVEL, DEVICE, levels[place]):
                return None
            if level == DEVICE:
                found = levels[place]
        return found if len(levels) == len(self.levels) else None


class Heard(NamedTuple):
    """What a message says, and what of it can't be used."""

    records: list[Sent]
    aside: tuple[Aside, ...] = ()


def read(topic: str, payload: bytes, filters: Sequence[Filter], options: Options, arrival: Arrival) -> Heard:
    """A message of any kind. What can never be taken is set aside: the broker would bring it for ever."""
    device_id = next((found for one in filters if (found := one.device_of(topic))), "")
    if not payload:
        return Heard([])  # so a broker is told to forget a message that it kept
    try:
        messages = opened(read_json(payload))
    except NotOurs as error:
        return Heard([], (Aside(device_id or topic, f"{topic}: {error}", payload),))
    records, aside = [], []
    for message in messages:
        try:
            records += _records(topic, device_id, message, options, arrival)
        except RecordError as error:
            aside.append(Aside(device_id or topic, f"{topic}: {error}", payload))
    return Heard(records, tuple(aside))


def _records(topic: str, device_id: str, message: Object, options: Options, arrival: Arrival) -> list[Sent]:
    if "_type" in message:
        is_location = message["_type"] == "location"
        return [owntracks.located(topic, {**message, "topic": topic}, options, arrival)] if is_location else []
    named = {"device_id": device_id, **message} if device_id else message
    of_unit = arrival._replace(speed_unit=options.speed_unit) if options.speed_unit else arrival
    return [read_fields(named, options.transport, SOURCE, of_unit)]
