"""What attackers begin with: good and bad requests, messages, frames and questions, a list for each kind of port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from tests import bad_input
from tests.collector.protocols.trackers import TRACKERS

HOST = "127.0.0.1"

GOOD_RECORD = {
    "device_id": "mallory",
    "timestamp": "2026-11-24T10:25:00Z",
    "latitude": 53.44,
    "longitude": -2.93,
    "speed": 48.5,
    "attributes": {"fuel": 61, "driver": "x"},
}

QUESTIONS = (
    "SELECT device_id, count(*) FROM records GROUP BY 1 ORDER BY 2 DESC LIMIT 10",
    "SELECT * FROM latest WHERE speed_kmh > 50 AND attributes->>'$.fuel' IS NOT NULL",
    "WITH a AS (SELECT time_bucket(INTERVAL '1 hour', timestamp) t, avg(speed_kmh) s FROM records GROUP BY 1) FROM a",
    "SELECT list_transform([1, 2], lambda x: x + 1), {'a': 1}, 'a' || 'b'",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM histogram_values(duckdb_views, sql)",
)

PLACES = ("/v1/live", "/v1/sql", "/v1/devices/mallory", "/openapi.json", "/status", "/metrics", "/v1/box", "/")
POSTED = (
    "/v1/records",
    "/owntracks",
    "/osmand?id=mallory&lat=53.4&lon=-2.9&speed=5",
    "/traccar",
    "/write?db=x",
    "/tracking/data/",
)


JSON = (b"Content-Type", bad_input.JSON.encode())


class Request(NamedTuple):
    """An HTTP request before it is put together."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def packed(self, key: str) -> bytes:
        """Its bytes, with a key unless that is empty."""
        headers = [(b"Host", HOST.encode()), *self.headers]
        if key:
            headers.append((b"Authorization", b"Bearer " + key.encode()))
        if self.body or self.method == "POST":
            headers.append((b"Content-Length", b"%d" % len(self.body)))
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (self.method.encode(), self.target, lines, self.body)


def requests() -> dict[str, list[Request]]:
    """Kind to requests of it. Kinds are drawn alike, however many requests each has."""
    record = json.dumps(GOOD_RECORD).encode()
    return {
        "questions": [Request("GET", one.encode("ascii", "replace")) for one in (*bad_input.questions(), *PLACES)],
        "posts": [Request("POST", target.encode(), (JSON,), record) for target in POSTED],
        "records": [
            Request("POST", b"/v1/records", (JSON,), json.dumps([GOOD_RECORD] * count).encode())
            for count in (1, 5, 200)
        ],
        "bodies": list(_bodies()),
        "writing GETs": [Request("GET", target.encode()) for target in POSTED],
        "sql": [Request("POST", b"/v1/sql", (JSON,), json.dumps({"query": one}).encode()) for one in QUESTIONS],
        "methods": [Request(one, b"/v1/devices/mallory") for one in ("DELETE", "PUT", "HEAD", "OPTIONS", "PATCH")],
    }


def _bodies() -> Iterator[Request]:
    for body in bad_input.bodies():
        if len(body.data) < 2**18:
            headers = [(b"Content-Type", body.kind.encode())]
            if body.encoding:
                headers.append((b"Content-Encoding", body.encoding.encode()))
            yield Request("POST", b"/v1/records", tuple(headers), body.data)


def raw_requests() -> list[bytes]:
    """Whole requests that differ from what a client would send."""
    return [*bad_input.SMUGGLING.values(), *(one.packed("") for some in requests().values() for one in some[:50])]


def messages() -> list[bytes]:
    """What the JSON and msgpack port takes: lines, maps, numbered frames."""
    line = json.dumps(GOOD_RECORD).encode() + b"\n"
    return [line, line * 50, *(data for data in bad_input.messages().values() if len(data) < 2**18)]


def frames() -> dict[str, list[bytes]]:
    """Protocol of a tracker to its frames, good and bad, each by itself and all of a connection."""
    found = {name: [*tracker.frames, b"".join(tracker.frames)] for name, tracker in TRACKERS.items()}
    found["auto"] = [frame for some in found.values() for frame in some]
    return found
