"""The quick way of `POST /v1/records`, for what most devices send: half the time of the plain one.

A body as it is, of records of a known shape (telemetry/codec/typed_decoder.py), goes from the server to the intake
without Starlette. Whatever else it is (a query, an Idempotency-Key, a Batch-Number, a Content-Encoding, a body in
pieces, a large one that is for a thread, records that are wrong or unusual) goes on to the application, which answers
it as it would have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from collector.http.record_body import Form, form_of
from collector.http.request_headers import LARGE_BODY_BYTES, HttpLimits
from collector.ingest.authorization import admit
from collector.ingest.group_commit import Intake
from collector.inspection.protocol_metrics import tally_of
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.http.problem_responses import ProblemError, busy
from telemetry.model.errors import BusyError

PATH = "/v1/records"
UNUSUAL = frozenset((b"content-encoding", b"idempotency-key", b"sender-id", b"batch-number"))


@lru_cache(64)
def form_called(content_type: bytes) -> Form | None:
    """The form that a Content-Type names; None if it is not taken."""
    return form_of(content_type.decode("latin-1"))


class Quick:
    """An application in front of another, which it asks wherever it is not enough itself."""

    def __init__(self, behind: ASGIApp, intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival]) -> None:
        self._behind = behind
        self._intake = intake
        self._max_records = limits.max_records
        self._max_body_bytes = min(limits.max_body_bytes, LARGE_BODY_BYTES - 1)
        self._arrival = arrival

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        form = self._form(scope)
        if form is None:
            await self._behind(scope, receive, send)
        else:
            await self._post(form, scope, receive, send)

    def _form(self, scope: Scope) -> Form | None:
        """The form of a usual post's body; None for any other request."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST" or scope["query_string"]:
            return None
        content_type = b""
        for name, value in scope["headers"]:
            if name == b"content-type" and not content_type:
                content_type = value
            elif name in UNUSUAL or (name == b"content-length" and int(value) > self._max_body_bytes):
                return None
        return form_called(content_type)

    async def _post(self, form: Form, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body = message.get("body", b"")
        is_short = (
            message["type"] == "http.request" and not message.get("more_body") and len(body) <= self._max_body_bytes
        )
        records = form.quick(body, self._arrival()) if is_short else None
        if records is None or len(records) > self._max_records:
            await self._behind(scope, _again(message, receive), send)
            return
        try:
            owner = self._intake.shares.of_request(scope, admit(scope, records))
            await self._intake.submit(records, len(body), owner=owner)
        except (ProblemError, BusyError) as error:
            found = busy(error) if isinstance(error, BusyError) else error
            rejection_counts.count(found.kind)
            await found.response()(scope, receive, send)
            return
        tally_of(form.name, "http").count(1, len(records))
        answer = b'{"accepted":%d}' % len(records)
        length = str(len(answer)).encode()
        headers = [(b"content-length", length), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _again(message: Message, receive: Receive) -> Receive:
    """What receives a message that was received before, then all others."""
    first: list[Message] = [message]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again
