"""Each request has a name, the sender's if it is sane; it is in the answer, in the log, and handed on."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from starlette.types import Message, Receive, Scope, Send

from telemetry.http.request_id import HEADER, RequestIds
from telemetry.observability.log_setup import Json

Headers = list[tuple[bytes, bytes]]


def asked(headers: Headers, logs_access: bool = False) -> tuple[Headers, Headers]:
    """The headers that the application sees, and those of the answer."""
    seen: Headers = []
    sent: list[Message] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        logging.getLogger("tests.named").warning("within")
        await send({"type": "http.response.start", "status": 204, "headers": [(b"X-Request-Id", b"of another")]})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/x", "query_string": b"token=secret", "headers": headers}
    asyncio.run(RequestIds(app, logs_access)(scope, receive, send))
    return seen, sent[0]["headers"]


def test_a_sane_name_is_kept() -> None:
    seen, answered = asked([(HEADER, b"trace-7:a.b_c")])
    assert seen == [(HEADER, b"trace-7:a.b_c")]
    assert answered == [(HEADER, b"trace-7:a.b_c")]


@pytest.mark.parametrize("name", [b"", b"a b", b"a\nb", b"x" * 65], ids=["empty", "blank", "line-break", "long"])
def test_another_is_replaced_also_for_whom_it_is_handed_on_to(name: bytes) -> None:
    seen, [answered] = asked([(HEADER, name), (b"accept", b"*/*")])
    assert answered[1] not in (name, b"of another")
    assert len(answered[1]) == 16
    assert sorted(seen) == [(b"accept", b"*/*"), answered]


def test_lines_within_and_about_a_request_have_its_name_and_no_query(caplog: pytest.LogCaptureFixture) -> None:
    found: list[dict[str, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(Json("api").format(record)))

    handler = Keep()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO):
            asked([(HEADER, b"r1")], logs_access=True)
            logging.getLogger("tests.named").warning("outside")
    finally:
        root.removeHandler(handler)
    within, access, outside = (one for one in found if one["logger"] in ("tests.named", "access"))
    assert within["request_id"] == access["request_id"] == "r1"
    assert "request_id" not in outside
    assert access["message"].startswith("GET /v1/x 204 in ")
    assert "secret" not in str(found)
