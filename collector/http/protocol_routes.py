"""The routes of protocols over HTTP other than our own: at their paths on the common ports, or alone on one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collector.framing.decoder import Message, Received, Rejected
from collector.framing.frame_decoder import Options
from collector.http.request_headers import HttpLimits, Incoming, off_loop, read_encoding
from collector.http_protocols import NAMES, POSTS
from collector.http_protocols.protocol import NotOurs, Post, Read, Told
from collector.ingest.authorization import admit
from collector.ingest.device_filter import DeviceFilter
from collector.ingest.group_commit import Intake
from collector.inspection import traffic_capture
from collector.inspection.protocol_metrics import tally_of
from telemetry.browsers.origins import is_of_browser
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.http.problem_responses import EXCEPTION_HANDLERS, ProblemError, busy
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError, TooLarge

METHODS = ("GET", "POST")
"""OsmAnd's phones ask, all others post; one that asks what it should post is told what is missing."""

USUAL = Options(transport="http")
"""Of the common ports."""


class Posted:
    """Answers the requests of a protocol."""

    def __init__(
        self,
        read: Read,
        options: Options,
        intake: Intake,
        limits: HttpLimits,
        arrival: Callable[[], Arrival],
        devices: DeviceFilter | None = None,
    ) -> None:
        """Without `devices` all devices are taken."""
        self._read = read
        self._tally = tally_of(NAMES[read], options.transport)
        self._options = options
        self._intake = intake
        self._limits = limits
        self._arrival = arrival
        self._devices = devices

    async def answer(self, request: Request) -> Response:
        """Store what a request says, then answer as its protocol has it."""
        if request.method != "POST" and is_of_browser(request.scope["headers"]):
            raise ProblemError(
                problems.FOREIGN_PAGE, "a browser stores nothing by GET, whose address may be in any page: send a POST"
            )
        with Incoming(request, self._limits) as incoming:
            return await self._answer(request, incoming)

    async def _answer(self, request: Request, incoming: Incoming) -> Response:
        body = await incoming.read(read_encoding(request))
        post = Post(
            request.query_params.multi_items(), dict(request.headers), body, user_of(request), self._limits.max_records
        )
        told = await self._told(request, post)
        _see(request, body, Received(told.records, len(body), told.body, str.encode, aside=told.aside), told.status)
        if len(told.records) > self._limits.max_records:
            raise ProblemError(problems.BODY_TOO_LARGE, f"a request may have {self._limits.max_records} records")
        owner = self._intake.shares.of_request(request.scope, admit(request.scope, told.records))
        if self._devices is not None:
            await self._require_devices(self._devices, told, request)
        incoming.let_go()
        try:
            await self._intake.submit(told.records, len(body), aside=told.aside, owner=owner)
        except BusyError as error:
            raise busy(error) from None
        self._tally.count(1, len(told.records))
        refused = max(told.refused, len(told.aside))
        self._tally.reject(problems.INVALID_RECORD, refused)
        rejection_counts.count(problems.INVALID_RECORD, refused)
        kind = "application/json" if told.body else None
        return Response(told.body, told.status, media_type=kind)

    async def _require_devices(self, devices: DeviceFilter, told: Told, request: Request) -> None:
        """Raise `ProblemError` for records of a device that the port does not take."""
        message = Received(told.records, 0, b"", str.encode, aside=told.aside)
        try:
            await devices.look_up(devices.undecided([message], ""))
        except BusyError as error:
            raise busy(error) from None
        except StoreError as error:
            raise busy(BusyError(str(error))) from None
        denied = devices.refusal(told.records, told.aside, traffic_capture.address(request.client))
        if denied is not None:
            self._tally.reject(denied.kind)
            place: dict[str, int] = {} if denied.place is None else {"index": denied.place}
            raise ProblemError(denied.kind, denied.reason, None, **place)

    async def _told(self, request: Request, post: Post) -> Told:
        try:
            return await off_loop(len(post.body), partial(self._read, post, self._options, self._arrival()))
        except TooLarge as error:
            raise ProblemError(problems.BODY_TOO_LARGE, str(error)) from None
        except NotOurs as error:
            _see(request, post.body, Rejected(problems.INVALID_RECORD, str(error), b""), 400)
            self._tally.reject(problems.INVALID_RECORD)
            raise ProblemError(problems.INVALID_RECORD, str(error)) from None


def _see(request: Request, body: bytes, message: Message, status: int) -> None:
    """Show a request to somebody who looks, and how it is answered once all is stored."""
    port = (request.scope.get("server") or ("", 0))[1]
    if traffic_capture.is_watched(port):
        head = f"{request.method} {request.url.path}?{request.url.query}".rstrip("?").encode()
        traffic_capture.see_request(port, traffic_capture.address(request.client), head, body, message, status)


def user_of(request: Request) -> str:
    """Who logged in, as Basic authentication has it; its password is for who checks keys."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(token, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def routes(intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival], options: Options = USUAL) -> list[Route]:
    """All protocols, each at its paths."""
    return [
        Route(path, Posted(read, options, intake, limits, arrival).answer, methods=METHODS)
        for path, read in POSTS.items()
    ]


def alone(posted: Posted) -> Starlette:
    """An application of one protocol, at any path."""
    route = Route("/{path:path}", posted.answer, methods=METHODS)
    return Starlette(routes=[route], exception_handlers=EXCEPTION_HANDLERS)
