"""`/`: the page. A real browser draws it from a real box; nothing of it comes from another host."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.api.conftest import Box
from tests.api.page import (
    BUSY,
    DESK,
    DRAWN,
    DRAWN_S,
    NAMES,
    PHONE,
    SETTLED_MS,
    faults,
    show,
    show_device,
    shows,
    tell,
    text_of,
)
from tests.browser import Browser, running_browser


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
@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_it_is_drawn_without_another_host(box: Box, browser: Browser, size: tuple[int, int], scheme: str) -> None:
    browser.look_at(*size, scheme)
    show(box, browser, "")
    browser.wait_for(DRAWN, DRAWN_S)
    assert browser.hosts() == {f"127.0.0.1:{box.port}"}
    assert browser.complaints() == []


@pytest.fixture
def fleet(box: Box, browser: Browser) -> None:
    """A desk, to open on it a page with a fleet of three: so far apart that the map needn't unpack the fine coast."""
    browser.look_at(*DESK)
    tell(box, device_id="van-1", latitude=53.41, longitude=-2.98, speed=48, heading=90, fuel=61, door={"rear": "open"})
    tell(box, device_id="van-2", latitude=53.42, longitude=-2.9, speed=0)
    tell(box, device_id="tug-3", latitude=-33.85, longitude=151.2, speed=9)


@pytest.fixture
def page(box: Box, browser: Browser, fleet: None) -> Browser:
    """The page, open, with that fleet."""
    show(box, browser, "")
    return browser


@pytest.mark.slow
@pytest.mark.usefixtures("fleet")
def test_a_device_moves_within_two_seconds_of_its_post(box: Box, browser: Browser) -> None:
    show(box, browser, "#device=van-1")
    browser.wait_for(shows("#device h2", "van-1"))
    began_s = time.monotonic()
    tell(box, device_id="van-1", latitude=53.5, longitude=-2.8, speed=77, heading=180)
    browser.wait_for(shows("#device .figures div:nth-child(2) strong", "77 km/h"))
    assert time.monotonic() - began_s < 2 * BUSY
    browser.wait_for(f"{text_of('#device dl')}.includes('53.50000, -2.80000')")
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.usefixtures("fleet")
def test_a_page_that_nobody_sees_leaves_its_connection_to_others_and_goes_on_when_it_is_seen(
    box: Box, browser: Browser
) -> None:
    show(box, browser, "#device=van-2")
    browser.run("Object.defineProperty(document, 'hidden', {get: () => window.isUnseen, configurable: true})")
    browser.run(f"window.isUnseen = true; {LOOK}")
    browser.wait_for(shows("#link-state", "Paused"), DRAWN_S)
    tell(box, device_id="van-2", latitude=53.6, longitude=-2.7, speed=33)
    browser.run(f"window.isUnseen = false; {LOOK}")
    browser.wait_for(shows("#device .figures div:nth-child(2) strong", "33 km/h"))
    assert browser.complaints() == []


LOOK = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.mark.slow
def test_the_panel_shows_all_that_a_record_said(page: Browser) -> None:
    page.wait_for(f"{NAMES}.length === 3")
    show_device(page, "van-1")
    told = page.run(text_of("#device"))
    for text in (
        "moving",
        "48 km/h",
        "90° E",
        "53.41000, -2.98000",
        "json over http",
        "fuel",
        "61",
        "door.rear",
        "open",
    ):
        assert text in told


@pytest.mark.slow
def test_the_list_is_searched_narrowed_and_ordered_and_the_address_says_so(box: Box, page: Browser) -> None:
    page.wait_for(f"{NAMES}.join() === 'tug-3,van-1,van-2'")
    page.run("document.body.focus()")
    page.press("/")
    page.write("van")
    page.wait_for(f"{NAMES}.join() === 'van-1,van-2'")
    page.run("document.querySelector('.order select').value = 'speed'")
    page.run("document.querySelector('.order select').dispatchEvent(new Event('change'))")
    page.click(".chips button:nth-child(1)")
    page.wait_for(f"{NAMES}.join() === 'van-1'")
    page.wait_for("location.hash === '#search=van&only=moving&sort=speed'")
    page.click(".chips button:nth-child(1)")
    page.wait_for(f"{NAMES}.join() === 'van-1,van-2'")
    show(box, page, "#search=-&only=stopped")
    page.wait_for(f"{NAMES}.join() === 'van-2'")
    assert page.run("document.querySelector('#search').value") == "-"


@pytest.mark.slow
def test_the_keyboard_walks_the_list(page: Browser) -> None:
    page.wait_for(f"{NAMES}.length === 3")
    page.run("document.body.focus()")
    page.press("/")
    page.press("ArrowDown")
    page.press("ArrowDown")
    page.press("Enter")
    page.wait_for(shows("#device h2", "van-1"))
    assert page.run("document.activeElement.getAttribute('aria-activedescendant')") == "row-1"
    assert page.run("document.querySelector('#row-1').getAttribute('aria-selected')") == "true"
    page.press("End")
    page.press("Enter")
    page.wait_for(shows("#device h2", "van-2"))
    page.press("Escape")
    page.wait_for("document.querySelector('#device').hidden")
    page.run("history.back()")
    page.wait_for(shows("#device h2", "van-2"))


