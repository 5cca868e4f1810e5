"""The older service's description of itself: what it says is true, and both pages show it without another host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from api.legacy.list_routes import ListRoutes
from api.legacy.routes import OlderRoutes
from api.legacy.wire.responses import Resource
from api.responses.html import STATIC
from telemetry.model.record import Sent
from tests.api.conftest import Box, record
from tests.box import PROJECT
from tests.browser import Browser, running_browser

Document = dict[str, Any]

PAGES = ("/tracking/swagger/", "/tracking/redoc/")
JSON, OPENAPI, HTML = "application/json", "application/openapi+json; charset=utf-8", "text/html; charset=utf-8"
AT_US = 1_769_250_300_000_000
SETTLED_MS = 1_000
METHODS = {"get", "put", "post", "delete", "options", "head", "patch"}
TYPES: dict[str, Any] = {
    "array": list,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "string": str,
}


def ask(box: Box, path: str, accept: str | None = None, method: str = "GET") -> httpx.Response:
    return box.http.request(method, path, headers={"Accept": accept} if accept else {})


@pytest.fixture(scope="module")
def document(box: Box) -> Document:
    """The document, as a program gets it."""
    found: Document = ask(box, f"{PAGES[0]}?format=openapi").json()
    return found


# Statuses and headers --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("query", "accept", "kind"),
    [
        ("", None, HTML),
        ("", "text/html,application/xhtml+xml,*/*;q=0.8", HTML),
        ("?format=", None, HTML),
        ("?format=swagger", None, HTML),
        ("?format=redoc", "text/html", HTML),
        ("?format=openapi", None, OPENAPI),
        ("?format=openapi", "text/html,*/*;q=0.8", OPENAPI),
        ("?format=openapi", "application/openapi+json", OPENAPI),
        ("?format=openapi", JSON, JSON),
        ("?format=json", None, JSON),
        ("", JSON, JSON),
        ("", "application/openapi+json", OPENAPI),
    ],
)
def test_people_get_a_page_and_programs_the_document(
    box: Box, document: Document, page: str, query: str, accept: str | None, kind: str
) -> None:
    answer = ask(box, page + query, accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert answer.headers["vary"] == ("Accept, Cookie" if kind == HTML else "Accept, Cookie, Accept-Encoding")
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert kind == HTML or answer.json() == document
    head = ask(box, page + query, accept, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == kind
    assert kind != HTML or head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_offered_is_refused_in_the_older_shape(box: Box, page: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in (page, page[:-1], f"{page}?format=openapi"):
            answer = ask(box, path, method=method)
            assert answer.status_code == 405
            assert answer.text == f'{{"detail":"Method \\"{method}\\" not allowed."}}'
            assert answer.headers["content-type"] == JSON
    unknown = ask(box, f"{page}?format=xml")
    assert (unknown.status_code, unknown.text) == (404, '{"detail":"Not found."}')
    unmet = ask(box, page, "image/png")
    assert (unmet.status_code, unmet.text) == (406, '{"detail":"Could not satisfy the request Accept header."}')
    assert {one.headers["content-type"] for one in (unknown, unmet)} == {JSON}
    assert ask(box, page, method="OPTIONS").json()["renders"] == ["text/html", JSON, "application/openapi+json"]


def test_without_a_slash_it_is_a_redirect_and_other_addresses_are_unknown(box: Box) -> None:
    for page in PAGES:
        answer = ask(box, f"{page[:-1]}?format=openapi")
        assert (answer.status_code, answer.headers["location"]) == (301, f"{page}?format=openapi")
    for path in ("/tracking/swagger.json", "/swagger", "/swagger/", "/tcp_tracking/swagger/"):
        answer = ask(box, path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, HTML)


# The document ----------------------------------------------------------------------------------------


def nodes(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(part)


def resolved(document: Document, value: Document) -> Document:
    """What stands behind a `$ref`, if it is one."""
    found: Any = value
    if "$ref" in value:
        found = document
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
    return found  # type: ignore[no-any-return]


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def assert_fits(document: Document, value: Any, schema: Document) -> None:
    """Check a value against the words of JSON Schema that the document uses."""
    schema = resolved(document, schema)
    if value is None:
        assert schema["x-nullable"]
        return
    assert isinstance(value, TYPES[schema["type"]]), (value, schema)
    for name in schema.get("required", ()):
        assert name in value
    if isinstance(value, dict):
        for name, part in value.items():
            assert_fits(document, part, schema.get("properties", {}).get(name) or schema["additionalProperties"])
    if isinstance(value, list):
        for part in value:
            assert_fits(document, part, schema["items"])


def test_it_is_swagger_2(box: Box, document: Document) -> None:
    assert next(iter(document)) == "swagger"
    assert document["swagger"] == "2.0"
    assert (document["info"]["title"], document["info"]["version"]) == ("Device Tracking API", "v1")
    assert (document["host"], document["basePath"]) == (f"127.0.0.1:{box.port}", "/")
    for reference in (node["$ref"] for node in nodes(document) if "$ref" in node):
        assert resolved(document, {"$ref": reference})
    used = re.findall(r'"#/(\w+)/(\w+)"', json.dumps(document))
    assert {(kind, name) for kind in ("definitions", "parameters", "responses") for name in document[kind]} == set(used)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names) == 5
    assert {tag["name"] for tag in document["tags"]} == {one for _, _, o in operations(document) for one in o["tags"]}


def test_every_operation_is_whole(document: Document) -> None:
    for path, method, operation in operations(document):
        assert path.startswith("/")
        assert method in METHODS
        parameters = [resolved(document, one) for one in operation["parameters"]]
        in_path = {one["name"] for one in parameters if one["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        for parameter in parameters:
            assert parameter["description"]
            assert "schema" in parameter if parameter["in"] == "body" else parameter["type"] == "string"
            assert parameter.get("required", False) is (parameter["in"] in ("path", "body"))
        for status, response in operation["responses"].items():
            assert 200 <= int(status) < 600
            whole = resolved(document, response)
            assert whole["description"]
            for example in whole.get("examples", {}).values():
                assert_fits(document, example, whole["schema"])


def test_the_host_is_the_one_that_was_asked(box: Box) -> None:
    answer = box.http.get(PAGES[0], headers={"Host": "box.localhost:81", "Accept": JSON})
    assert answer.json()["host"] == "box.localhost:81"


def test_it_names_the_older_addresses_and_their_methods(document: Document) -> None:
    addresses = OlderRoutes.__new__(OlderRoutes), ListRoutes.__new__(ListRoutes)  # they need nothing of what answers
    routes = [route for one in addresses for route in one.routes()]
    offered = {route.path: route.endpoint.allow for route in routes if isinstance(route.endpoint, Resource)}
    named = {path: ", ".join(methods).upper() for path, methods in document["paths"].items()}
    more = {"POST": "POST, OPTIONS", "GET": "GET, HEAD, OPTIONS"}
    assert {path: more[methods] for path, methods in named.items()} == {
        path: allow for path, allow in offered.items() if path.endswith("/")
    }


# Its examples are what the box answers ---------------------------------------------------------------


def example(document: Document, path: str, status: int) -> Any:
    (operation,) = document["paths"][path].values()
    return resolved(document, operation["responses"][str(status)])["examples"][JSON]


def without_id(value: Any) -> Any:
    """A value without the ids that the box allots."""
    if isinstance(value, dict):
        return {name: without_id(part) for name, part in value.items() if name != "id"}
    return [without_id(part) for part in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def filled(box: Box, document: Document) -> Box:
    """A box that holds what the examples show."""
    sent = document["definitions"]["Position"]["example"]
    answer = box.http.post("/tracking/data/", json=[sent])
    assert (answer.status_code, answer.json()) == (202, example(document, "/tracking/data/", 202))
    by_tcp = record(AT_US, "tcp", fix=False, location="123.456,78.901", speed_kmh=55.5)
    box.append(Sent("device123", by_tcp))
    return box


@pytest.mark.parametrize(("kind", "device_id"), [("tracking", "123"), ("tcp_tracking", "device123")])
def test_readings_are_answered_as_in_the_examples(filled: Box, document: Document, kind: str, device_id: str) -> None:
    latest, listed = f"/{kind}/data/latest/{{device_id}}/", f"/{kind}/data/list/"
    arguments = {"device_id": device_id, "start_date": "2026-01-24", "end_date": "24/01/2026", "page": "last"}
    for path, asked in (
        (latest, latest.format(device_id=device_id)),
        (listed, f"{listed}?{urlencode(arguments)}"),
    ):
        answer = ask(filled, asked)
        expected = example(document, path, 200)
        assert answer.status_code == 200, answer.text
        assert json.dumps(without_id(answer.json())) == json.dumps(without_id(expected)), "in this order"
        assert_fits(document, answer.json(), document["paths"][path]["get"]["responses"]["200"]["schema"])


@pytest.mark.parametrize("kind", ["tracking", "tcp_tracking"])
def test_errors_are_answered_as_in_the_examples(box: Box, document: Document, kind: str) -> None:
    listed, latest = f"/{kind}/data/list/", f"/{kind}/data/latest/{{device_id}}/"
    for path, asked, status in (
        (latest, f"/{kind}/data/latest/nobody/", 404),
        (listed, f"{listed}?start_date=bad", 400),
        (listed, f"{listed}?page=0", 404),
    ):
        answer = ask(box, asked)
        assert (answer.status_code, answer.json()) == (status, example(document, path, status))


def test_refused_posts_are_answered_as_in_the_examples(box: Box, document: Document) -> None:
    path = "/tracking/data/"
    wrong = box.http.post(path, json={"device_id": "b", "speed": "fast"})
    assert (wrong.status_code, wrong.json()) == (400, example(document, path, 400))
    plain = box.http.post(path, content=b"x", headers={"Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()) == (415, example(document, path, 415))


# The pages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_pages_load_only_what_the_box_has(box: Box, page: str) -> None:
    answer = ask(box, page)
    assert "<title>Device Tracking API</title>" in answer.text
    assert not re.search(r"<script>|<style|//", answer.text.replace("<!DOCTYPE", ""))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for address in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        part = ask(box, address)
        assert part.status_code == 200, address
        expected = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
        assert part.headers["content-type"] == expected[address.rpartition(".")[2]]
        assert part.content == (PROJECT / "api" / address[1:].replace(f"{STATIC.version}/", "")).read_bytes()


def test_viewers_are_of_the_pinned_versions_and_bring_their_licences() -> None:
    pinned = json.loads((PROJECT / "package.json").read_text())["dependencies"]
    static = PROJECT / "api" / "static"
    redoc, swagger = static / "redoc" / "redoc.standalone.js", static / "swagger-ui" / "swagger-ui-bundle.js"
    assert f'Version: "{pinned["redoc"]}"' in Path(f"{redoc}.LICENSE.txt").read_text()
    assert pinned["swagger-ui-dist"] in swagger.read_text()
    assert "cdn.redoc" not in redoc.read_text()
    assert (redoc.parent / "LICENSE").exists()
    assert (swagger.parent / "LICENSE").exists()
    assert (swagger.parent / "NOTICE").exists()
    viewers = (redoc.parent, swagger.parent)
    assert sum(path.stat().st_size for folder in viewers for path in folder.iterdir()) < 4_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for both pages."""
    with running_browser() as found:
        yield found


