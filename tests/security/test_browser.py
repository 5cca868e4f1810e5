"""Attack an open box from pages of other sites, with the requests that a browser makes for them.

Its user only has to look at such a page: DNS rebinding read everything and deleted a device; an image, a form and a
`fetch` that asks for nothing beforehand stored records, over HTTP and on the port of TCP.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import httpx
import pytest

from tests.box import Box, free_ports, plain_http
from tests.browser import running_browser

HOST, EVIL, PATIENCE_S = "127.0.0.1", "http://evil.example.com", 30

USER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "Accept": "*/*",
    "Accept-Language": "en-GB,en;q=0.9",
    "Accept-Encoding": "gzip, deflate",
}
CROSS_SITE = {**USER, "Sec-Fetch-Site": "cross-site"}
FETCH = {**CROSS_SITE, "Origin": EVIL, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}
CORS = {**FETCH, "Sec-Fetch-Mode": "cors"}
IMAGE = {**CROSS_SITE, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {**CROSS_SITE, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
FRAME = {**LINK, "Sec-Fetch-Dest": "iframe"}
FORM = {**LINK, "Origin": EVIL, "Content-Type": "text/plain"}
EVENTS = {**CORS, "Accept": "text/event-stream"}
TYPED = {**LINK, "Sec-Fetch-Site": "none"}
OTHER_PORT = {**CORS, "Origin": f"http://{HOST}:3000", "Sec-Fetch-Site": "same-site"}
SANDBOXED = {**CORS, "Origin": "null"}
OLD_BROWSER = {**USER, "Origin": EVIL}
"""One that sends no `Sec-Fetch-Site`, as all do to an address that they don't take for safe: `http://192.168.1.5`."""

OF_OTHERS = {
    "no-cors fetch": FETCH,
    "cors fetch": CORS,
    "other port": OTHER_PORT,
    "sandboxed frame": SANDBOXED,
    "old browser": OLD_BROWSER,
    "form": FORM,
}

STORING_GETS = ("/osmand?id=evil&lat=1&lon=2", "/osmand/?id=evil&lat=1&lon=2")


class Open(NamedTuple):
    """A box without keys, as it is by default, and a port of OsmAnd."""

    box: Box
    api: httpx.Client
    collector: httpx.Client
    osmand: httpx.Client

    @property
    def all(self) -> tuple[httpx.Client, ...]:
        return self.api, self.collector, self.osmand

    def devices(self) -> set[str]:
        return {record["device_id"] for record in self.api.get("/v1/latest").json()["records"]}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    [port] = free_ports(1)
    listen = [{"protocol": "osmand", "transport": "http", "port": port}]
    with contextlib.ExitStack() as stack:
        box = Box(tmp_path_factory.mktemp("open"), collector__listen=json.dumps(listen), sql__enabled="true")
        stack.enter_context(box)
        ports = (box.api_port, box.http_port, port)
        found = Open(box, *(stack.enter_context(plain_http(f"http://{HOST}:{one}")) for one in ports))
        assert found.collector.post("/v1/records", json={"device_id": "truck"}).status_code == 202
        yield found


@pytest.fixture(autouse=True)
def _nothing_is_stored(opened: Open) -> Iterator[None]:
    yield
    assert opened.devices() <= {"truck", "own"}


def kind_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


REBOUND = (421, "misdirected-request")
FOREIGN = (403, "foreign-page")


# DNS rebinding: the page's own name leads to the box, and the browser takes both for the same origin --------


@pytest.mark.parametrize(
    "name", ["evil.example.com", "evil.example.com:8000", "localhost.evil.com", "127.0.0.1.nip.io"]
)
def test_a_rebound_name_reaches_nothing(opened: Open, name: str) -> None:
    headers = {**USER, "Host": name}
    own = {**headers, "Origin": f"http://{name}"}
    for http in (opened.api, opened.collector):
        for path in ("/v1/devices/truck/latest", "/v1/records", "/", "/status", "/osmand?id=evil&lat=1&lon=2"):
            assert kind_of(http.get(path, headers=headers)) == REBOUND
        assert kind_of(http.post("/v1/records", headers=own, json={"device_id": "evil"})) == REBOUND
        assert kind_of(http.post("/tracking/data/", headers=own, json={"device_id": "evil"})) == REBOUND
    assert kind_of(opened.osmand.get("/?id=evil&lat=1&lon=2", headers=headers)) == REBOUND
    for path in (
        "/v1/latest",
        "/v1/export",
        "/v1/live",
        "/tracking/data/list/",
        "/metrics",
        "/healthz",
        "/static/page/page.css",
    ):
        assert kind_of(opened.api.get(path, headers=headers)) == REBOUND
    assert kind_of(opened.api.post("/v1/sql", headers=own, json={"query": "SELECT 1"})) == REBOUND
    assert kind_of(opened.api.delete("/v1/devices/truck", headers=own)) == REBOUND


def test_the_answer_names_the_setting(opened: Open) -> None:
    answer = opened.api.get("/v1/latest", headers={"Host": "box.example.com"})
    assert "'box.example.com'" in answer.json()["detail"]
    assert "http.allowed_hosts" in answer.json()["detail"]


