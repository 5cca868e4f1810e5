"""Static files: addresses of a version, caching and compression."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import httpx
import pytest
from backports import zstd
from starlette.applications import Starlette
from starlette.routing import Mount

from api.responses import static_files
from api.responses.html import STATIC
from api.responses.static_files import StaticFiles
from tests.api.conftest import Box
from tests.box import PROJECT

FOLDER = PROJECT / "api" / "static"
CODED = {"gzip": gzip.decompress, "zstd": zstd.decompress}


class Client:
    """Asks the application, one request after the other."""

    def __init__(self, files: StaticFiles) -> None:
        self._app = Starlette(routes=[Mount("/static", files)])

    def ask(self, method: str, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
        """The response, and its body as it was sent."""
        return asyncio.run(self._ask(method, path, {name.replace("_", "-"): value for name, value in headers.items()}))

    async def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        transport = httpx.ASGITransport(self._app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://box") as client,
            client.stream(method, path, headers={"Accept-Encoding": "identity", **headers}) as answer,
        ):
            return answer, b"".join([piece async for piece in answer.aiter_raw()])


def client_of(folder: Path) -> tuple[Client, str]:
    files = StaticFiles(folder)
    return Client(files), files.version


def raw(client: Client, path: str, coding: str) -> tuple[httpx.Headers, bytes]:
    answer, body = client.ask("GET", path, Accept_Encoding=coding)
    assert answer.status_code == 200
    return answer.headers, body


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "main.js").write_text("export const one = 1;\n" * 500)
    (tmp_path / "small.css").write_text("body { margin: 0 }")
    return tmp_path


@pytest.mark.parametrize("coding", CODED)
def test_files_of_a_version_are_compressed_and_kept_for_ever(folder: Path, coding: str) -> None:
    client, version = client_of(folder)
    for _ in range(2):
        headers, body = raw(client, f"/static/{version}/page/main.js", coding)
        assert headers["cache-control"] == "public, max-age=31536000, immutable"
        assert (headers["content-encoding"], headers["vary"]) == (coding, "Accept-Encoding")
        assert headers["content-type"] == "text/javascript; charset=utf-8"
        assert int(headers["content-length"]) == len(body) < 500
        assert CODED[coding](body) == (folder / "page" / "main.js").read_bytes()


def test_all_are_compressed_before_anybody_asks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StaticFiles(folder)
    asyncio.run(files.prepare(0))

    def read(_file: object) -> bytes:
        raise AssertionError("a request waits for a file")

    monkeypatch.setattr(static_files, "_read", read)
    for coding, opened in CODED.items():
        _, body = raw(Client(files), "/static/page/main.js", coding)
        assert opened(body) == (folder / "page" / "main.js").read_bytes()


def test_a_file_that_changed_since_the_start_is_not_kept_for_ever(folder: Path) -> None:
    client, version = client_of(folder)
    (folder / "page" / "main.js").write_text("export const two = 2;\n" * 500)
    (folder / "small.css").unlink()
    for coding in ("identity", "gzip"):
        headers, body = raw(client, f"/static/{version}/page/main.js", coding)
        assert body == (folder / "page" / "main.js").read_bytes()
        assert (headers["cache-control"], headers.get("etag")) == ("no-cache", None)
    assert client.ask("GET", f"/static/{version}/small.css")[0].status_code == 404


def test_preparing_goes_on_after_a_file_that_changed(folder: Path) -> None:
    (folder / "a.js").write_text("export const one = 1;\n" * 500)
    files = StaticFiles(folder)
    (folder / "a.js").unlink()
    asyncio.run(files.prepare(0))
    assert files._compressed["page/main.js", "zstd"].result()


def test_a_short_file_is_compressed_for_a_client_that_refuses_it_otherwise(folder: Path) -> None:
    client, version = client_of(folder)
    headers, body = raw(client, f"/static/{version}/small.css", "gzip, *;q=0")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == (folder / "small.css").read_bytes()


def test_a_range_gets_the_whole_file(folder: Path) -> None:
    client, version = client_of(folder)
    for coding in ("identity", "gzip"):
        whole = raw(client, f"/static/{version}/page/main.js", coding)[1]
        answer, body = client.ask("GET", f"/static/{version}/page/main.js", Accept_Encoding=coding, Range="bytes=0-9")
        assert (answer.status_code, body) == (200, whole)
        assert "accept-ranges" not in answer.headers


def test_head_has_the_headers_of_get(folder: Path) -> None:
    client, version = client_of(folder)
    for coding in ("identity", "gzip", "zstd"):
        path = f"/static/{version}/page/main.js"
        head, _ = client.ask("HEAD", path, Accept_Encoding=coding)
        assert head.headers == raw(client, path, coding)[0]
        assert head.status_code == 200


def test_a_file_as_it_is_for_a_client_that_asks_for_nothing(folder: Path) -> None:
    client, version = client_of(folder)
    headers, body = raw(client, f"/static/{version}/page/main.js", "identity")
    assert body == (folder / "page" / "main.js").read_bytes()
    assert "content-encoding" not in headers
    assert "content-encoding" not in raw(client, f"/static/{version}/small.css", "gzip")[0]


def test_tags_differ_by_coding_and_are_compared(folder: Path) -> None:
    client, version = client_of(folder)
    path = f"/static/{version}/page/main.js"
    tags = {coding: raw(client, path, coding)[0]["etag"] for coding in ("identity", "gzip", "zstd")}
    assert len(set(tags.values())) == 3
    for coding, tag in tags.items():
        for known in (tag, f'"other", W/{tag}'):
            again, body = client.ask("GET", path, Accept_Encoding=coding, If_None_Match=known)
            assert (again.status_code, body, again.headers["etag"]) == (304, b"", tag)
    assert client.ask("GET", path, Accept_Encoding="gzip", If_None_Match='"other"')[0].status_code == 200


def test_other_addresses_of_a_file_are_not_kept_for_ever(folder: Path) -> None:
    client, _ = client_of(folder)
    for path in ("/static/page/main.js", "/static/0123456789abcdef/page/main.js"):
        assert client.ask("GET", path)[0].headers["cache-control"] == "no-cache", path


def test_the_version_changes_with_any_file_and_a_tag_with_its_own(folder: Path) -> None:
    paths = "/static/page/main.js", "/static/small.css"
    client, before = client_of(folder)
    first = [raw(client, path, "gzip")[0]["etag"] for path in paths]
    assert client_of(folder)[1] == before
    (folder / "small.css").write_text("body { margin: 1 }")
    changed, after = client_of(folder)
    then = [raw(changed, path, "gzip")[0]["etag"] for path in paths]
    assert after != before
    assert (first[0] == then[0], first[1] == then[1]) == (True, False)


def test_what_is_no_file_is_not_found(folder: Path) -> None:
    client, version = client_of(folder)
    for path in ("", "/", "/page", "/page/", "/nothing.js", "/%2e%2e/x", "/page/%2e%2e/small.css", f"/{version}"):
        assert client.ask("GET", f"/static/{version}{path}")[0].status_code == 404, path
    refused, _ = client.ask("POST", f"/static/{version}/small.css")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert client.ask("HEAD", f"/static/{version}/small.css")[0].headers["content-length"] == "18"


def test_modules_name_each_other_by_relative_addresses() -> None:
    for path in (*(FOLDER / "page").glob("*.js"), *(FOLDER / "page").glob("*.css")):
        assert "/static/" not in path.read_text(encoding="utf-8"), path.name


def test_pages_name_the_version_and_are_asked_for_again(box: Box) -> None:
    page = box.http.get("/", headers={"Accept": "text/html"})
    addresses = re.findall(r'(?:src|href)="(/static[^"]+)"', page.text)
    assert addresses
    for address in addresses:
        assert address.startswith(f"/static/{STATIC.version}/")
        assert "immutable" in box.http.get(address).headers["cache-control"]
    again = box.http.get("/", headers={"Accept": "text/html", "If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == page.headers["content-security-policy"]
