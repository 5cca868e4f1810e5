"""Screenshots of the page for the documentation, from `whimbrel demo`: `scripts/screenshots [NAME…]` makes them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tests.api.page import DESK, DRAWN, DRAWN_S, PHONE, shows
from tests.box import PROJECT
from tests.browser import Browser, running_browser

STORY_S = 30.0
"""How long ships sail before the first picture."""

SETTLED_S = 3.0
SUEZ = "at=32.6,30.45,7.3&sort=speed"


class Picture(NamedTuple):
    """A screenshot's name, the fragment of its address and the window."""

    name: str
    fragment: str
    size: tuple[int, int] = DESK
    scheme: str = "light"


NOW = datetime.now(UTC)
DAYS = f"start={NOW - timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}&end={NOW + timedelta(minutes=10):%Y-%m-%dT%H:%M:%SZ}"
SHIPS = "devices=ever-given&devices=ship-171&devices=ship-194"

PICTURES = (
    Picture("page-fleet", f"{SUEZ}&device=ever-given"),
    Picture("page-fleet-dark", SUEZ, scheme="dark"),
    Picture("page-phone", SUEZ, PHONE),
    Picture("page-history", f"tab=history&at=32.45,30.0,7.6&{SHIPS}&{DAYS}"),
    Picture("page-box", "tab=box"),
)


def take(browser: Browser, address: str, picture: Picture) -> None:
    """Take one picture."""
    browser.look_at(*picture.size, picture.scheme)
    browser.open("about:blank")
    browser.open(f"{address}#{picture.fragment}")
    browser.wait_for(shows("#link-state", "Live"), DRAWN_S)
    browser.wait_for(DRAWN, DRAWN_S)
    time.sleep(SETTLED_S)
    browser.wait_for("[...document.querySelectorAll('#notice')].every(one => one.hidden)")
    assert browser.complaints() == []
    browser.screenshot(PROJECT / "docs" / "images" / f"{picture.name}.png")


@contextmanager
def telling_box() -> Iterator[str]:
    """A demo box; yields the address of its page."""
    command = [sys.executable, "-m", "cli.main", "demo"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                sys.stderr.write(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    yield found[0]
                    return
            raise AssertionError("the box names no address")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def main(names: list[str]) -> None:
    """Take all pictures, or those named."""
    with telling_box() as address, running_browser() as browser:
        time.sleep(STORY_S)
        for picture in PICTURES:
            if not names or picture.name in names:
                take(browser, address, picture)


if __name__ == "__main__":
    main(sys.argv[1:])
