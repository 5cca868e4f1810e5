"""The HTTP collector: `POST /v1/records`, and what the API needs to serve the same route on its own port."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from collector.http import protocol_routes
from collector.http.openapi import HEALTHZ, POST_RECORDS
from collector.http.record_body import FORMS, MSGPACK, Batch, Form, Refused, Unreadable, read_batch
from collector.http.request_headers import Head, HttpLimits, Incoming, off_loop, read_head
from collector.http_protocols import POSTS
from collector.ingest.authorization import admit
from collector.ingest.day_limit import DeviceDays
from collector.ingest.fair_shares import Shares
from collector.ingest.group_commit import Intake
from collector.ingest.watermarks import Watermarks
from collector.inspection.protocol_metrics import count_from_zero, tally_of
from telemetry.access.key_cache import Keyring
from telemetry.codec.record_parser import Arrival
from telemetry.config.settings import Settings
from telemetry.coordination import rejection_counts
from telemetry.hot_store.client import connect
from telemetry.hot_store.operations.append import UNLIMITED, Limits, Owner
from telemetry.http.authentication import Gate, ingest_only
from telemetry.http.problem_responses import (
    EXCEPTION_HANDLERS,
    ProblemError,
    busy,
    too_many_at,
)
from telemetry.http.rate_limiting import KeyThrottle
from telemetry.limits.client_address import Addresses
from telemetry.model import problems
from telemetry.model.errors import BusyError, KeyReusedError, SyntaxFault, TooLarge
from telemetry.model.problems import Problem
from telemetry.model.record import LATEST_US, Sent
from telemetry.system import clock
from telemetry.system.disk_space import Room

MOMENT_US = 1_000

POST_PATHS = tuple(POSTS)
"""Where protocols other than our own are on the common ports."""

MAX_ERRORS = 100
"""Refused records that one answer describes; it counts all."""


def make_intake(settings: Settings) -> Intake:
    """The intake that the settings describe; not started."""
    c, one = settings.collector, settings.limits
    limits = Limits(c.max_devices, c.max_idempotency_keys, c.idempotency_seconds * 1_000, c.max_senders)
    return Intake(
        lambda: connect(settings),
        settings.redis.shards,
        limits,
        c.max_pending_bytes,
        Watermarks(settings.redis.full_percent, settings.redis.resume_percent, Room.of(settings)),
        settings.persist.quarantine_max_bytes,
        DeviceDays(settings.limits.device_days_per_hour, clock.now_us, time.monotonic),
        Shares(
            limits,
            one.owner_share_percent,
            one.senders_per_device,
            one.idempotency_keys_per_device,
            Addresses.of(settings),
        ),
    )


def make_arrival(settings: Settings, intake: Intake) -> Callable[[], Arrival]:
    """What gives each message its moment of arrival. One serves for a millisecond: to make it costs 2 µs."""
    c = settings.collector
    last_us, last = 0, Arrival(0)

    def arrival() -> Arrival:
        nonlocal last_us, last
        at_us = clock.now_us()
        if not 0 <= at_us - last_us < MOMENT_US:
            last_us = at_us
            last = clock.arrival(at_us, intake.newest_ms, c.max_future_seconds, c.speed_unit, c.max_message_bytes)
        return last

    return arrival


def routes(intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival]) -> list[Route]:
    """The routes of an intake."""
    count_from_zero((form.name for form in FORMS.values()), "http")

    async def post_records(request: Request) -> Response:
        head = read_head(request)
        with Incoming(request, limits) as incoming:
            body = await incoming.read(head.encoding)
            if head.number:
                answer = await _store_numbered(intake, request.scope, head, body, incoming, arrival())
            else:
                batch = await _store_once(intake, request.scope, head, body, incoming, arrival())
                answer = _accepted(batch, head.skips)
        return Response(answer, 202, media_type="application/json")

    return [POST_RECORDS.route(post_records), *protocol_routes.routes(intake, limits, arrival)]


async def healthz(_request: Request) -> Response:
    """Alive: this process answers."""
    return Response(b'{"status":"alive"}', media_type="application/json")


def app(
    intake: Intake,
    limits: HttpLimits,
    arrival: Callable[[], Arrival],
    keyring: Keyring | None = None,
    limits_keys: bool = False,
) -> ASGIApp:
    """The collector's application, which asks for a key if there is a keyring, and perhaps how often one asks."""
    plain = Starlette(
        routes=[*routes(intake, limits, arrival), HEALTHZ.route(healthz)], exception_handlers=EXCEPTION_HANDLERS
    )
    return Gate(KeyThrottle(plain, too_many_at) if limits_keys else plain, keyring, ingest_only)


# Parts that other routes use -------------------------------------------------------------------------


