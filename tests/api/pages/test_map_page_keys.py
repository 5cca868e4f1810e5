"""The page of a box that requires keys: it asks for one, keeps it in its tab, and shows what that one may see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.api.conftest import Box, box_on
from tests.api.page import DESK, NAMES, shows, tell, text_of
from tests.browser import Browser, running_browser
from tests.conftest import RedisServer

pytestmark = pytest.mark.slow

ASKS = "document.querySelector('#key')?.open === true"
GONE = "document.querySelector('#key')?.open === false"


class Keys(NamedTuple):
    """A guarded box with a van and a bus, and its keys."""

    box: Box
    whole: str
    vans: str
    ingest: str


@pytest.fixture(scope="module")
def keys(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("guarded"), auth__required="true") as box:
        tell(box, device_id="van-1", latitude=53.41, longitude=-2.98, speed=48)
        tell(box, device_id="bus-1", latitude=53.42, longitude=-2.97, speed=4)
        yield Keys(box, box.make_key("read"), box.make_key("read", prefix="van-"), box.make_key("ingest"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of this module."""
    with running_browser() as found:
        yield found


@pytest.fixture
def browser(keys: Keys, chromium: Browser) -> Browser:
    """A page that asks for a key; each has a tab of its own."""
    chromium.change_tab()
    chromium.look_at(*DESK)
    chromium.open(f"http://127.0.0.1:{keys.box.port}/#tab=box")
    chromium.wait_for(ASKS)
    return chromium


def give(browser: Browser, key: str) -> None:
    """Write a key where the dialog asks for it."""
    browser.run("document.querySelector('#key-text').focus()")
    browser.write(key)
    browser.press("Enter")


def test_without_a_key_nothing_is_seen_and_the_dialog_stays(browser: Browser) -> None:
    browser.press("Escape")
    browser.wait_for(ASKS)  # the dialog is closed, and a moment later opened again
    assert "van-1" not in browser.text()
    assert browser.run("document.querySelectorAll('#devices .row').length") == 0


def test_a_wrong_key_is_asked_for_again(keys: Keys, browser: Browser) -> None:
    give(browser, "wk_nobody")
    browser.wait_for(f"{ASKS} && {text_of('#key-why')}.includes('unknown key')")
    give(browser, keys.whole)
    browser.wait_for(shows("#link-state", "Live"))
    browser.run("document.querySelector('#tab-fleet').click()")
    browser.wait_for(f"{NAMES}.join() === 'bus-1,van-1'")


def test_a_key_is_kept_in_the_tab_alone_and_forgotten_when_told(keys: Keys, browser: Browser) -> None:
    give(browser, keys.whole)
    browser.wait_for(shows("#link-state", "Live"))
    browser.wait_for("!document.querySelector('#tab-box').hidden")
    assert browser.run("Object.values(sessionStorage)") == [keys.whole]
    assert browser.run("localStorage.length + document.cookie.length") == 0
    assert keys.whole not in browser.run("location.href + document.documentElement.outerHTML")
    assert all(keys.whole not in url for url in browser.asked())
    browser.reload()
    browser.wait_for(shows("#link-state", "Live"))
    browser.click("#forget-key")
    browser.wait_for(ASKS)
    assert browser.run("sessionStorage.length") == 0


def test_a_bound_key_sees_its_devices_and_no_box(keys: Keys, browser: Browser) -> None:
    give(browser, keys.vans)
    browser.wait_for(f"{NAMES}.join() === 'van-1'")
    browser.wait_for(f"{text_of('#notice')}.includes('applies to the whole box')")
    browser.wait_for("document.querySelector('#tab-box').hidden && document.body.dataset.tab === 'fleet'")
    assert "bus-1" not in browser.text()


def test_a_key_that_may_not_read_is_asked_for_again(keys: Keys, browser: Browser) -> None:
    give(browser, keys.ingest)
    browser.wait_for(f"{ASKS} && {text_of('#key-why')}.length > 20")
    give(browser, keys.vans)
    browser.wait_for(GONE)
    browser.wait_for(shows("#link-state", "Live"))
