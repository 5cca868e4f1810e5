"""The quickest way of `GET /v1/devices/{id}/latest`: a connection that answers it by itself, on the spot.

A request with nothing unusual about it is answered as soon as it was parsed, in one write, without a task, a scope and
the calls between uvicorn and an application: 18 µs of CPU beside the question to Redis, of which
api/latest/fast_latest.py takes 45 on the same busy machine. If Redis doesn't answer on the spot, or doesn't know the
device, or an earlier request has yet to be answered, it goes on to the application as it came. It is there where nobody
asks for keys, limits how often one may ask, or has requests logged: the application does that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from api.latest.fast_latest import ROUTE_OF_LATEST
from api.latest.latest_texts import LARGE_BYTES
from api.latest.representation import answer_of
from api.requests.device_path import END, START
from api.responses.record_schema import encode
from telemetry.hot_store import corruption
from telemetry.hot_store.direct_connection import DirectAsker
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.http import site_check
from telemetry.http.connection import LimitedProtocol
from telemetry.http.response_head import AnswerHead, Headers
from telemetry.observability import metrics

_START, _END = START.encode(), END.encode()
_UNUSUAL = site_check.UNUSUAL | {b"content-length", b"expect", b"transfer-encoding", b"upgrade"}
_NOT_PLAIN = b"%?#"
"""What may be in an address that is not a path as it is."""


class QuickAnswers:
    """What all such connections share. `name` names a request by its headers (telemetry/http/request_id.py)."""

    def __init__(
        self,
        asker: DirectAsker,
        shards: int,
        name: Callable[[Headers], bytes],
        is_own_host: Callable[[bytes], bool],
    ) -> None:
        self._asker = asker
        self._keys: Sequence[Keys] = [Keys(number) for number in range(shards)]
        self._name = name
        self._is_own_host = is_own_host
        self._head = AnswerHead(200)

    def is_usual(self, headers: Headers) -> bool:
        """Whether nothing about a request's headers is for the application."""
        hosts = 0
        for name, value in headers:
            if name in _UNUSUAL:
                return False
            if name == b"host":
                hosts += 1 if self._is_own_host(value) else 2
        return hosts == 1

    def answer(self, device_id: str, headers: Headers, common: Headers) -> bytes | None:
        """The answer, whole; None if it is for the application."""
        begun_s = time.monotonic()
        value = self._asker.at_once("HGET", self._keys[shard_of(device_id, len(self._keys))].latest, device_id)
        if value is None or len(value) > LARGE_BYTES:
            return None
        try:
            body = encode(answer_of(device_id, value))
        except corruption.ERRORS:
            return None  # who answers everything says what is wrong with it
        metrics.REQUEST_S.of(ROUTE_OF_LATEST).observe(time.monotonic() - begun_s)
        metrics.ANSWERS.of(ROUTE_OF_LATEST, "2xx").add()
        return b"%bcontent-length: %d\r\ncontent-type: application/json\r\nx-request-id: %b\r\n\r\n%b" % (
            self._head.of(common),
            len(body),
            self._name(headers),
            body,
        )


class QuickConnection(LimitedProtocol):
    """One connection."""

    def __init__(self, answers: QuickAnswers, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answers = answers
        self._device_id = ""
        """Whose latest is asked for, between a request's head and its end, which follows at once."""

    def on_headers_complete(self) -> None:
        self._device_id = self._device()
        if not self._device_id:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        device_id, self._device_id = self._device_id, ""
        answer = None
        if device_id:
            answer = self._answers.answer(device_id, self.headers, self.server_state.default_headers)
            if answer is None:
                super().on_headers_complete()
        if answer is None:
            super().on_message_complete()
        else:
            self._answer_at_once(answer)

    def _device(self) -> str:
        """The device whose latest is asked for, if nothing else is about the request; else empty."""
        url = self.url
        if not url.startswith(_START) or not url.endswith(_END) or not url.isascii():
            return ""
        if not self.may_answer(b"GET") or not self._answers.is_usual(self.headers):
            return ""
        device_id = url[len(_START) : -len(_END)]
        return "" if any(byte in _NOT_PLAIN for byte in device_id) else device_id.decode()

    def _answer_at_once(self, answer: bytes) -> None:
        self._is_in_head = self._is_arriving = False
        self._stop_timer()
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
