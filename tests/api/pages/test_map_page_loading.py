"""The page while it knows little: devices and map not loaded yet, a device that does not exist, a box that is away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import Box
from tests.api.page import DESK, DRAWN, DRAWN_S, NAMES, PHONE, module, show, shows, tell, text_of
from tests.browser import Browser, running_browser
from tests.client.proxy import Proxy

pytestmark = pytest.mark.slow

TOTAL = ".order [role=status]"
COUNTS = "[...document.querySelectorAll('.chips strong')].map(one => one.textContent).join()"
BANNER = "document.querySelector('#banner')"
MAP = f"const {{context: {{map: {{gl}}}}}} = await {module('main.js')};"
MAX_FIRST_BYTES = 2_200_000
CAIRO = "#at=31.2,29.5,8"

HOLD = """{
  const files = FILES, real = Worker;
  window.Worker = class extends real {
    postMessage(message, ...more) { if (!files.includes(message)) super.postMessage(message, ...more); }
  };
}"""
"""Holds map data back for ever."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        found.look_at(*DESK)
        yield found


def ask(browser: Browser, expression: str) -> Any:
    """What an expression of MapLibre's map, `gl`, comes to."""
    return browser.run(f"(async () => {{ {MAP} return {expression}; }})()")


def test_the_first_load_has_at_most_2_2_mb(box: Box, browser: Browser) -> None:
    with Proxy(box.port) as proxy:
        browser.open("about:blank")
        browser.open(f"{proxy.url}/")
        browser.wait_for(DRAWN, DRAWN_S)
        browser.open("about:blank")
    assert sum(proxy.received) <= MAX_FIRST_BYTES
    targets = {target for target in proxy.targets if target.startswith("/static/")}
    assert len(targets) > 30
    by_gzip = 0
    for target in targets:
        with box.http.stream("GET", target, headers={"Accept-Encoding": "gzip"}) as answer:
            by_gzip += len(b"".join(answer.iter_raw()))
    assert by_gzip <= MAX_FIRST_BYTES


def test_a_fleet_without_devices_is_said_to_be_empty(box: Box, browser: Browser) -> None:
    show(box, browser, "")
    browser.wait_for(shows(".empty", "No device has sent a record yet."))
    assert browser.run(text_of(TOTAL)) == "0 devices"
    assert browser.run(COUNTS) == "0,0,0,0"


@pytest.fixture
def fleet(box: Box) -> None:
    tell(box, device_id="van-1", latitude=29.5, longitude=31.2, speed=48)


@pytest.mark.usefixtures("fleet")
def test_devices_that_are_not_loaded_yet_are_not_said_to_be_none(box: Box, browser: Browser) -> None:
    browser.open("about:blank")
    browser.block("*/v1/live*")
    browser.open(f"http://127.0.0.1:{box.port}/")
    browser.wait_for(shows(TOTAL, "Loading…"))
    assert browser.run(text_of(".empty")) == "Loading devices…"
    assert browser.run(COUNTS) == ",".join("–" * 4)  # noqa: RUF001 - the page's dash
    browser.wait_for(f"!{BANNER}.hidden")
    assert browser.run(text_of("#banner")) == "The box does not answer. This page keeps trying."
    browser.block()
    browser.wait_for(f"{NAMES}.join() === 'van-1'")
    assert browser.run(f"{BANNER}.hidden")
    assert browser.run(text_of(TOTAL)) == "1 device"


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_device_that_the_box_does_not_know_is_said_to_be_unknown(
    box: Box, browser: Browser, size: tuple[int, int]
) -> None:
    browser.look_at(*size)
    show(box, browser, "#device=nosuch")
    browser.wait_for(f"{text_of('#device')}.includes('The box knows no device of this name')")
    assert browser.run(text_of("#device h2")) == "nosuch"
    assert not browser.run("document.querySelector('#device').hidden")
    # until it sends
    tell(box, device_id="nosuch", latitude=29.5, longitude=31.3, speed=5)
    browser.wait_for(shows("#device .figures div:nth-child(2) strong", "5 km/h"))
    assert not browser.run("document.querySelector('#device > .soft').offsetParent !== null")
    assert box.http.delete("/v1/devices/nosuch").status_code == 202
    browser.wait_for(f"{text_of('#device')}.includes('The box knows no device of this name')")
    browser.look_at(*DESK)


@pytest.mark.usefixtures("fleet")
def test_a_banner_says_that_the_box_is_away_until_it_is_back(box: Box, browser: Browser) -> None:
    show(box, browser, "")
    browser.wait_for(f"{NAMES}.join() === 'van-1'")
    assert browser.run(f"{BANNER}.hidden")
    program = box.stop_program("api")
    browser.wait_for(f"!{BANNER}.hidden")
    told = browser.run(text_of("#banner"))
    assert told.startswith("The box does not answer. What is shown is of ")
    assert browser.run(f"{NAMES}.join()") == "van-1"
    box.start_program(program)
    browser.wait_for(f"{BANNER}.hidden && {shows('#link-state', 'Live')}")


@pytest.mark.usefixtures("fleet")
def test_land_is_land_while_the_fine_coast_is_not_loaded(box: Box, browser: Browser) -> None:
    with browser.prepared(HOLD.replace("FILES", "['countries-10m.json']")):
        show(box, browser, CAIRO)
        browser.wait_for(f"(async () => {{ {MAP} return gl?.isSourceLoaded('countries'); }})()", DRAWN_S)
        land = "gl.queryRenderedFeatures(gl.project(gl.getCenter()), {layers: ['land-coarse', 'land-fine']}).length"
        browser.wait_for(f"(async () => {{ {MAP} return {land} > 0; }})()", DRAWN_S)


