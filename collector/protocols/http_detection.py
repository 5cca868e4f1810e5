"""Recognises HTTP on a port of another protocol, to which any web page can have a browser send its bytes.

Decoders look for the next good message after a bad one. So a browser's POST whose body holds a record would be
stored, though all its headers are refused. A browser sends its request line first, in one piece.
"""

from __future__ import annotations

import json
import re

from collector.framing.decoder import Rejected
from collector.protocols.json_replies import rejected
from telemetry.codec import legacy_fields
from telemetry.model import problems

_REQUEST_LINE = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE|PRI) [!-~]")
"""How a connection of HTTP begins. No device's protocol begins so."""

_WHY = "this port does not speak HTTP: send to the port of collector.http_port"
_ANSWER = json.dumps(rejected(legacy_fields.BAD_JSON, _WHY)).encode() + b"\n"

HTTP = Rejected(problems.INVALID_REQUEST, _WHY, _ANSWER, last=True)
"""The only message of such a connection."""


def is_http(start: bytes | bytearray | memoryview) -> bool:
    """Whether a connection whose first bytes are these speaks HTTP."""
    return _REQUEST_LINE.match(start) is not None
