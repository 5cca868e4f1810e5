"""The quick way of `POST /v1/records`: which requests it answers itself, and that its answers are the plain way's."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgpack
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from collector.http.fast_post import Quick
from collector.http.record_body import FORMS
from collector.http.request_headers import LARGE_BODY_BYTES, HttpLimits
from collector.http.routes import routes
from collector.ingest.arriving_bytes import Arriving
from telemetry.codec.record_parser import Arrival
from telemetry.codec.typed_decoder import LEARN_RECORDS
from telemetry.hot_store.operations.append import Limits
from telemetry.hot_store.shard import Shard
from telemetry.http.problem_responses import EXCEPTION_HANDLERS
from telemetry.model import problems
from tests.behind import Behind
from tests.collector.conftest import NOW_US, Connect, numbers, run, tail, taking

VALUE = {"device_id": "d", "altitude": 7}
RECORD = json.dumps(VALUE).encode()
LIMITS = HttpLimits(2**20, 3, 600, Arriving(2**20))


def _learn() -> None:
    for form in set(FORMS.values()):
        form.shapes.learn([VALUE], LEARN_RECORDS)


class Answer(NamedTuple):
    """What a request was answered, and how often the plain way was asked."""

    status: int
    headers: dict[str, str]
    body: bytes
    asked: int


async def answered(
    connect_to: Connect,
    *pieces: bytes,
    method: str = "POST",
    path: str = "/v1/records",
    query: bytes = b"",
    max_pending_bytes: int = 2**20,
    **headers: str,
) -> Answer:
    """Ask as a server does that has received a body in these pieces."""
    for form in set(FORMS.values()):
        form.shapes.learn([VALUE], LEARN_RECORDS)
    last = len(pieces) - 1
    messages = [{"type": "http.request", "body": piece, "more_body": n < last} for n, piece in enumerate(pieces)]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": ("127.0.0.1", 1),
        "query_string": query,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    async with taking(connect_to, limits=Limits(max_devices=10), max_pending_bytes=max_pending_bytes) as intake:
        arrival = Arrival(NOW_US)
        behind = Behind(
            Starlette(routes=routes(intake, LIMITS, lambda: arrival), exception_handlers=EXCEPTION_HANDLERS)
        )
        await Quick(behind, intake, LIMITS, lambda: arrival)(scope, receive, send)
    start, *bodies = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], found, b"".join(body.get("body", b"") for body in bodies), behind.asked)


@pytest.mark.parametrize(
    ("content_type", "body", "count"),
    [
        ("", RECORD, 1),
        ("application/json; charset=utf-8", b"[%s,%s]" % (RECORD, RECORD), 2),
        ("application/x-ndjson", RECORD + b"\n" + RECORD + b"\n", 2),
        ("application/msgpack", msgpack.packb(VALUE), 1),
    ],
)
def test_what_most_devices_send(
    connect_shared: Connect, shard: Shard, content_type: str, body: bytes, count: int
) -> None:
    async def test() -> None:
        answer = await answered(connect_shared, body, content_type=content_type)
        headers = {"content-length": "14", "content-type": "application/json"}
        assert answer == (202, headers, b'{"accepted":%d}' % count, 0)

    run(test)
    assert numbers(tail(shard, "d")) == [7] * count


@pytest.mark.parametrize(
    ("body", "more", "status"),
    [
        (RECORD, {"method": "GET"}, 405),
        (RECORD, {"path": "/v1/record"}, 404),
        (RECORD, {"query": b"on_error=skip"}, 202),
        (RECORD, {"query": b"x=1"}, 400),
        (RECORD, {"idempotency_key": "k"}, 202),
        (RECORD, {"content_encoding": "identity"}, 202),
        (RECORD, {"content_type": "image/png"}, 415),
        (RECORD, {"content_length": str(2**20 + 1)}, 413),
        (b"", {}, 400),
        (b"{", {}, 400),
        (b'{"device_id":"d","altitude":"7"}', {}, 202),
        (b'{"device_id":"d","latitude":91}', {}, 400),
        (b"[%s]" % b",".join([RECORD] * 4), {}, 413),
        (b" " * LARGE_BODY_BYTES + RECORD, {}, 202),
        (b" " * 2**20 + RECORD, {}, 413),
        (RECORD + RECORD, {"content_type": "application/x-ndjson"}, 400),
        (RECORD.replace(b",", b",\n"), {"content_type": "application/x-ndjson"}, 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_all_else_is_answered_by_the_plain_way(
    connect_shared: Connect, shard: Shard, body: bytes, more: dict[str, Any], status: int
) -> None:
    async def test() -> None:
        answer = await answered(connect_shared, body, **more)
        assert (answer.status, answer.asked) == (status, 1)

    run(test)


def test_a_body_in_pieces_goes_the_plain_way_whole(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        answer = await answered(connect_shared, RECORD[:5], RECORD[5:])
        assert (answer.status, answer.asked) == (202, 1)

    run(test)
    assert numbers(tail(shard, "d")) == [7]


def test_a_full_intake_is_the_same_problem(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        answer = await answered(connect_shared, RECORD, max_pending_bytes=0)
        assert (answer.status, json.loads(answer.body)["type"], answer.asked) == (503, problems.BUSY.type, 0)
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == problems.CONTENT_TYPE

    run(test)
    assert tail(shard, "d") == []
