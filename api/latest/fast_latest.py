"""The fast path of `GET /v1/devices/{id}/latest`: requests that a connection answers without the application.

It answers plain requests for a known device, with a valid key if one is required, and without an exceeded limit. The
application answers all others: with a query, a large record, an unknown device, a rejection, or an error of Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.latest.latest_texts import LARGE_BYTES
from api.latest.representation import answer_of
from api.latest.routes import MAX_CONCURRENT_READS
from api.requests.device_path import END, START
from api.responses.record_schema import encode
from telemetry.hot_store import corruption
from telemetry.hot_store.direct_connection import DirectAsker
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.http import direct_response
from telemetry.http.direct_response import DirectChecks, Headers, Peer, ResponseHead, response
from telemetry.model.api_keys import Caller
from telemetry.observability import metrics

ROUTE_OF_LATEST = f"{START}{{device_id}}{END}"

_START, _END = START.encode(), END.encode()
_UNUSUAL = direct_response.UNUSUAL | {b"content-length"}
_NOT_PLAIN = b"%?#"
"""Characters of URLs that are not plain paths."""


@dataclass(slots=True)
class DirectRequest:
    """A request on the fast path whose headers are complete. `start_s` is a monotonic time."""

    device_id: str
    caller: Caller
    peer: Peer
    headers: Headers
    start_s: float
    is_complete: bool = False


class FastLatest:
    """State and rules shared by all connections with the fast path. `more_headers` are in each response."""

    def __init__(self, asker: DirectAsker, shards: int, checks: DirectChecks, more_headers: bytes = b"") -> None:
        self._asker = asker
        self._keys: Sequence[Keys] = [Keys(number) for number in range(shards)]
        self._checks = checks
        self._more_headers = more_headers
        self._head = ResponseHead(200)
        self._waiting = 0

    def begin(self, url: bytes, headers: Headers, peer: Peer) -> DirectRequest | None:
        """Parse a request from its URL and headers; None if the application must answer it."""
        if not url.startswith(_START) or not url.endswith(_END) or not url.isascii() or not self._is_usual(headers):
            return None
        device_id = url[len(_START) : -len(_END)]
        if not device_id or any(byte in _NOT_PLAIN for byte in device_id):
            return None
        start_s, caller = time.monotonic(), self._checks.caller(headers, None)
        return None if caller is None else DirectRequest(device_id.decode(), caller, peer, headers, start_s)

    def value(self, request: DirectRequest) -> bytes | asyncio.Future[Any] | None:
        """The latest record in Redis as bytes, or a future of it; None if the application must answer the request."""
        if not request.caller.binding.covers(request.device_id) or self._waiting >= MAX_CONCURRENT_READS:
            return None
        latest_key = self._keys[shard_of(request.device_id, len(self._keys))].latest
        value = self._asker.begin("HGET", latest_key, request.device_id)
        if isinstance(value, asyncio.Future):
            self._waiting += 1
            value.add_done_callback(self._on_value)
        return value  # type: ignore[no-any-return]

    def response(self, request: DirectRequest, value: bytes, common: Headers) -> bytes | None:
        """The complete response; None if the application must answer the request."""
        body = _body(request.device_id, value)
        if body is None or not self._checks.take(request.peer, request.headers, request.caller):
            return None
        metrics.REQUEST_S.of(ROUTE_OF_LATEST).observe(time.monotonic() - request.start_s)
        metrics.ANSWERS.of(ROUTE_OF_LATEST, "2xx").add()
        more = self._checks.limit_headers(request.peer, request.headers, request.caller) + self._more_headers
        request_id = self._checks.ids.name_of(request.headers)
        self._checks.ids.log_direct(request_id, "GET", f"{START}{request.device_id}{END}", 200, request.start_s)
        return response(self._head.of(common), more, request_id, body)

    def _on_value(self, _value: asyncio.Future[Any]) -> None:
        self._waiting -= 1

    def _is_usual(self, headers: Headers) -> bool:
        hosts = 0
        for name, value in headers:
            if name in _UNUSUAL:
                return False
            if name == b"host":
                hosts += 1 if self._checks.is_own_host(value) else 2
        return hosts == 1


def _body(device_id: str, value: bytes) -> bytes | None:
    """The JSON of a small record that can be decoded; otherwise None, and the application reports it."""
    if len(value) > LARGE_BYTES:
        return None
    try:
        return encode(answer_of(device_id, value))
    except corruption.ERRORS:
        return None
