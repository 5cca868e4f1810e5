"""`/docs` and `/redoc` show every operation of the document, without another host."""

from __future__ import annotations

import json
import re

import pytest

from tests.api.conftest import Box
from tests.browser import running_browser

SETTLED_MS = 1_000


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/redoc", "/redoc/"])
def test_pages_load_only_what_the_box_has(box: Box, path: str) -> None:
    answer = box.http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert not re.search(r"<script>|<style|//", answer.text.replace("<!DOCTYPE", ""))
    assert re.findall(r'data-document="(.+?)"', answer.text) == ["/openapi.json"]
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for address in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        assert box.http.get(address).status_code == 200, address


@pytest.mark.slow
@pytest.mark.parametrize(("path", "each"), [("/docs", ".opblock"), ("/redoc", '[data-section-id*="operation/"]')])
def test_a_browser_shows_every_operation(box: Box, path: str, each: str) -> None:
    operations = [
        (name, one["summary"])
        for name, methods in box.http.get("/openapi.json").json()["paths"].items()
        for one in methods.values()
    ]
    with running_browser() as browser:
        browser.open(f"http://127.0.0.1:{box.port}{path}")
        browser.wait_for(f"document.querySelectorAll({json.dumps(each)}).length >= {len(operations)}")
        shown = browser.text().replace("\u200b", "")
        for name, summary in operations:
            assert (name if path == "/docs" else summary) in shown
        browser.run(f"new Promise(done => setTimeout(done, {SETTLED_MS}))")
        assert browser.hosts() == {f"127.0.0.1:{box.port}"}
        assert browser.complaints() == []
