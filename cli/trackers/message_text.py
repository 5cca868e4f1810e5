"""What a tracker's message says, for people: `whimbrel decode` and `sniff`."""

from __future__ import annotations

from typing import Any

import msgspec

from collector.protocols.message_view import Line
from telemetry.model.terminal_text import printable

MEASURED = (("altitude_m", "m"), ("speed_kmh", "km/h"), ("heading_deg", "deg"))


def lines_of(line: Line) -> list[str]:
    """A message's records, what can't be used of it, and what the sender hears."""
    if line.reason is not None:
        end = "; the connection ends" if line.ends_connection else ""
        return [printable(f"can't be used: {line.reason}{end}; {_hears(line.answer)}")]
    said = [_sentence(record) for record in line.records] or ["nothing to store"]
    said += [f"set aside: {aside['reason']}" for aside in line.set_aside]
    return [printable(text) for text in (*said, _hears(line.answer))]


def _hears(answer: str) -> str:
    return f"answer {answer}" if answer else "no answer"


def _sentence(record: dict[str, Any]) -> str:
    """2026-03-01T12:00:00.000000Z  356307042441013  41.0082, 28.9784  36 km/h  270 deg  {"satellites":9}"""
    parts = [record["timestamp"], record["device_id"]]
    if "latitude" in record and "longitude" in record:
        parts.append(f"{record['latitude']:.7g}, {record['longitude']:.7g}")
    parts += [f"{record[name]:g} {unit}" for name, unit in MEASURED if name in record]
    attributes = msgspec.json.encode(record["attributes"]).decode() if record["attributes"] else ""
    return "  ".join((*parts, attributes))