@pytest.mark.parametrize(
    "name", [HOST, "127.9.9.9:81", "localhost", "LOCALHOST.:1", "a.localhost", "[::1]:8000", "10.1.2.3", ""]
)
def test_own_names_and_addresses_are_answered(opened: Open, name: str) -> None:
    for http in (opened.api, opened.collector):
        assert http.get("/healthz", headers={"Host": name}).status_code == 200
        assert http.post("/v1/records", json={"device_id": "own"}, headers={"Host": name}).status_code == 202
    assert opened.api.get("/v1/devices/truck/latest", headers={"Host": name}).status_code == 200


# Pages of other sites, which need no trick with names -------------------------------------------------------


@pytest.mark.parametrize("headers", OF_OTHERS.values(), ids=OF_OTHERS)
def test_a_foreign_page_posts_nothing(opened: Open, headers: dict[str, str]) -> None:
    for kind in ("text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "application/json"):
        typed = {**headers, "Content-Type": kind}
        for http in (opened.api, opened.collector):
            for path, body in (
                ("/v1/records", b'{"device_id":"evil"}'),
                ("/osmand", b"id=evil&lat=1&lon=2"),
                ("/write", b"m,device_id=evil v=1"),
            ):
                assert kind_of(http.post(path, content=body, headers=typed)) == FOREIGN
        assert kind_of(opened.osmand.post("/", content=b"id=evil&lat=1&lon=2", headers=typed)) == FOREIGN
        for path in ("/tracking/data/", "/v1/sql"):
            assert kind_of(opened.api.post(path, content=b'{"device_id":"evil"}', headers=typed)) == FOREIGN


@pytest.mark.parametrize("path", STORING_GETS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [IMAGE, LINK, FRAME, CORS, TYPED, USER], ids=lambda one: one.get("Sec-Fetch-Dest"))
def test_nothing_is_stored_by_what_a_page_loads(opened: Open, path: str, method: str, headers: dict[str, str]) -> None:
    for http in opened.all:
        assert http.request(method, path, headers=headers).status_code >= 300


def test_a_foreign_page_reads_and_deletes_nothing(opened: Open) -> None:
    for headers in (CORS, FETCH, IMAGE, FRAME, EVENTS, OTHER_PORT, SANDBOXED, OLD_BROWSER):
        for path in (
            "/v1/devices/truck/latest",
            "/v1/records",
            "/v1/live",
            "/v1/export",
            "/tracking/data/list/",
            "/status",
        ):
            assert kind_of(opened.api.get(path, headers=headers)) == FOREIGN
    assert kind_of(opened.api.get("/v1/export", headers=LINK)) == FOREIGN
    assert kind_of(opened.api.delete("/v1/devices/truck", headers=CORS)) == FOREIGN
    asked = {"Access-Control-Request-Method": "DELETE", **CORS}
    for http in opened.all:
        answer = http.options("/v1/records", headers=asked)
        assert kind_of(answer) == FOREIGN
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_link_of_another_site_opens_pages(opened: Open) -> None:
    for path in ("/", "/status", "/docs", "/redoc", "/static/page/page.css", "/tracking/swagger/"):
        assert opened.api.get(path, headers={**LINK, "Accept": "text/html"}).status_code == 200
        assert opened.api.get(path, headers={**FRAME, "Accept": "text/html"}).status_code == 403


def test_an_oidc_provider_leads_back(opened: Open) -> None:
    for path in ("/login", "/login/oidc", "/login/callback?code=a&state=b"):
        answer = opened.api.get(path, headers={**LINK, "Accept": "application/json"})
        assert "foreign-page" not in answer.text


def test_own_pages_and_programs_go_on(opened: Open) -> None:
    own = {**USER, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    assert opened.api.get("/v1/devices/truck/latest", headers=own).status_code == 200
    posted = {**own, "Origin": f"http://{HOST}:{opened.box.api_port}"}
    assert opened.api.post("/v1/sql", json={"query": "SELECT 1"}, headers=posted).status_code == 200
    del posted["Sec-Fetch-Site"]
    assert opened.api.post("/v1/sql", json={"query": "SELECT 1"}, headers=posted).status_code == 200
    assert opened.api.get("/v1/latest", headers=TYPED).status_code == 200
    for http in (opened.api, opened.collector):
        assert http.get("/osmand?id=own&lat=1&lon=2", headers={"User-Agent": "OsmAnd"}).status_code == 200
    android = {
        "User-Agent": "Dalvik/2.1.0 (Linux; U; Android 15)",
        "Accept": "text/html, image/gif, image/jpeg, *; q=.2",
    }
    assert opened.osmand.get("/?id=own&lat=1&lon=2", headers=android).status_code == 200


# HTTP to a port that speaks another protocol ----------------------------------------------------------------


@pytest.mark.parametrize("head", ["POST / HTTP/1.1", "OPTIONS /a HTTP/1.1", "GET / HTTP/1.1"])
def test_http_to_the_port_of_tcp_stores_nothing(opened: Open, head: str) -> None:
    lines = [
        head,
        f"Host: {HOST}:{opened.box.tcp_port}",
        *(f"{name}: {value}" for name, value in FETCH.items()),
        "",
        "",
    ]
    body = b'\n{"device_id":"evil","latitude":1,"longitude":2}\n' * 3
    with socket.create_connection((HOST, opened.box.tcp_port), PATIENCE_S) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        with connection.makefile("rb") as answers:
            [answer] = answers.read().splitlines()
    assert "HTTP" in json.loads(answer)["error"]


# Host, once -------------------------------------------------------------------------------------------------


def raw(port: int, *lines: str) -> tuple[int, bytes]:
    with socket.create_connection((HOST, port), PATIENCE_S) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        with connection.makefile("rb") as answers:
            answer = answers.read()
    return int(answer.split()[1]), answer


@pytest.mark.parametrize(
    "hosts", [(), ("Host: localhost", "Host: localhost"), ("Host: localhost", "host: evil.example.com")]
)
def test_a_request_has_one_host(opened: Open, hosts: tuple[str, ...]) -> None:
    record = '{"device_id":"evil"}'
    for http in opened.all:
        port = http.base_url.port or 0
        for start in ("GET /v1/devices/truck/latest", "GET /healthz", "GET /nothing"):
            status, answer = raw(port, f"{start} HTTP/1.1", *hosts)
            assert (status, b"invalid-request" in answer) == (400, True)
        head = ("POST /v1/records HTTP/1.1", *hosts, "Content-Type: application/json", f"Content-Length: {len(record)}")
        assert raw(port, *head, "", record)[0] == 400


def test_simple_devices_that_speak_http_1_0_need_none(opened: Open) -> None:
    record = '{"device_id":"own"}'
    head = ("POST /v1/records HTTP/1.0", "Content-Type: application/json", f"Content-Length: {len(record)}")
    assert raw(opened.box.http_port, *head, "", record)[0] == 202
    assert raw(opened.box.api_port, "GET /v1/devices/truck/latest HTTP/1.0")[0] == 200
    assert raw(opened.box.api_port, "GET /v1/records HTTP/1.0")[0] == 200
    assert raw(opened.box.http_port, "GET /healthz HTTP/1.0", "Host: evil.example.com")[0] == 421
    assert raw(opened.box.http_port, "GET /healthz HTTP/1.0", "Host: a", "Host: a")[0] == 400


# What answers say to browsers -------------------------------------------------------------------------------


def test_no_other_site_may_embed_an_answer(opened: Open) -> None:
    for http in opened.all:
        for path in ("/healthz", "/v1/devices/truck/latest", "/v1/latest", "/", "/static/page/page.css", "/nothing"):
            answer = http.get(path, headers={"Accept": "text/html"})
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["x-frame-options"] == "DENY"
    for path in ("/", "/status", "/docs", "/redoc", "/nothing", "/tracking/swagger/"):
        answer = opened.api.get(path, headers={"Accept": "text/html"})
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


# A real browser ---------------------------------------------------------------------------------------------

ATTACKS = """<!doctype html><title>evil</title><body><iframe name="sink"></iframe>
<form method="post" enctype="text/plain" target="sink" action="http://%(collector)s/v1/records">
<input name='{"device_id":"evil","x":"' value='"}'></form><script>
const record = '{"device_id":"evil","latitude":1,"longitude":2}';
const get = '/osmand?id=evil&lat=1&lon=2';
const asked = [];
for (const host of ['%(api)s', '%(collector)s']) {
  for (const type of ['text/plain', 'application/json'])
    for (const mode of ['no-cors', 'cors']) {
      const how = {method: 'POST', mode, body: record, headers: {'Content-Type': type}};
      asked.push(fetch(`http://${host}/v1/records`, how));
    }
  asked.push(fetch(`http://${host}${get}`, {mode: 'no-cors'}));
  asked.push(fetch(`http://${host}/v1/latest`).then(answer => answer.text()).then(text => { window.stolen = text; }));
  asked.push(new Promise(done => {
    const image = new Image(); image.onload = image.onerror = done; image.src = `http://${host}${get}`;
  }));
  asked.push(new Promise(done => {
    const socket = new WebSocket(`ws://${host}${get}`); socket.onclose = done;
  }));
}
asked.push(fetch('http://%(tcp)s/', {method: 'POST', mode: 'no-cors', body: '\\n' + record + '\\n'}));
asked.push(new Promise(done => { frames.sink.onload = done; setTimeout(done, 2000); document.forms[0].submit(); }));
Promise.allSettled(asked).then(() => { window.isDone = true; });
</script>"""


@contextlib.contextmanager
def site(page: str) -> Iterator[str]:
    """A site of its own, with one page."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_a_page_of_another_site_in_a_real_browser(opened: Open) -> None:
    box = opened.box
    ports = {"api": box.api_port, "collector": box.http_port, "tcp": box.tcp_port}
    with running_browser() as browser, site(ATTACKS % {name: f"{HOST}:{port}" for name, port in ports.items()}) as url:
        browser.open(url)
        browser.wait_for("window.isDone === true")
        assert browser.run("window.stolen === undefined") is True
    assert opened.devices() == {"truck", "own"}
