"""`/`: the page. A real browser draws it from a real box; nothing of it comes from another host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import Box
from tests.browser import Browser, running_browser

PHONE, DESK = (390, 844), (1280, 800)


def test_the_page_names_only_what_the_box_has(box: Box) -> None:
    answer = box.http.get("/", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert not re.search(r"<script>|<style|style=|//", answer.text.replace("<!DOCTYPE", ""))
    for address in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        assert box.http.get(address).status_code == 200, address
    for name, value in (
        ("cross-origin-opener-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
    ):
        assert answer.headers[name] == value
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_programs_hear_what_they_heard_before_there_was_a_page(box: Box) -> None:
    answer = box.http.get("/", headers={"Accept": "application/json"})
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:whimbrel:problem:not-found"
    assert box.http.post("/").status_code == 405


def test_modules_are_asked_for_anew_after_an_upgrade(box: Box) -> None:
    answer = box.http.get("/static/page/main.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "no-cache"
    again = box.http.get("/static/page/main.js", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this module; each opens a page of its own."""
    with running_browser() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_it_is_drawn_without_another_host(
    box: Box, browser: Browser, size: tuple[int, int], scheme: str, tmp_path: Path
) -> None:
    browser.look_at(*size, scheme)
    browser.open(f"http://127.0.0.1:{box.port}/")
    browser.wait_for(DRAWN)
    browser.wait_for(shows_text("#link-state", "Live"))
    assert browser.hosts() == {f"127.0.0.1:{box.port}"}
    assert browser.complaints() == []
    browser.screenshot(tmp_path / "page.png")


DRAWN = "document.querySelector('#map')?.getAttribute('aria-busy') === 'false'"
"""Whether the base map is drawn."""


def shows_text(selector: str, text: str) -> str:
    """Whether an element's text is this."""
    return f"document.querySelector({json.dumps(selector)})?.textContent === {json.dumps(text)}"