def assert_at_peace(browser: Browser, box: Box) -> None:
    """Check that nobody but the box was asked, and that nothing was refused, also not soon after."""
    browser.run(f"new Promise(done => setTimeout(done, {SETTLED_MS}))")
    assert browser.hosts() == {f"127.0.0.1:{box.port}"}
    assert browser.complaints() == []


@pytest.mark.slow
def test_swagger_ui_shows_every_operation_and_tries_them_out(box: Box, browser: Browser, document: Document) -> None:
    browser.open(f"http://127.0.0.1:{box.port}/tracking/swagger/")
    browser.wait_for("document.querySelectorAll('.opblock').length === 5")
    shown = browser.text()
    assert all(path in shown.replace("\u200b", "") for path in document["paths"])
    assert document["info"]["title"] in shown
    browser.click(".opblock-post .opblock-summary-control")
    browser.click(".opblock-post .try-out__btn")
    browser.click(".opblock-post .execute")
    browser.wait_for(
        "document.querySelector('.live-responses-table tbody .response-col_status')?.innerText.includes('202')"
    )
    assert ask(box, "/tracking/data/latest/123/").json()["location"] == "Antalya"
    assert_at_peace(browser, box)


@pytest.mark.slow
def test_redoc_shows_every_operation(box: Box, browser: Browser, document: Document) -> None:
    browser.open(f"http://127.0.0.1:{box.port}/tracking/redoc/")
    for name in (operation["operationId"] for _, _, operation in operations(document)):
        browser.wait_for(f"""document.querySelector('div[id$="operation/{name}"]') !== null""")
    shown = browser.run("document.body.textContent").replace("\u200b", "")
    assert all(path in shown for path in document["paths"])
    assert all(operation["summary"] in shown for _, _, operation in operations(document))
    assert document["info"]["title"] in shown
    assert_at_peace(browser, box)
