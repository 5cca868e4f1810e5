"""Recognises HTTP on a port of another protocol. Any web page can make a browser send bytes to such a port.

After an invalid message, decoders search the next valid one. So the record in the body of a browser's POST would be
stored, although all its headers are rejected. A browser sends its request line first, in one piece.
"""

from __future__ import annotations

import json
import re

from collector.framing.decoder import Rejected
from collector.protocols.json_replies import rejected
from telemetry.codec import legacy_fields
from telemetry.model import problems

_REQUEST_LINE = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE|PRI) [!-~]")
"""Start of an HTTP connection. No device protocol starts like this."""

_WHY = "this port does not accept HTTP: send to the port of collector.http_port"
_ANSWER = json.dumps(rejected(legacy_fields.BAD_JSON, _WHY)).encode() + b"\n"

HTTP = Rejected(problems.INVALID_REQUEST, _WHY, _ANSWER, last=True)
"""The only message of an HTTP connection."""


def is_http(start: bytes | bytearray | memoryview) -> bool:
    """True if these are the first bytes of an HTTP connection."""
    return _REQUEST_LINE.match(start) is not None
