"""Questions to a box, and what their answers hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from whimbrel_client.answers import checked, object_of
from whimbrel_client.errors import RequestRefused
from whimbrel_client.retrying import Patience, asked
from whimbrel_client.steps import Answer, Ask, Steps
from whimbrel_client.values import parameters, with_times

ARROW = "application/vnd.apache.arrow.stream"


class Pages(NamedTuple):
    """A question that is answered page by page: `member` of each answer holds the items."""

    path: str
    member: str
    what: str
    parameters: tuple[tuple[str, str], ...] = ()


class Page(NamedTuple):
    """Some items, their times as datetimes, and the question for the page behind it; None if it is the last."""

    items: list[dict[str, Any]]
    next: Pages | None


PAGES: Mapping[str, Pages] = {
    "latest": Pages("/v1/latest", "records", "read latest"),
    "devices": Pages("/v1/devices", "devices", "read devices"),
    "records": Pages("/v1/records", "records", "read records"),
    "trips": Pages("/v1/trips", "trips", "read trips"),
    "stops": Pages("/v1/stops", "stops", "read stops"),
    "summary": Pages("/v1/summary", "summaries", "read a summary"),
}


def pages(name: str, given: Mapping[str, Any]) -> Pages:
    """The question of a name with these parameters. Raises `ValueError` for a time without a zone."""
    return PAGES[name]._replace(parameters=tuple(parameters(given)))


def page(question: Pages, retry_for_s: float) -> Steps[Page]:
    """One page."""
    ask = Ask("GET", question.path, question.parameters)
    answer = yield from asked(ask, lambda answer: checked(answer, question.what), Patience(retry_for_s))
    found = object_of(answer, question.what)
    items = [with_times(item) for item in found.get(question.member) or []]
    cursor = found.get("next_cursor")
    if cursor is None:
        return Page(items, None)
    others = [pair for pair in question.parameters if pair[0] != "cursor"]
    return Page(items, question._replace(parameters=(*others, ("cursor", str(cursor)))))


def latest(device_id: str, retry_for_s: float) -> Steps[dict[str, Any]]:
    """The newest record of a device. Raises `NotFound` if the box knows none."""
    what = f"read the latest of {device_id!r}"
    ask = Ask("GET", f"/v1/devices/{quote(device_id, safe='')}/latest")
    answer = yield from asked(ask, lambda answer: checked(answer, what), Patience(retry_for_s))
    return with_times(object_of(answer, what))


def export(given: Mapping[str, Any]) -> Steps[bytes]:
    """All records of a range as an Arrow stream. Never tried again: it may be long, and the caller knows how long."""
    ask = Ask("GET", "/v1/export", (*parameters(given), ("format", "arrow")))
    return (yield from _stream(ask, "read an export")).content


def sql(query: str) -> Steps[tuple[bytes, bool]]:
    """A question in SQL: its answer as an Arrow stream, and whether it was cut at the box's bounds."""
    body = json.dumps({"query": query}).encode()
    ask = Ask("POST", "/v1/sql", (("format", "arrow"),), {"Content-Type": "application/json"}, body)
    answer = yield from _stream(ask, "ask SQL")
    return answer.content, answer.headers.get("truncated") == "true"


def _stream(ask: Ask, what: str) -> Steps[Answer]:
    answer: Answer = yield ask
    checked(answer, what)
    if answer.headers.get("content-type") != ARROW:
        raise RequestRefused(f"cannot {what}: no Whimbrel answers so: {answer.content[:80]!r}", status=answer.status)
    return answer
