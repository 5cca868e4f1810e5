"""A response on its way to a connection: whole, in pieces, or refused where there is no room."""

from __future__ import annotations

import asyncio
import json

from starlette.types import Message

from telemetry.http.response import Response
from telemetry.limits.pending_bytes import PIECE_BYTES, Pending
from tests.telemetry.limits.test_pending_bytes import Client

LARGE = bytes(range(256)) * (PIECE_BYTES // 100)


def sent(client: Client, *messages: Message) -> list[Message]:
    """What reaches the connection."""
    found = list[Message]()

    async def send(message: Message) -> None:
        found.append(message)

    async def run() -> None:
        response = Response(client, {"method": "GET", "headers": []}, send, 0)
        for message in messages:
            await response.send(message)

    asyncio.run(run())
    return found


def start(size: int) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]}


def body(data: bytes, more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def test_a_small_one_is_as_it_was() -> None:
    messages = start(3), body(b"abc")
    assert sent(Client(Pending(100)), *messages) == list(messages)


def test_a_large_one_comes_in_pieces() -> None:
    client = Client(Pending(2**20))
    begin, *found = sent(client, start(len(LARGE)), body(LARGE))
    assert begin == start(len(LARGE))
    assert b"".join(one["body"] for one in found) == LARGE
    assert max(len(one["body"]) for one in found) == PIECE_BYTES
    assert [one["more_body"] for one in found] == [True] * (len(found) - 1) + [False]
    assert client.pending.bytes == 0


def test_one_without_room_becomes_a_refusal() -> None:
    client = Client(Pending(PIECE_BYTES))
    begin, answer = sent(client, start(len(LARGE)), body(LARGE))
    assert begin["status"] == 503
    assert dict(begin["headers"])[b"retry-after"] == b"5"
    assert json.loads(answer["body"])["type"] == "urn:whimbrel:problem:busy"
    assert not client.is_closed


def test_a_part_without_room_ends_the_connection() -> None:
    client = Client(Pending(PIECE_BYTES))
    messages: list[Message] = [{"type": "http.response.start", "status": 200}, body(LARGE, more_body=True)]
    assert sent(client, *messages) == messages[:1]
    assert client.is_closed
