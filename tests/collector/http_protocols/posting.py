"""What the tests of protocols over HTTP share."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from collector.framing.frame_decoder import Options
from collector.http_protocols.protocol import Post, Read, Told
from telemetry.model.record import Record
from tests.collector.protocols.three_ways import ARRIVAL

HTTP = Options(transport="http")


def query(text: str) -> Post:
    return Post(parse_qsl(text, keep_blank_values=True), {}, b"")


def form(text: str) -> Post:
    return Post([], {"content-type": "application/x-www-form-urlencoded"}, text.encode())


def posted(value: object, **headers: str) -> Post:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Post([], {"content-type": "application/json", **headers}, body)


def told(read: Read, post: Post, options: Options = HTTP) -> Told:
    return read(post, options, ARRIVAL)


def only(found: Told) -> tuple[str, Record, dict[str, Any]]:
    """The device, the record and its attributes where there is one record and nothing else."""
    assert found.aside == ()
    (sent,) = found.records
    return sent.device_id, sent.record, json.loads(sent.record.attributes or "{}")
