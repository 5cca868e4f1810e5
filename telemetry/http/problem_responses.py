"""Errors as `application/problem+json` responses, and exception handlers for Starlette."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from telemetry.coordination import rejection_counts
from telemetry.limits.rate_limits import Over
from telemetry.model import problems
from telemetry.model.errors import BusyError, ShareFull, TooManyDays
from telemetry.model.problems import Problem


class ProblemError(Exception):
    """Ends a request with a problem. `more` are additional members of its body."""

    def __init__(self, kind: Problem, detail: str, headers: dict[str, str] | None = None, **more: object) -> None:
        super().__init__(detail)
        self.kind = kind
        self.headers = headers
        self.body = problems.body(kind, detail, **more)

    def response(self) -> Response:
        return Response(self.body, self.kind.status, self.headers, problems.CONTENT_TYPE)


def invalid_parameter(name: str, reason: str) -> ProblemError:
    """The problem of an invalid parameter."""
    return ProblemError(problems.INVALID_PARAMETER, f"{name} {reason}", parameter=name)


def busy(error: BusyError) -> ProblemError:
    """The problem of a box that cannot do this now."""
    return ProblemError(busy_kind(error), str(error), {"Retry-After": str(error.retry_after_s)})


def busy_kind(error: BaseException | None) -> Problem:
    """The kind of problem for an error while storing."""
    if isinstance(error, ShareFull):
        return problems.SHARE_FULL
    return problems.TOO_MANY_DAYS if isinstance(error, TooManyDays) else problems.BUSY


def too_many(over: Over) -> ProblemError:
    """The problem of an exceeded rate limit."""
    headers = {"Retry-After": str(over.retry_after_s)}
    return ProblemError(problems.RATE_LIMITED, str(over), headers, **{"violated-policies": [over.policy]})


def too_many_at(_path: str, over: Over) -> Response:
    """The response to a request that exceeds a rate limit."""
    return too_many(over).response()


def refuse_unknown(request: Request, known: Iterable[str]) -> None:
    """Reject unknown parameters, so that a misspelt one is not silently ignored."""
    for name in request.query_params:
        if name not in known:
            raise invalid_parameter(name, f"is unknown; known: {', '.join(known) or 'none'}")


async def _on_problem(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    rejection_counts.count(error.kind)
    return error.response()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kinds = {404: problems.NOT_FOUND, 405: problems.WRONG_METHOD}
    kind = kinds.get(error.status_code, problems.INTERNAL)  # no other status is raised
    rejection_counts.count(kind)
    detail = f"{request.method} {request.url.path}"
    headers = {"Allow": _allowed(request)} if kind is problems.WRONG_METHOD else error.headers
    return Response(problems.body(kind, detail), kind.status, headers, problems.CONTENT_TYPE)


def _allowed(request: Request) -> str:
    """The methods of all routes at this path; Starlette names only the methods of the first."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    at_this = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in at_this for method in route.methods or ()}))


async def _on_error(_request: Request, _error: Exception) -> Response:
    rejection_counts.count(problems.INTERNAL)
    return Response(
        problems.body(problems.INTERNAL, "the request was not carried out"), 500, None, problems.CONTENT_TYPE
    )


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # the client has disconnected


EXCEPTION_HANDLERS = {
    ProblemError: _on_problem,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_disconnect,
    Exception: _on_error,
}
"""Exception handlers for Starlette."""
