"""Responses like the older service's: headers, methods, redirects, and content negotiation between JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.responses.accept import Range
from api.responses.html import SAFE_HEADERS, page
from telemetry.coordination import rejection_counts
from telemetry.http.problem_responses import ProblemError

HEADERS = {"Vary": "Accept, Cookie", **SAFE_HEADERS}
"""Headers of every response, in addition to `Allow`."""

JSON, HTML = "application/json", "text/html"
Formats = Mapping[str, tuple[str, ...]]
"""Values of `?format=`, each with its media types; the first is the default."""

FORMATS: Formats = {"json": (JSON,), "api": (HTML,)}

TO_POST = "POST, OPTIONS"
TO_READ = "GET, HEAD, OPTIONS"
"""Values of the `Allow` header."""

FORM, FORM_IN_PARTS = "application/x-www-form-urlencoded", "multipart/form-data"
PARSES = (JSON, FORM, FORM_IN_PARTS)
"""Media types of accepted bodies."""


class OlderError(Exception):
    """Ends a request with a body in the older service's format."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Answer(NamedTuple):
    """Content of a response, independent of its media type."""

    status: int
    body: object
    headers: Mapping[str, str] = {}


class Form(NamedTuple):
    """Media type of a response, and the indentation of JSON, if any."""

    media_type: str
    indent: int | None = None


Handler = Callable[[Request], Awaitable[Answer]]


class Resource:
    """Handler of one path. Negotiates the media type before it checks the method, like the older service."""

    def __init__(self, name: str, allow: str, handler: Handler, parses: tuple[str, ...]) -> None:
        self.name = name
        self.allow = allow
        self._handler = handler
        self._method = allow.partition(",")[0]
        self._parses = parses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to a request."""
        request = Request(scope, receive)
        try:
            form = negotiate(request)
        except OlderError as error:
            response = as_json(Answer(error.status, error.body, {"Vary": "Accept"}), self.allow)
        else:
            response = self._written(request, await self._answer(request), form)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Answer:
        if request.method == "OPTIONS":
            return Answer(200, self._about())
        if request.method not in self.allow.split(", "):
            return Answer(405, {"detail": f'Method "{request.method}" not allowed.'})
        try:
            return await self._handler(request)
        except OlderError as error:
            rejection_counts.count_status(error.status)
            return Answer(error.status, error.body)
        except ProblemError as error:
            rejection_counts.count(error.kind)
            return Answer(error.kind.status, {"detail": str(error)}, error.headers or {})

    def _about(self) -> dict[str, object]:
        return about(self.name, FORMATS, self._parses)

    def _written(self, request: Request, answer: Answer, form: Form) -> Response:
        if form.media_type == JSON:
            return as_json(answer, self.allow, form.indent)
        return page(
            "answer.html",
            answer.status,
            {**HEADERS, "Allow": self.allow, **answer.headers},
            name=self.name,
            method=request.method,
            path=request.url.path,
            query=request.url.query,
            outcome=f"{answer.status} {HTTPStatus(answer.status).phrase}",
            allow=self.allow,
            body=_text(answer.body, indent=4),
        )


def about(name: str, formats: Formats, parses: tuple[str, ...]) -> dict[str, object]:
    """The response to OPTIONS."""
    return {"name": name, "description": "", "renders": _media_types(formats), "parses": list(parses)}


def _media_types(formats: Formats) -> list[str]:
    return list(dict.fromkeys(media_type for media_types in formats.values() for media_type in media_types))


def as_json(answer: Answer, allow: str, indent: int | None = None) -> Response:
    """A response with JSON, indented by `indent` spaces per level if given."""
    headers = {**HEADERS, "Allow": allow, **answer.headers, "Content-Type": JSON}
    return Response(_text(answer.body, indent).encode(), answer.status, headers)


def _text(body: object, indent: int | None) -> str:
    # json, not msgspec: it formats numbers like the older service
    return json.dumps(body, ensure_ascii=False, indent=indent, separators=None if indent else (",", ":"))


def negotiate(request: Request, formats: Formats = FORMATS) -> Form:
    """The media type for a response. The most specific range in `Accept` decides; quality values are ignored.

    Raises `OlderError`: 404 for an unknown `?format=`, 406 if no media type is acceptable.
    """
    requested = request.query_params.getlist("format")[-1:]
    if requested and requested[0]:
        if requested[0] not in formats:
            raise OlderError(404, {"detail": "Not found."})
        offered = list(formats[requested[0]])
    else:
        offered = _media_types(formats)
    accepted = ",".join(request.headers.getlist("accept")) or "*/*"
    ranges = sorted((Range.of(text) for text in accepted.split(",")), key=lambda media_range: -media_range.exactness)
    for exactness in (3, 2, 1, 0):
        for media_type in offered:
            for media_range in ranges:
                if media_range.exactness == exactness and media_range.matches(media_type):
                    return Form(media_type, media_range.indent if media_type == JSON else None)
    raise OlderError(406, {"detail": "Could not satisfy the request Accept header."})


def readable(path: str, name: str, handler: Handler) -> list[Route]:
    """The routes of a readable path, with and without a trailing slash."""
    resource = Resource(name, TO_READ, handler, PARSES)
    return [Route(f"{path}/", resource), Route(path, redirect), Route(path, resource)]


async def redirect(request: Request) -> Response:
    """Redirect to the same path with a trailing slash, as a relative URL with the query."""
    path = request.scope["raw_path"].decode("ascii").partition("?")[0] + "/"
    query = request.scope["query_string"].decode("latin-1")
    location = f"{path}?{query}" if query else path
    return Response(b"", 301, {**HEADERS, "Location": location, "Content-Type": "text/html; charset=utf-8"})
