"""Requests that are ended because their key no longer counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from telemetry.access import admission
from telemetry.access.key_cache import Keyring
from telemetry.coordination.shared_state import Stamp
from telemetry.http.authentication import INGEST, READ, Gate, Need
from telemetry.model import api_keys
from telemetry.model.api_keys import Key
from tests.telemetry.http.test_authentication import NOW_S, made

TEXT, KEY = made("read", "ingest")
WHOLE: Message = {"type": "http.request", "body": b"", "more_body": False}
PART: Message = {"type": "http.request", "body": b"[", "more_body": True}
HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/csv")]}
STREAM: Message = {**HEAD, "headers": [(b"Content-Type", b"text/event-stream; charset=utf-8")]}
MORE: Message = {"type": "http.response.body", "body": b"x", "more_body": True}

App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Request:
    """A request behind a gate, whose key is taken away once the application waits."""

    def __init__(self, behind: App, need: Need = READ, received: Message = WHOLE) -> None:
        self.known = {KEY.id: KEY}
        self.ring = Keyring(self._read, lambda: NOW_S, lambda: 0.0)
        self.ring.refresh()
        self._gate = Gate(behind, self.ring, lambda _: need)
        self._received = [received]
        self.sent: list[Message] = []
        self.is_stalled = False

    def _read(self, _stamp: Stamp | None) -> tuple[Stamp, dict[str, Key] | None]:
        return Stamp(b"", 0), dict(self.known)

    async def receive(self) -> Message:
        if not self._received:
            await asyncio.Event().wait()
        return self._received.pop()

    async def send(self, message: Message) -> None:
        if self.is_stalled:
            await asyncio.Event().wait()
        self.sent.append(message)

    async def revoked(self) -> None:
        headers = [(b"authorization", f"Bearer {TEXT}".encode())]
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
        answering = asyncio.ensure_future(self._gate(scope, self.receive, self.send))
        for _ in range(5):
            await asyncio.sleep(0)
        self.known.clear()
        self.ring.refresh()
        await self.ring.end_withdrawn()
        await asyncio.wait_for(answering, 10)


def waits(*sent: Message) -> App:
    """An application that sends so much and then goes on for ever."""

    async def behind(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in sent:
            await send(message)
        await asyncio.Event().wait()

    return behind


def ended(request: Request) -> list[Message]:
    asyncio.run(request.revoked())
    return request.sent


def test_one_that_was_not_answered_yet_is_refused() -> None:
    head, body = ended(Request(waits()))
    assert head["status"] == 401
    assert json.loads(body["body"])["detail"] == api_keys.WRONG.reason


def test_an_answer_breaks_off() -> None:
    assert ended(Request(waits(HEAD, MORE))) == [HEAD, MORE]


def test_an_event_stream_says_why_and_ends() -> None:
    comment = {"type": "http.response.body", "body": f": {api_keys.WRONG.reason}\n".encode(), "more_body": False}
    assert ended(Request(waits(STREAM, MORE))) == [STREAM, MORE, comment]


def test_a_reader_of_events_that_takes_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "FAREWELL_S", 0.01)
    request = Request(waits(STREAM, MORE))

    async def behind(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(STREAM)
        request.is_stalled = True
        await send(MORE)

    request._gate._app = behind
    assert ended(request) == [STREAM]


def test_what_writes_is_answered_once_it_has_come_whole() -> None:
    goes_on = asyncio.Event()

    async def behind(_scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await goes_on.wait()
        await send(HEAD)
        await send({**MORE, "more_body": False})

    async def test() -> list[Message]:
        request = Request(behind, INGEST)
        asyncio.get_running_loop().call_later(0.1, goes_on.set)
        await request.revoked()
        return request.sent

    assert [message.get("status") for message in asyncio.run(test())] == [200, None]


def test_a_body_under_way_is_refused() -> None:
    async def behind(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["more_body"]:
            pass

    assert ended(Request(behind, INGEST, PART))[0]["status"] == 401


def test_an_application_that_swallows_the_end_sends_nothing_further() -> None:
    async def behind(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(HEAD)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await send(MORE)

    assert ended(Request(behind)) == [HEAD]


def test_another_cause_cancels_as_ever() -> None:
    async def test() -> None:
        request = Request(waits())
        answering = asyncio.ensure_future(request.revoked())
        await asyncio.sleep(0)
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        assert request.sent == []

    asyncio.run(test())
