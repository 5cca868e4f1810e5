"""Error responses that depend on the path: unknown paths, rate limits, and an unavailable query program."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from api.legacy.wire.responses import TO_READ, Answer, as_json
from api.responses import record_schema
from api.responses.html import page
from api.responses.record_schema import wants_json
from telemetry.coordination import rejection_counts
from telemetry.http.problem_responses import EXCEPTION_HANDLERS, ProblemError, too_many
from telemetry.limits.rate_limits import Over
from telemetry.model import problems


async def not_found(request: Request, error: Exception) -> Response:
    """404: problem details under `/v1/` and for clients that accept JSON; a page for all others."""
    path = request.scope["path"]
    if path == "/v1" or path.startswith("/v1/") or wants_json(request):
        return await EXCEPTION_HANDLERS[HTTPException](request, error)
    return page("not_found.html", 404, path=path)


def refusal(path: str) -> Response:
    """503 while the query program is unavailable, in the format of the path's API."""
    if path != "/readyz":  # monitoring requests it and sees the status itself
        rejection_counts.count(problems.BUSY)
    why = "cannot answer: the query program is not available; it is restarted automatically"
    if is_older(path):
        return as_json(Answer(503, {"detail": why}, {"Retry-After": "1"}), TO_READ)
    if path == "/readyz":
        return record_schema.json({"status": "not ready", "reasons": ["the query program does not answer"]}, 503)
    return ProblemError(problems.BUSY, why, {"Retry-After": "1"}).response()


def too_many_at(path: str, over: Over) -> Response:
    """429, in the format of the path's API."""
    error = too_many(over)
    if is_older(path):
        return as_json(Answer(429, {"detail": str(error)}, error.headers or {}), TO_READ)
    return error.response()


def is_older(path: str) -> bool:
    """True for a path of the legacy API."""
    return path.startswith(("/tracking/", "/tcp_tracking/"))


HANDLERS: dict[Any, ExceptionHandler] = {**EXCEPTION_HANDLERS, 404: not_found}
"""Exception handlers of the API's programs."""
