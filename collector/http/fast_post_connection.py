"""The quickest way of `POST /v1/records`: a connection that hands what most devices send to the intake by itself.

A request with nothing unusual about it and records of a known shape is answered in one write, without a task, a scope
and the calls between uvicorn and an application: a third of what a request with one record cost (79 µs of the
collector where it was 122, on a busy machine). Its body is gathered first, for many clients send it behind the head.
All else goes on as it came, to the application (first to fast_post.py); so do requests that came at once, but for the
last, since uvicorn keeps their order.
A body that is not whole yet counts among those that arrive (arriving_bytes.py).
It is there where nobody asks for keys, limits how often one may ask, or has requests logged: the application does that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from collector.http.fast_post import PATH, UNUSUAL, form_called
from collector.http.record_body import Form
from collector.http.request_headers import LARGE_BODY_BYTES, HttpLimits, sender
from collector.ingest.arriving_bytes import Arriving, Upload
from collector.ingest.group_commit import Intake
from collector.ingest.shard_writer import Outcome, Tell
from collector.inspection.protocol_metrics import tally_of
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.http import site_check
from telemetry.http.connection import LimitedProtocol
from telemetry.http.problem_responses import ProblemError, busy
from telemetry.http.response_head import AnswerHead, Headers, header_lines
from telemetry.model import problems
from telemetry.model.errors import BusyError
from telemetry.model.record import Sent

_PATH = PATH.encode()
_UNUSUAL = UNUSUAL | site_check.UNUSUAL | {b"expect", b"transfer-encoding", b"upgrade"}


class QuickPosts:
    """What all such connections share. `name` names a request by its headers (telemetry/http/request_id.py)."""

    def __init__(
        self,
        intake: Intake,
        limits: HttpLimits,
        arrival: Callable[[], Arrival],
        name: Callable[[Headers], bytes],
        is_own_host: Callable[[bytes], bool],
    ) -> None:
        self._intake = intake
        self._max_records = limits.max_records
        self._max_body_bytes = min(limits.max_body_bytes, LARGE_BODY_BYTES - 1)
        self._arrival = arrival
        self.name = name
        self._is_own_host = is_own_host
        self.arriving: Arriving = limits.arriving
        self._accepted = AnswerHead(202)

    def form(self, headers: Headers) -> Form | None:
        """The form of a body with these headers; None if there is anything unusual about them."""
        content_type, hosts = b"", 0
        for name, value in headers:
            if name in _UNUSUAL:
                return None
            if name == b"content-type" and not content_type:
                content_type = value
            elif name == b"content-length" and int(value) > self._max_body_bytes:
                return None
            elif name == b"host":
                hosts += 1 if self._is_own_host(value) else 2
        return form_called(content_type) if hosts == 1 else None

    def records(self, form: Form, body: bytes) -> list[Sent] | None:
        """The records of a body; None if they are for the application."""
        found = form.quick(body, self._arrival()) if self._intake.has_room else None
        return found if found is not None and len(found) <= self._max_records else None

    def store(
        self, records: list[Sent], size_bytes: int, tell: Tell, peer: tuple[str, int] | None, headers: Headers
    ) -> None:
        """Store the records of a request without a key; `tell` hears what became of them."""
        self._intake.hand_over(tell, records, size_bytes, owner=self._intake.shares.of_client(peer, headers))

    def answer(self, common: Headers, form: Form, name: bytes, count: int, outcome: Outcome) -> bytes:
        """The answer, whole, to a request of this name with so many records."""
        if isinstance(outcome, Exception):
            return _refused(common, name, outcome)
        tally_of(form.name, "http").count(1, count)
        body = b'{"accepted":%d}' % count
        return b"%bcontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (
            self._accepted.of(common),
            len(body),
            name,
            body,
        )


def _refused(common: Headers, name: bytes, error: Exception) -> bytes:
    found = busy(error) if isinstance(error, BusyError) else ProblemError(problems.INTERNAL, "the store failed")
    rejection_counts.count(found.kind)
    response = found.response()
    headers = header_lines([*response.raw_headers, (b"x-request-id", name)])
    return AnswerHead(response.status_code).of(common) + headers + b"\r\n" + bytes(response.body)


class QuickConnection(LimitedProtocol):
    """One connection. A request that may be for the quick way is `pending` until it is whole."""

    def __init__(self, posts: QuickPosts, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._posts = posts
        self._pending: Form | None = None
        self._body = b""
        self._is_whole = False
        self._waits = False  # for the store; nothing is parsed meanwhile
        self._is_last = False
        self._upload: Upload | None = None  # of a body that did not come whole with its head

    # What arrives ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._waits:
            self.flow.pause_reading()
        super().data_received(data)
        if self._pending is not None and self._body and not self._is_whole:
            self._hold()

    @property
    def may_parse(self) -> bool:
        return not self._waits and super().may_parse

    def _feed(self, piece: bytes) -> None:
        super()._feed(piece)
        if self._pending is not None and self._is_whole:
            self._take(self._pending)

    def on_message_begin(self) -> None:
        self._hand_on()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._pending = self._usual_form()
        if self._pending is None:
            super().on_headers_complete()
        else:
            self._is_in_head = self._is_whole = False
            self._body = b""

    def on_body(self, body: bytes) -> None:
        if self._pending is None:
            super().on_body(body)
        else:
            self._gathered_bytes = 0
            self._body += body

    def on_message_complete(self) -> None:
        if self._pending is None:
            super().on_message_complete()
        else:
            self._is_whole, self._is_arriving = True, False
            self._stop_timer()
            self._let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        super().connection_lost(exc)

    def _hold(self) -> None:
        """Count an unfinished body, and refuse it if there is no room."""
        if self._upload is None:
            self._upload = Upload(sender(self.client[0] if self.client else ""), self._give_up)
        if not self._posts.arriving.hold(self._upload, len(self._body)):
            self.refuse_busy("more bodies are arriving than may")

    def _give_up(self) -> None:
        self._upload = None
        self.refuse_busy("given up: others need the room, and this body came slowly")

    def _let_go(self) -> None:
        if self._upload is not None:
            self._posts.arriving.hold(self._upload, 0)
            self._upload = None

    def _usual_form(self) -> Form | None:
        if self.url != _PATH or not self.may_answer(b"POST"):
            return None
        return self._posts.form(self.headers)

    def _hand_on(self) -> None:
        """Have the application answer what is pending."""
        if self._pending is None:
            return
        self._pending = None
        self._let_go()
        super().on_headers_complete()
        if self._body:
            super().on_body(self._body)
        if self._is_whole:
            super().on_message_complete()

    def _refuse(self, refusal: Any) -> None:
        self._hand_on()
        super()._refuse(refusal)

    # What is answered --------------------------------------------------------------------------------

    def _take(self, form: Form) -> None:
        records = self._posts.records(form, self._body)
        if records is None:
            self._hand_on()
            return
        self._pending, self._waits = None, True
        tell = partial(self._answer_post, form, self._posts.name(self.headers), len(records))
        self._posts.store(records, len(self._body), tell, self.client, self.headers)

    def _answer_post(self, form: Form, name: bytes, count: int, outcome: Outcome) -> None:
        self._waits = False
        self.server_state.total_requests += 1
        answer = self._posts.answer(self.server_state.default_headers, form, name, count, outcome)
        if self.transport.is_closing():
            return
        self.transport.write(answer)
        if self._is_last:
            self.transport.close()
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        if self._unparsed:
            self._parse()
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Take nothing more: close once what was taken is answered."""
        self._hand_on()
        if self._waits:
            self._is_last = True
        else:
            super().shutdown()
