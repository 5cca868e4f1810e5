"""The fast path of `POST /v1/records`: requests that a connection answers without the application.

It takes most requests of devices: a body of known form and size, records of a known shape (typed_decoder.py), a valid
key if one is required, no exceeded limit. Anything else is for the application: a query, an Idempotency-Key, a
Batch-Number, a Content-Encoding, a large body that is read in a thread, invalid or unusual records, a rejection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

from collector.http.record_body import Form, form_of
from collector.http.request_headers import LARGE_BODY_BYTES, HttpLimits
from collector.ingest.arriving_bytes import Arriving
from collector.ingest.group_commit import Intake
from collector.ingest.shard_writer import Outcome
from collector.inspection.protocol_metrics import tally_of
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.http import direct_response
from telemetry.http.direct_response import DirectChecks, Headers, Peer, ResponseHead, header_lines, response
from telemetry.http.problem_responses import ProblemError, busy
from telemetry.http.request_id import HEADER
from telemetry.model import problems
from telemetry.model.api_keys import Caller, forbidden_device
from telemetry.model.errors import BusyError
from telemetry.model.record import Sent
from telemetry.network.client_certificates import Certified

PATH = "/v1/records"

_UNUSUAL = direct_response.UNUSUAL | {b"content-encoding", b"idempotency-key", b"sender-id", b"batch-number"}


@lru_cache(64)
def form_called(content_type: bytes) -> Form | None:
    """The form that a Content-Type names; None if it is not accepted."""
    return form_of(content_type.decode("latin-1"))


@dataclass(slots=True)
class Post:
    """A request on the fast path, from its head on. `begun_s` is a monotonic time."""

    form: Form
    caller: Caller
    peer: Peer
    headers: Headers
    begun_s: float
    body: bytes = b""
    is_complete: bool = False


class Stored(NamedTuple):
    """A request whose records are with the intake, and the headers of its response."""

    form: Form
    record_count: int
    request_id: bytes
    limit_headers: bytes
    begun_s: float


class FastPosts:
    """State and rules shared by all connections with the fast path."""

    def __init__(
        self, intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival], checks: DirectChecks
    ) -> None:
        self._intake = intake
        self._max_records = limits.max_records
        self._max_body_bytes = min(limits.max_body_bytes, LARGE_BODY_BYTES - 1)
        self._arrival = arrival
        self._accepted = ResponseHead(202)
        self.arriving: Arriving = limits.arriving
        self.checks = checks

    def begin(self, headers: Headers, peer: Peer, certified: Certified | None) -> Post | None:
        """A request for the route, by its headers; None if it is for the application."""
        form = self._form(headers)
        if form is None:
            return None
        caller = self.checks.caller(headers, certified)
        return None if caller is None else Post(form, caller, peer, headers, time.monotonic())

    def store(self, post: Post, respond: Callable[[Stored, Outcome], None]) -> bool:
        """Pass a complete request's records to the intake. False if the request is for the application.

        `respond` is called once with the outcome, in the event loop.
        """
        records = self._records(post)
        if records is None or not self.checks.take(post.peer, post.headers, post.caller, len(records)):
            return False
        limit_headers = self.checks.limit_headers(post.peer, post.headers, post.caller)
        stored = Stored(post.form, len(records), self.checks.ids.name_of(post.headers), limit_headers, post.begun_s)
        shares = self._intake.shares
        is_keyed = bool(post.caller.key_id)
        owner = shares.of_caller(post.caller) if is_keyed else shares.of_client(post.peer, post.headers)
        self._intake.hand_over(partial(respond, stored), records, len(post.body), owner=owner)
        return True

    def response(self, common: Headers, stored: Stored, outcome: Outcome) -> bytes:
        """The complete response to a request with this outcome."""
        if isinstance(outcome, Exception):
            status, answer = _refused(common, stored, outcome)
        else:
            tally_of(stored.form.name, "http").count(1, stored.record_count)
            body = b'{"accepted":%d}' % stored.record_count
            head = self._accepted.of(common)
            status, answer = 202, response(head, stored.limit_headers, stored.request_id, body)
        self.checks.ids.log_direct(stored.request_id, "POST", PATH, status, stored.begun_s)
        return answer

    def _form(self, headers: Headers) -> Form | None:
        """The form of a body with these headers; None if one of them is unusual."""
        content_type, hosts = b"", 0
        for name, value in headers:
            if name in _UNUSUAL:
                return None
            if name == b"content-type" and not content_type:
                content_type = value
            elif name == b"content-length" and int(value) > self._max_body_bytes:
                return None
            elif name == b"host":
                hosts += 1 if self.checks.is_own_host(value) else 2
        return form_called(content_type) if hosts == 1 else None

    def _records(self, post: Post) -> list[Sent] | None:
        """The records of a body; None if it is for the application."""
        records = post.form.quick(post.body, self._arrival()) if self._intake.has_room else None
        if records is None or len(records) > self._max_records:
            return None
        if post.caller.binding.is_bound and forbidden_device(post.caller, (sent.device_id for sent in records)):
            return None
        return records


def _refused(common: Headers, stored: Stored, error: Exception) -> tuple[int, bytes]:
    problem = busy(error) if isinstance(error, BusyError) else ProblemError(problems.INTERNAL, "the store failed")
    rejection_counts.count(problem.kind)
    refusal = problem.response()
    headers = header_lines([*refusal.raw_headers])
    ends = stored.limit_headers + header_lines([(HEADER, stored.request_id)]) + b"\r\n"
    status = refusal.status_code
    return status, ResponseHead(status).of(common) + headers + ends + bytes(refusal.body)
