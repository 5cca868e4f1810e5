"""The page of a box with users: the login page, who is signed in, and signing out."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from telemetry.access import user_store
from telemetry.access.passwords import SALT_BYTES, hash_password
from telemetry.access.users import make_user
from tests.api import conftest as api_conftest
from tests.api.conftest import Box, box_on
from tests.api.page import DESK, NAMES, PHONE, faults, shows, tell, text_of
from tests.box import free_ports
from tests.browser import Browser, running_browser
from tests.conftest import RedisServer
from tests.oidc_provider import CLIENT, SECRET, OidcProvider

pytestmark = pytest.mark.slow

PASSWORD = "a horse, a battery and a staple"
AT_LOGIN = "location.pathname === '/login' && document.querySelector('#password') !== null"
EXPECTED = ("Failed to load resource: the server responded with a status of", "Autofocus processing was blocked")
"""Complaints of the browser: 401 until somebody signs in, and 503 of `/readyz`, since this box saves nothing; a test
that writes into a form before it is shown."""


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("people"), auth__required="true") as found:
        tell(found, device_id="van-1", latitude=53.41, longitude=-2.98, speed=48)
        tell(found, device_id="bus-1", latitude=53.42, longitude=-2.97, speed=4)
        password = hash_password(PASSWORD, secrets.token_bytes(SALT_BYTES))
        for name, prefix in (("ada@example.com", ""), ("vans", "van-")):
            user = make_user(name, "viewer", int(time.time()), (), prefix)
            user_store.add_user(found.client, msgspec.structs.replace(user, password=password))
        time.sleep(1.5)
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture
def browser(box: Box, chromium: Browser) -> Browser:
    """The login page, to which the page has led; each test has a tab and no cookies of others."""
    chromium.change_tab()
    chromium.look_at(*DESK)
    chromium.forget_cookies()
    chromium.open(f"http://127.0.0.1:{box.port}/#tab=box")
    chromium.wait_for(AT_LOGIN)
    return chromium


def sign_in(browser: Browser, name: str, password: str = PASSWORD) -> None:
    """Fill in the form."""
    for field, text in (("name", name), ("password", password)):
        browser.run(f"document.querySelector('#{field}').value = ''; document.querySelector('#{field}').focus()")
        browser.write(text)
    browser.press("Enter")


def test_signing_in_leads_back_and_signing_out_to_the_login_page(box: Box, browser: Browser) -> None:
    sign_in(browser, "ada@example.com", "not the password")
    browser.wait_for(f"{text_of('.wrong')}?.includes('Wrong name or password')")
    assert browser.run("document.querySelector('#name').value") == "ada@example.com"
    assert browser.run("document.querySelector('#password').value") == ""
    sign_in(browser, "ada@example.com")
    browser.wait_for(shows("#link-state", "Live"))
    browser.wait_for(f"{shows('#who-name', 'ada@example.com')} && !document.querySelector('#who').hidden")
    assert browser.run("location.hash") == "#tab=box", "what was asked for is shown"
    assert browser.run("sessionStorage.length + localStorage.length + document.cookie.length") == 0
    browser.wait_for(f"{text_of('#panel-box')}.length > 100")
    browser.run("document.querySelector('#tab-fleet').click()")
    browser.wait_for(f"{NAMES}.join() === 'bus-1,van-1'")
    assert [one for one in browser.complaints() if not one.startswith(EXPECTED)] == []
    browser.click("#sign-out")
    browser.wait_for(AT_LOGIN)
    assert user_store.people(box.client).sessions == {}


def test_a_bound_user_sees_the_own_devices(browser: Browser) -> None:
    sign_in(browser, "vans")
    browser.wait_for(f"{NAMES}.join() === 'van-1'")


def test_a_session_that_ends_leads_to_the_login_page(box: Box, browser: Browser) -> None:
    sign_in(browser, "ada@example.com")
    browser.wait_for(shows("#link-state", "Live"))
    user_store.end_sessions(box.client, user_store.people(box.client).sessions)
    browser.wait_for(AT_LOGIN)
    assert browser.run("document.querySelector('[name=next]').value").startswith("/#")


def test_a_key_can_be_used_instead(box: Box, browser: Browser) -> None:
    browser.click(".soft a")
    browser.wait_for("document.querySelector('#key')?.open === true")
    browser.run("document.querySelector('#key-text').focus()")
    browser.write(box.http.headers["Authorization"].removeprefix("Bearer "))
    browser.press("Enter")
    browser.wait_for(shows("#link-state", "Live"))
    assert browser.run("document.querySelector('#who').hidden")
    assert browser.run("location.search") == ""


@pytest.mark.parametrize(("width_px", "height_px"), [DESK, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_can_use_it(browser: Browser, width_px: int, height_px: int, scheme: str) -> None:
    browser.look_at(width_px, height_px, scheme)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.wait_for("document.activeElement.id === 'name'")
    assert faults(browser) == []
    sign_in(browser, "ada@example.com")
    browser.wait_for(f"{shows('#link-state', 'Live')} && !document.querySelector('#who').hidden")
    assert browser.run("document.querySelector('#sign-out').getBoundingClientRect().right <= innerWidth")


def test_signing_in_at_a_provider_leads_back(
    own_redis: RedisServer, tmp_path: Path, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    [port] = free_ports(1)
    monkeypatch.setattr(api_conftest, "free_ports", lambda _: [port])
    with OidcProvider() as provider:
        provider.reset(roles=["staff"])
        more = {
            "auth__public_url": f"http://127.0.0.1:{port}",
            "oidc__issuer": provider.issuer,
            "oidc__client_id": CLIENT,
            "oidc__client_secret": SECRET,
            "oidc__roles": '["staff=viewer"]',
        }
        provider.redirect_url = f"{more['auth__public_url']}/login/callback"
        with box_on(own_redis.url, tmp_path, auth__required="true", **more) as box:
            tell(box, device_id="van-1", latitude=53.41, longitude=-2.98, speed=48)
            chromium.change_tab()
            chromium.forget_cookies()
            chromium.open(f"http://127.0.0.1:{port}/#search=van")
            chromium.click(".provider")
            chromium.wait_for(shows("#link-state", "Live"))
            chromium.wait_for(shows("#who-name", "ada@example.com"))
            assert chromium.run("location.hash").startswith("#search=van")
            chromium.wait_for(f"{NAMES}.join() === 'van-1'")
            assert [one for one in chromium.complaints() if not one.startswith(EXPECTED)] == []
            chromium.click("#sign-out")
            chromium.wait_for(AT_LOGIN)