async def store(
    intake: Intake,
    records: Sequence[Sent],
    size_bytes: int,
    name: str = "",
    body_hash: bytes = b"",
    owner: Owner = UNLIMITED,
) -> None:
    """Submit a request's records; what speaks against it becomes a problem."""
    try:
        await intake.submit(records, size_bytes, name, body_hash, owner=owner)
    except BusyError as error:
        raise busy(error) from None
    except KeyReusedError as error:
        raise ProblemError(problems.KEY_REUSED, str(error)) from None


# From a body to an answer ----------------------------------------------------------------------------


async def _store_once(intake: Intake, scope: Scope, head: Head, body: bytes, incoming: Incoming, now: Arrival) -> Batch:
    """Store a body's records, and return what the answer is made of: the same if its key was seen before."""
    tried: list[list[int]] = []
    reused: ProblemError | None = None
    limits = incoming.limits
    for moment in _moments(now, limits.key_s) if head.key and head.skips else (now,):
        batch = await off_loop(len(body), partial(_batch, head, body, limits.max_records, moment))
        if batch.refused in tried:
            continue
        tried.append(batch.refused)
        caller = admit(scope, batch.records)
        incoming.let_go()
        try:
            await store(
                intake,
                batch.records,
                len(body),
                caller.realm + head.key if head.key else "",
                _hash(body, batch.refused) if head.key else b"",
                intake.shares.of_request(scope, caller),
            )
            _count(head.form, batch)
            return batch
        except ProblemError as error:
            if error.kind is not problems.KEY_REUSED:
                raise
            reused = error
    raise reused or AssertionError


async def _store_numbered(
    intake: Intake, scope: Scope, head: Head, body: bytes, incoming: Incoming, now: Arrival
) -> bytes:
    """Store the batch of a sender that numbers them, and return the answer. Without records its number is given up."""
    batch = await off_loop(len(body), partial(_batch, head, body, incoming.limits.max_records, now))
    caller = admit(scope, batch.records)
    owner = intake.shares.of_request(scope, caller)
    incoming.let_go()
    try:
        is_repeated = await intake.submit_numbered(
            batch.records, len(body), caller.realm + head.sender, head.number, owner
        )
    except BusyError as error:
        raise busy(error) from None
    _count(head.form, batch)
    return b'{"accepted":0,"repeated":true}' if is_repeated else _accepted(batch, skips=False)


def _count(form: Form, batch: Batch) -> None:
    rejection_counts.count(problems.INVALID_RECORD, len(batch.refused))
    tally = tally_of(form.name, "http")
    tally.count(1, len(batch.records))
    tally.reject(problems.INVALID_RECORD, len(batch.refused))


def _moments(now: Arrival, step_s: int) -> Iterator[Arrival]:
    """The bounds on how far ahead a record may be under which a request may have come before.

    Time goes on: what was left out as too far ahead might be taken when the request comes again, and the answer would
    count what is not stored. So the bound moves in steps as long as a key is remembered. Within that time it was this
    one or the one before; or there was none, while the clock was not believed.
    """
    step_us = step_s * 1_000_000
    latest_us = min(-(-now.latest_us // step_us) * step_us, LATEST_US - 1)
    for bound_us in (latest_us, latest_us - step_us, LATEST_US - 1):
        yield now._replace(latest_us=bound_us)


def _hash(body: bytes, refused: list[int]) -> bytes:
    """What a key stands for: a body, and which of its records are left out."""
    found = hashlib.blake2b(body, digest_size=16)
    found.update(array("Q", refused).tobytes())
    return found.digest()


def _batch(head: Head, body: bytes, max_records: int, arrival: Arrival) -> Batch:
    try:
        batch = read_batch(head.form, body, max_records, arrival, MAX_ERRORS if head.skips else 0)
    except SyntaxFault as fault:
        raise ProblemError(_syntax(head.form), str(fault)) from None
    except TooLarge as error:
        raise ProblemError(problems.BODY_TOO_LARGE, str(error)) from None
    if batch.refused and not head.skips:
        raise _refusal(head.form, batch.errors[0])
    return batch


def _syntax(form: Form) -> Problem:
    return problems.INVALID_MSGPACK if form is MSGPACK else problems.INVALID_JSON


def _refusal(form: Form, refused: Refused) -> ProblemError:
    where = f"record {refused.place}" + (f" (line {refused.line})" if refused.line else "")
    kind = _syntax(form) if isinstance(refused.error, Unreadable) else problems.INVALID_RECORD
    return ProblemError(kind, f"{where}: {refused.error}", None, **_described(refused))


def _described(refused: Refused) -> dict[str, object]:
    line = {"line": refused.line} if refused.line else {}
    error = refused.error
    value = problems.shown(error.value)
    return {"index": refused.place, **line, "field": error.field, "value": value, "reason": error.reason}


def _accepted(batch: Batch, skips: bool) -> bytes:
    if not skips:
        return b'{"accepted":%d}' % len(batch.records)
    return msgspec.json.encode(
        {
            "accepted": len(batch.records),
            "refused": len(batch.refused),
            "errors": [_described(one) for one in batch.errors],
            "errors_omitted": len(batch.refused) - len(batch.errors),
        }
    )
