"""API description of the older service: a Swagger 2.0 document, and pages with Swagger UI and Redoc.

Both viewers are copied into api/static (docs/dependencies.md); swagger.js and redoc.js start them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.legacy.wire.responses import (
    HEADERS,
    HTML,
    JSON,
    Answer,
    Formats,
    OlderError,
    about,
    as_json,
    negotiate,
    redirect,
)
from api.responses.html import page

ALLOW = "GET, HEAD, OPTIONS"
OPENAPI = "application/openapi+json"
FORMATS: Formats = {
    "swagger": (HTML,),
    "redoc": (HTML,),
    "json": (JSON,),
    "openapi": (OPENAPI, JSON),
}

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parent / "openapi.json").read_text(encoding="utf-8"))

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; style-src 'self'"
)
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
SCROLLBAR_STYLE = "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
"""CSP hashes for Redoc: it creates empty style elements, which a script fills, and one with the style of its scroll
bar. A new version may need other hashes; tests/api/legacy/test_swagger.py checks it in a browser."""

REDOC_POLICY = f"{POLICY} {EMPTY_STYLE} {SCROLLBAR_STYLE}"
WHERE = "?format=openapi"


class Viewer:
    """Handler of one path: a page with a viewer for browsers, the document itself for programs."""

    def __init__(self, name: str, template: str, policy: str) -> None:
        self._name = name
        self._template = template
        self._headers = {**HEADERS, "Allow": ALLOW, "Content-Security-Policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to a request."""
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        try:
            form = negotiate(request, FORMATS)
        except OlderError as error:
            return as_json(Answer(error.status, error.body, {"Vary": "Accept"}), ALLOW)
        if request.method == "OPTIONS":
            return as_json(Answer(200, about(self._name, FORMATS, ())), ALLOW)
        if request.method not in ("GET", "HEAD"):
            return as_json(Answer(405, {"detail": f'Method "{request.method}" not allowed.'}), ALLOW)
        if form.media_type == HTML:
            return page(self._template, 200, self._headers, title=DOCUMENT["info"]["title"], document=WHERE)
        answer = as_json(Answer(200, document(request)), ALLOW, form.indent)
        if form.media_type == OPENAPI:
            answer.headers["Content-Type"] = f"{OPENAPI}; charset=utf-8"
        return answer


def document(request: Request) -> dict[str, Any]:
    """The document with the request's host."""
    host = request.headers.get("host")
    return {**DOCUMENT, "host": host} if host else DOCUMENT


def routes() -> list[Route]:
    """Both pages."""
    return [
        *_of("/tracking/swagger", Viewer("Swagger UI", "swagger.html", POLICY)),
        *_of("/tracking/redoc", Viewer("Redoc", "redoc.html", REDOC_POLICY)),
    ]


def _of(path: str, viewer: Viewer) -> list[Route]:
    return [Route(f"{path}/", viewer), Route(path, redirect), Route(path, viewer)]
