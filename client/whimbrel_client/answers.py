"""What an answer of the box means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from whimbrel_client.errors import (
    BoxUnavailable,
    KeyRefused,
    NotFound,
    RateLimited,
    RequestRefused,
    TooLarge,
    WhimbrelError,
)
from whimbrel_client.steps import Answer

MAX_RETRY_AFTER_S = 3_600.0
"""Longest pause that an answer can ask for."""

_REFUSALS: Mapping[int, type[RequestRefused]] = {401: KeyRefused, 403: KeyRefused, 404: NotFound, 413: TooLarge}


def checked(answer: Answer, what: str) -> Answer:
    """The answer, if it is one of success. Raises the error that it stands for, which says that one cannot `what`."""
    if 200 <= answer.status < 300:
        return answer
    raise error_of(answer, what)


def error_of(answer: Answer, what: str) -> WhimbrelError:
    """The error that an answer stands for."""
    members = _members(answer.content)
    said = members.get("detail") or members.get("title") or "it gave no reason"
    message = f"cannot {what}: the box answered {answer.status}: {said}"
    after_s = retry_after_s(answer)
    if answer.status == 429:
        return RateLimited(message, status=429, members=members, retry_after_s=after_s)
    if answer.status == 408 or answer.status >= 500:
        return BoxUnavailable(message, status=answer.status, members=members, retry_after_s=after_s)
    kind = _REFUSALS.get(answer.status, RequestRefused)
    return kind(message, status=answer.status, members=members)


def _members(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def retry_after_s(answer: Answer) -> float:
    """The seconds of `Retry-After`, `MAX_RETRY_AFTER_S` at most; 0 if it is absent or a date, which no box sends."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), MAX_RETRY_AFTER_S) if text.isdecimal() else 0.0


def object_of(answer: Answer, what: str) -> dict[str, Any]:
    """The JSON object of an answer of success. Raises `RequestRefused` if there is none: then it is no Whimbrel."""
    found = _members(checked(answer, what).content)
    if not found:
        message = f"cannot {what}: no Whimbrel answers so: {answer.content[:80]!r}"
        raise RequestRefused(message, status=answer.status)
    return dict(found)
