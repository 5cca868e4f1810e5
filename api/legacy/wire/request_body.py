"""Parses request bodies like the older service: JSON, and forms with one record."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import NoReturn
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from api.legacy.wire.responses import FORM, FORM_IN_PARTS, JSON, OlderError
from collector.http.request_headers import HttpLimits, off_loop, read_body

MAX_FORM_FIELDS = 1_000


async def read(request: Request, limits: HttpLimits) -> tuple[object, int]:
    """The value in a body, and the body's size. Raises `OlderError` and `ProblemError`."""
    body = await read_body(_unencoded(request), limits)
    return await _value_of(request, body), len(body)


def _unencoded(request: Request) -> Request:
    """The request without Content-Encoding, which the older service ignores."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-encoding"]
    return Request({**request.scope, "headers": headers}, request.receive)


async def _value_of(request: Request, body: bytes) -> object:
    if not body:
        return {}
    kind = request.headers.get("content-type") or "text/plain"
    name = kind.partition(";")[0].strip().lower()
    if name == JSON:
        return await off_loop(len(body), lambda: _loads(body))
    if name == FORM:
        return _form(body)
    if name == FORM_IN_PARTS:
        return await _form_in_parts(request.headers, body)
    raise OlderError(415, {"detail": f'Unsupported media type "{kind}" in request.'})


def _form(body: bytes) -> dict[str, str]:
    """The fields of a form; the last of repeated ones counts."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError as error:
        raise OlderError(400, {"detail": f"Form parse error - {error}"}) from None


async def _form_in_parts(headers: Headers, body: bytes) -> dict[str, str]:
    boundary = parse_options_header(headers["content-type"])[1].get(b"boundary")
    if boundary and boundary not in body:
        return {}  # the older service read JSON with this media type as a form without fields

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(headers, stream(), max_files=0, max_fields=MAX_FORM_FIELDS).parse()
    except MultiPartException as error:
        raise OlderError(400, {"detail": f"Multipart form parse error - {error.message}"}) from None
    return {field: value for field, value in form.items() if isinstance(value, str)}


def _loads(body: bytes) -> object:
    """Decode JSON like the older service, with the same error messages."""
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise OlderError(400, {"detail": "JSON parse error - nested too deeply"}) from None
    except ValueError as error:  # the base class of UnicodeDecodeError and JSONDecodeError
        raise OlderError(400, {"detail": f"JSON parse error - {error}"}) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"Out of range float values are not JSON compliant: {name!r}")


def _finite(text: str) -> float | str:
    """A number; one too large for a double remains text, which the field rules then reject."""
    number = float(text)
    return number if abs(number) != float("inf") else text