@pytest.fixture(scope="module")
def map_page(box: Box) -> Iterator[Browser]:
    """A page whose base map is drawn, in a browser of its own."""
    with running_browser() as found:
        found.look_at(*DESK)
        show(box, found, CAIRO)
        found.wait_for(DRAWN, DRAWN_S)
        yield found


def wait_at(browser: Browser, place: str, condition: str) -> None:
    """Move the map to `longitude,latitude,zoom` and wait until MapLibre's map, `gl`, is so."""
    *centre, zoom = place.split(",")
    ask(browser, f"void gl.jumpTo({{center: [{','.join(centre)}], zoom: {zoom}}})")
    browser.wait_for(f"(async () => {{ {MAP} return gl.areTilesLoaded() && {condition}; }})()", DRAWN_S)


@pytest.mark.parametrize(
    ("place", "layer"),
    [
        pytest.param("32.571,30.08,10", "canals", id="canal north of Suez"),
        pytest.param("32.41,30.33,10", "canal-lakes", id="Great Bitter Lake"),
        pytest.param("-87,43.5,2.5", "lakes", id="Lake Michigan"),
        pytest.param("9.4,47.6,7", "lakes", id="Lake Constance"),
    ],
)
def test_water_inside_of_coasts_is_drawn(map_page: Browser, place: str, layer: str) -> None:
    centre = f"gl.queryRenderedFeatures(gl.project(gl.getCenter()), {{layers: ['{layer}']}})"
    wait_at(map_page, place, f"{centre}.length > 0")


@pytest.mark.parametrize(("zoom", "least_km", "below_km"), [(2.5, 1_500, 9_999), (4.5, 400, 800), (6.0, 100, 400)])
def test_long_rivers_are_drawn_from_farther_away_than_short_ones(
    map_page: Browser, zoom: float, least_km: int, below_km: int
) -> None:
    lengths = "gl.queryRenderedFeatures({layers: ['rivers']}).map(one => one.properties.length_km)"
    shortest = f"Math.min(...{lengths})"
    wait_at(map_page, f"13,47.5,{zoom}", f"{shortest} < {below_km}")
    assert ask(map_page, shortest) >= least_km


@pytest.mark.parametrize(("scheme", "has_forced_colours"), [("light", False), ("dark", False), ("light", True)])
def test_rivers_and_lakes_have_the_colour_of_the_sea(map_page: Browser, scheme: str, has_forced_colours: bool) -> None:
    map_page.look_at(*DESK, scheme, has_forced_colours=has_forced_colours)
    water = "getComputedStyle(document.documentElement).getPropertyValue('--map-water').trim()"
    wait_at(map_page, "9.4,47.6,7", f"gl.getPaintProperty('water', 'background-color') === {water}")
    painted = ["['water', 'background-color']", "['land-fine', 'fill-color']", "['borders-fine', 'line-color']"]
    painted += ["['lakes', 'fill-color']", "['rivers', 'line-color']"]
    sea, land, border, lake, river = ask(map_page, f"[{', '.join(painted)}].map(one => gl.getPaintProperty(...one))")
    assert lake == river == sea
    assert len({sea, land, border}) == 3
    map_page.look_at(*DESK)


@pytest.mark.usefixtures("fleet")
def test_what_is_not_loaded_yet_is_not_sea(box: Box, browser: Browser) -> None:
    background = "gl.getPaintProperty('water', 'background-color')"
    colours = "[getComputedStyle(document.documentElement).getPropertyValue('--map-water').trim()]"
    with browser.prepared(HOLD.replace("FILES", "['countries-50m.json', 'countries-10m.json']")):
        show(box, browser, CAIRO)
        browser.wait_for(f"(async () => {{ {MAP} return Boolean(gl?.getSource('devices')); }})()", DRAWN_S)
        assert ask(browser, f"!{colours}.includes({background})")
    show(box, browser, CAIRO)
    browser.wait_for(DRAWN, DRAWN_S)
    assert ask(browser, f"{colours}.includes({background})")
    # beside the fine coast the coarse one is not drawn
    assert ask(browser, "gl.queryRenderedFeatures({layers: ['land-fine']}).length")
    assert not ask(browser, "gl.queryRenderedFeatures({layers: ['land-coarse']}).length")


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_scale_and_credit_do_not_overlap(box: Box, browser: Browser, size: tuple[int, int]) -> None:
    browser.look_at(*size)
    show(box, browser, CAIRO)
    browser.wait_for(DRAWN, DRAWN_S)
    # with the longest credit that an operator may give
    browser.run("document.querySelector('.maplibregl-ctrl-attrib-inner').textContent += ' · credit'.repeat(20)")
    scale, credit = browser.run(
        "['.maplibregl-ctrl-scale', '.maplibregl-ctrl-attrib'].map(one => "
        "(({left, top, right, bottom}) => ({left, top, right, bottom}))"
        "(document.querySelector(one).getBoundingClientRect()))"
    )
    is_apart = scale["right"] <= credit["left"] or credit["right"] <= scale["left"] or scale["bottom"] <= credit["top"]
    assert is_apart, (scale, credit)
    browser.look_at(*DESK)
