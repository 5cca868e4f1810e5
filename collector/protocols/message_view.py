"""What a decoder's message says, as plain values for people and their programs."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from collector.framing.decoder import Message, Received
from telemetry.model.record import Sent
from telemetry.model.utc import iso


class Line(Struct):
    """A message: its records, what the sender hears once they are stored (hex), and what can't be used of it, why.

    Of a message that can't be used at all `reason` says why, and `answer` is what the sender hears at once.
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
    """A record by its fields, as the API names them; without those that it has not."""
    fields = msgspec.structs.asdict(sent.record)
    timestamp = iso(fields.pop("timestamp_us"))
    attributes = fields.pop("attributes")
    return {
        "device_id": sent.device_id,
        "timestamp": timestamp,
        **{name: value for name, value in fields.items() if value is not None},
        "attributes": msgspec.json.decode(attributes) if attributes else {},
    }
