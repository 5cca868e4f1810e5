"""What ends a request early, where no route's own test says it."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from telemetry.http.problem_responses import ProblemError, refuse_unknown


def request(**parameters: object) -> Request:
    return Request({"type": "http", "query_string": urlencode(parameters).encode(), "headers": []})


def test_a_parameter_that_nobody_knows_is_refused() -> None:
    refuse_unknown(request(limit=1), ("limit", "cursor"))
    with pytest.raises(ProblemError, match="Limit is unknown; known: limit, cursor"):
        refuse_unknown(request(Limit=1), ("limit", "cursor"))
    with pytest.raises(ProblemError, match="x is unknown; known: none"):
        refuse_unknown(request(x=""), ())
    refuse_unknown(request(), ())
