"""Readable text of a tracker's message, for `whimbrel decode` and `sniff`."""

from __future__ import annotations

from typing import Any

import msgspec

from collector.inspection.message_view import Line
from telemetry.model.terminal_text import printable

MEASURED = (("altitude_m", "m"), ("speed_kmh", "km/h"), ("heading_deg", "deg"))


def message_lines(line: Line) -> list[str]:
    """Lines about a message: its records, quarantined parts, and the reply to the sender."""
    if line.reason is not None:
        end = "; the connection ends" if line.ends_connection else ""
        return [printable(f"cannot be used: {line.reason}{end}; {_reply(line.answer)}")]
    lines = [_sentence(record) for record in line.records] or ["nothing to store"]
    lines += [f"quarantined: {rejected['reason']}" for rejected in line.set_aside]
    return [printable(text) for text in (*lines, _reply(line.answer))]


def _reply(answer: str) -> str:
    return f"reply {answer}" if answer else "no reply"


def _sentence(record: dict[str, Any]) -> str:
    """2026-03-01T12:00:00.000000Z  356307042441013  41.0082, 28.9784  36 km/h  270 deg  {"satellites":9}"""
    parts = [record["timestamp"], record["device_id"]]
    if "latitude" in record and "longitude" in record:
        parts.append(f"{record['latitude']:.7g}, {record['longitude']:.7g}")
    parts += [f"{record[name]:g} {unit}" for name, unit in MEASURED if name in record]
    attributes = msgspec.json.encode(record["attributes"]).decode() if record["attributes"] else ""
    return "  ".join((*parts, attributes))