@pytest.mark.slow
@pytest.mark.usefixtures("fleet")
def test_a_link_shows_the_same(box: Box, browser: Browser) -> None:
    show(box, browser, "#at=-2.98,53.41,13&device=van-1")
    browser.wait_for(shows("#device h2", "van-1"))
    browser.run("document.querySelector('.maplibregl-ctrl-zoom-in').click()")
    browser.wait_for("location.hash.startsWith('#at=-2.98000%2C53.41000%2C14.00&device=van-1')")
    seen = browser.run("location.hash")
    browser.reload()
    browser.wait_for("document.querySelector('.row[aria-selected=true] bdi')?.textContent === 'van-1'")
    browser.wait_for(DRAWN, DRAWN_S)
    assert browser.run("location.hash") == seen
    # the device is in the middle of the map, where it is clicked
    browser.press("Escape")
    browser.wait_for("document.querySelector('#device').hidden")
    place = browser.run(
        "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
        "(document.querySelector('#map').getBoundingClientRect())"
    )
    browser.run(f"new Promise(done => setTimeout(done, {SETTLED_MS}))")
    browser.click_at(*place)
    browser.wait_for(shows("#device h2", "van-1"))


@pytest.mark.slow
@pytest.mark.usefixtures("fleet")
def test_a_device_that_is_deleted_leaves_the_page(box: Box, browser: Browser) -> None:
    tell(box, device_id="sold", latitude=1, longitude=2)
    show(box, browser, "#search=sold")
    browser.wait_for(f"{NAMES}.join() === 'sold'")
    assert box.http.delete("/v1/devices/sold").status_code == 202
    browser.wait_for(f"{NAMES}.length === 0")


@pytest.mark.slow
@pytest.mark.usefixtures("fleet")
def test_names_are_text_whatever_they_are(box: Box, browser: Browser) -> None:
    evil = "<img src=x onerror=alert(1)>"
    tell(box, device_id=evil, latitude=1, longitude=2, location=evil, **{evil: evil, "more": {evil: [evil]}})
    show(box, browser, f"#device={quote(evil)}&search={quote(evil)}")
    browser.wait_for(shows("#device h2", evil))
    browser.wait_for(f"{NAMES}.join() === {json.dumps(evil)}")
    assert browser.run("document.querySelectorAll('#device img, #panel-browser img, #notice img').length") == 0
    assert browser.run(text_of("#device")).count(evil) >= 5
    assert browser.hosts() == {f"127.0.0.1:{box.port}"}
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESK, PHONE])
@pytest.mark.usefixtures("fleet")
def test_nothing_of_it_hinders_people(box: Box, browser: Browser, size: tuple[int, int]) -> None:
    browser.look_at(*size)
    show(box, browser, "")
    browser.wait_for(f"{NAMES}.length >= 3")
    for scheme in ("light", "dark"):
        browser.look_at(*size, scheme)
        assert faults(browser) == [], scheme
    show_device(browser, "van-1")
    for scheme in ("dark", "light"):
        browser.look_at(*size, scheme)
        assert faults(browser) == [], scheme


@pytest.mark.slow
@pytest.mark.usefixtures("fleet")
def test_with_forced_colours_one_that_moves_is_told_from_one_that_stands(box: Box, browser: Browser) -> None:
    browser.look_at(*DESK, has_forced_colours=True)
    show(box, browser, "#device=van-1")
    browser.wait_for(f"{NAMES}.length >= 3")
    looks = {
        state: browser.run(
            "(({borderTopColor, borderTopLeftRadius, clipPath}) => [borderTopColor, borderTopLeftRadius, clipPath])"
            f"(getComputedStyle(document.querySelector('.chips .sign[data-state={state}]')))"
        )
        for state in ("moving", "stopped")
    }
    for moving, stopped in zip(looks["moving"], looks["stopped"], strict=True):  # by colour, and by form
        assert moving != stopped
    chosen, other = (
        browser.run(f"getComputedStyle(document.querySelector('.row[aria-selected={is_it}]')).backgroundColor")
        for is_it in ("true", "false")
    )
    assert chosen != other
    browser.look_at(*DESK)


@pytest.mark.slow
@pytest.mark.usefixtures("fleet")
def test_ten_thousand_devices_are_one_layer_and_a_few_rows(
    box: Box, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    show(box, browser, "#search=many-")
    for turn in range(2):
        records = [
            {
                "device_id": f"many-{n:05}",
                "latitude": 50 + n % 100 / 20,
                "longitude": n / 1_000 + turn / 100,
                "speed": 50,
            }
            for n in range(10_000)
        ]
        assert box.http.post("/v1/records", json=records).status_code == 202
    browser.wait_for(f"{text_of('.order [role=status]')}.startsWith('10,000 of')", DRAWN_S)
    browser.run(f"window.frames = {FRAMES}; undefined")
    for turn in range(2, 4):
        assert box.http.post("/v1/records", json=[{**one, "longitude": turn} for one in records]).status_code == 202
    spans_ms = sorted(browser.run("window.frames"))
    with capsys.disabled():
        half, most = spans_ms[len(spans_ms) // 2], spans_ms[-1]
        print(f"\n10,000 devices: {len(spans_ms)} frames, half within {half:.0f} ms, all within {most:.0f} ms")
    assert browser.run("document.querySelectorAll('*').length") < 1_000
    assert browser.run("document.querySelector('.space').style.height") == f"{10_000 * 54}px"
    browser.run("document.querySelector('#devices').focus()")
    browser.press("End")
    browser.press("Enter")
    browser.wait_for(shows("#device h2", "many-09999"))
    browser.wait_for(f"{text_of('#device dl')}.includes(', 3.00000')", DRAWN_S)
    assert browser.complaints() == []


FRAMES = """new Promise(done => {
  const at = [];
  const note = now => (at.push(now) && now - at[0] < 2000
    ? requestAnimationFrame(note) : done(at.slice(1).map((one, n) => one - at[n])));
  requestAnimationFrame(note);
})"""
"""The milliseconds between the frames of two seconds."""
