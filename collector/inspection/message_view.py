"""Plain view of a decoder's message: records, answer and fault, for display and for JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from collector.framing.decoder import Message, Received
from telemetry.model.record import Sent
from telemetry.model.utc import iso


class Line(Struct):
    """A message: its records, the answer once they are stored (hex), and its unusable parts with their reasons.

    An unusable message has a `reason`, and its `answer` is sent immediately.
    """

    answer: str
    records: list[dict[str, Any]] = []
    reason: str | None = None
    set_aside: list[dict[str, str]] = []
    ends_connection: bool = False


def line_of(message: Message) -> Line:
    """A message in its plain form."""
    aside = [{"reason": one.reason, "raw": one.raw.hex()} for one in message.aside]
    if isinstance(message, Received):
        records = [record_of(sent) for sent in message.records]
        return Line(message.stored.hex(), records, None, aside, message.last)
    return Line(message.answer.hex(), [], message.reason, aside, message.last)


def record_of(sent: Sent) -> dict[str, Any]:
    """The fields of a record with their names in the API, without missing values."""
    fields = msgspec.structs.asdict(sent.record)
    timestamp = iso(fields.pop("timestamp_us"))
    attributes = fields.pop("attributes")
    return {
        "device_id": sent.device_id,
        "timestamp": timestamp,
        **{name: value for name, value in fields.items() if value is not None},
        "attributes": msgspec.json.decode(attributes) if attributes else {},
    }
