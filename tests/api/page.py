"""What tests do with the page in a browser: open it, look at its parts, send what it is to show."""

from __future__ import annotations

import json

from tests.api.conftest import Box
from tests.box import PROJECT
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


def faults(browser: Browser) -> list[str]:
    """What axe-core says is a serious or critical hindrance for people on the page as it is."""
    browser.run(f"{(PROJECT / 'tests/data/axe-core/axe.min.js').read_text(encoding='utf-8')}; undefined")
    found = browser.run("axe.run(document).then(found => found.violations)")
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in grave for node in one["nodes"]]


def module(name: str) -> str:
    """In JavaScript, the promise of a module that the page has loaded."""
    return f"import(new URL('{name}', document.querySelector('script[type=module]').src))"
