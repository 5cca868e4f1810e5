"""`/openapi.json`: valid, whole, and of routes that answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from api import app as api_program
from api.analytics.summary import Summaries, SummaryAnswer
from api.analytics.summary_sql import FIELDS
from api.analytics.trips import Trips
from api.app import ForwardedRoutes
from api.audit.routes import AuditRoutes
from api.devices.delete_device import Deleting
from api.devices.deletion_status import DeletionRoutes
from api.devices.list_devices import DeviceRoutes
from api.latest.fleet import LATEST, Fleet
from api.latest.live_stream import LiveRoutes
from api.latest.routes import MORE, PARAMETERS, LatestRoutes
from api.legacy.list_routes import ListRoutes
from api.legacy.routes import OlderRoutes
from api.pages.map_page import PageRoutes
from api.pages.openapi import Document
from api.query import app as query_program
from api.query.app import OPERATIONS
from api.records.export import Exports
from api.records.range_query import History
from api.sign_in.routes import LoginRoutes
from api.sql.routes import Sql
from api.status.box_facts import PARTS
from api.status.box_history import BoxRoutes
from api.status.prometheus import Metrics
from api.status.readiness import Health
from api.status.status_page import Status
from collector.http.routes import routes
from telemetry.http.operations import names
from telemetry.limits.client_address import Addresses
from telemetry.model import api_keys, problems
from telemetry.model.problems import Problem
from tests.api.conftest import Box, assert_problem

NOTHING = cast("Any", None)  # routes are made, nothing is asked

ELSEWHERE = (
    "/tracking/",
    "/tcp_tracking/",
    "/tracking",
    "/tcp_tracking",
    "/admin",
    "/static",
    "/docs",
    "/redoc",
    "/page/",
    "/login",
    "/logout",
)
"""Addresses that the document doesn't describe: the older service's, which have their own, and pages for people, of
which `/` is one."""


NO_LOGIN = LoginRoutes(None, None, Addresses((), ""))


def described(has_keys: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Document(OPERATIONS, has_keys, 50_000).json)
    return found


def bare(kind: type[Any]) -> Any:
    """An object of a group of routes without its parts: routes are made, nothing is asked."""
    return object.__new__(kind)


def of_api() -> Starlette:
    """The API program's table."""
    parts = (LatestRoutes, LiveRoutes, OlderRoutes, Metrics, BoxRoutes, Deleting)
    forwarded = ForwardedRoutes(NOTHING, NOTHING, bare(LatestRoutes))
    others = [partial(routes, NOTHING, NOTHING, NOTHING), PageRoutes().routes, NO_LOGIN.routes]
    groups = [*(bare(one).routes for one in parts), *others, AuditRoutes(Path()).routes, forwarded.routes]
    return api_program.app(groups, forwarded)


def of_query() -> Starlette:
    """The query program's table."""
    parts = (
        History,
        Fleet,
        DeviceRoutes,
        Exports,
        Summaries,
        Trips,
        Health,
        Status,
        ListRoutes,
        Document,
        DeletionRoutes,
        Sql,
    )
    return query_program.app([bare(one).routes for one in parts])


def served() -> Iterator[tuple[str, str]]:
    """Each method and path of both programs, but for those that are described elsewhere."""
    for route in (*of_api().routes, *of_query().routes):
        path = re.sub(r":\w+}", "}", cast("Route | Mount", route).path)
        if path != "/" and not path.startswith(ELSEWHERE):
            assert isinstance(route, Route)
            yield from ((method, path) for method in route.methods or () if method != "HEAD")


def documented() -> list[tuple[str, str]]:
    return [(method.upper(), path) for path, methods in described()["paths"].items() for method in methods]


@pytest.mark.parametrize("has_keys", [False, True])
def test_it_is_valid(has_keys: bool) -> None:
    assert list(OpenAPIV31SpecValidator(described(has_keys)).iter_errors()) == []


