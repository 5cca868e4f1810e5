"""What tests do with the page in a browser: open it, look at its parts, send what it is to show."""

from __future__ import annotations

import json

from tests.api.conftest import Box
from tests.browser import Browser

PHONE, DESK = (390, 844), (1280, 800)

SETTLED_MS = 500
DRAWN_S = 60.0
"""Without a graphics card, on two cores that others use, a map takes seconds."""

BUSY = 5
"""How many times slower a machine may be on which other tests run beside this one."""

NAMES = (
    "[...document.querySelectorAll('#devices .row')].sort((a, b) => a.dataset.row - b.dataset.row)"
    ".map(row => row.querySelector('bdi').textContent)"
)
"""The names in the list, from top to bottom."""

DRAWN = "document.querySelector('#map')?.getAttribute('aria-busy') === 'false'"
"""Whether the base map is drawn."""


def tell(box: Box, **record: object) -> None:
    """Send one record of now, as a device does."""
    answer = box.http.post("/v1/records", json=record)
    assert answer.status_code == 202, answer.text


def show(box: Box, browser: Browser, fragment: str) -> None:
    """Open the page anew, and wait until it is live."""
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{box.port}/{fragment}")
    browser.wait_for(shows("#link-state", "Live"))


def show_device(browser: Browser, name: str) -> None:
    """Choose a device in the list."""
    browser.run(
        f"[...document.querySelectorAll('#devices bdi')].find(one => one.textContent === {json.dumps(name)}).click()"
    )
    browser.wait_for(shows("#device h2", name))


def text_of(selector: str) -> str:
    """An element's text."""
    return f"document.querySelector({json.dumps(selector)})?.textContent"


def shows(selector: str, text: str) -> str:
    """Whether an element's text is this."""
    return f"{text_of(selector)} === {json.dumps(text)}"