def test_each_route_is_in_it_and_no_other() -> None:
    assert sorted(set(served())) == sorted(documented())


def test_names_are_given_once() -> None:
    given = [one.name for one in OPERATIONS]
    assert len(given) == len(set(given))
    for one in OPERATIONS:
        assert len(names(one.parameters)) == len(set(names(one.parameters)))
        assert one.summary
        assert all(parameter.sentence for parameter in one.parameters)


@pytest.mark.parametrize(("method", "path"), documented())
def test_each_answers(box: Box, method: str, path: str) -> None:
    if path == "/v1/live":
        with box.http.stream(method, path) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
        return
    assert_documented(box.http.request(method, path.replace("{device_id}", "nobody")), method, path)


def assert_documented(answer: httpx.Response, method: str, path: str) -> None:
    """Check that a status and a kind of body are named; 404 is only for a device that is unknown."""
    responses = described()["paths"][path][method.lower()]["responses"]
    assert answer.status_code not in (405, 500)
    kinds = responses[str(answer.status_code)].get("content", {})
    assert not answer.content or answer.headers["content-type"].partition(";")[0] in kinds
    if answer.status_code == 404:
        assert_problem(answer, 404, "unknown-deletion" if "deletion" in path else "unknown-device")


@pytest.mark.parametrize(
    "one", [one for one in OPERATIONS if problems.INVALID_PARAMETER in one.problems and one.parameters]
)
def test_its_parameters_are_those_that_are_taken(box: Box, one: Any) -> None:
    path = re.sub(r"{.+?}", "nobody", one.path)
    found = assert_problem(box.http.request(one.method, f"{path}?unheard=1"), 400, "invalid-parameter")
    assert found["detail"] == f"unheard is unknown; known: {', '.join(names(one.parameters)) or 'none'}"


def test_latest_alone_knows_what_the_query_program_takes() -> None:
    assert names(LATEST.parameters) == [*names(PARAMETERS), *MORE]


def test_the_limit_is_that_of_the_settings(box: Box) -> None:
    answer = box.http.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    [limit] = [one for one in answer.json()["paths"]["/v1/records"]["get"]["parameters"] if one["name"] == "limit"]
    assert limit["schema"]["maximum"] == box.settings.api.max_page_records
    assert answer.json() == described(), "made of the same settings"


def test_errors_are_of_kinds_that_there_are() -> None:
    known = {one.type for one in vars(problems).values() if isinstance(one, Problem)}
    named = set(re.findall(r"urn:whimbrel:problem:[\w-]+", json.dumps(described(True))))
    never = {problems.NOT_FOUND.type, problems.WRONG_METHOD.type, problems.INVALID_FRAME.type}
    never |= {problems.WRONG_LOGIN.type, problems.LOGINS_LIMITED.type, problems.LOGIN_REFUSED.type}  # of the login page
    assert named == known - never


def test_keys_are_asked_for_where_they_are_required() -> None:
    assert "security" not in json.dumps(described())
    paths = described(True)["paths"]
    assert paths["/v1/records"]["get"]["security"][0] == {"bearer": ["read"]}
    assert paths["/v1/records"]["post"]["security"][0] == {"bearer": ["ingest"]}
    assert paths["/healthz"]["get"]["security"] == []
    assert paths["/readyz"]["get"]["security"][0] == {}
    ways = [way for methods in paths.values() for one in methods.values() for way in one["security"]]
    asked = {scope for way in ways for scopes in way.values() for scope in scopes}
    assert asked <= set(api_keys.SCOPES)


def test_answers_that_sql_makes_have_the_fields_of_their_type() -> None:
    assert SummaryAnswer.__struct_fields__ == ("device_id", "start", "end", *FIELDS)
    facts = described()["components"]["schemas"]["StatusAnswer"]["properties"]
    assert {name for part in PARTS.values() for name in part.__struct_fields__} <= set(facts)
