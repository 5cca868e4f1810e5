"""The page's tab Box in a real browser: an hour of charts, limits that are near, and who may not see it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.status.sampler import MAX_SAMPLES, Sample
from telemetry.coordination import shared_state
from telemetry.system.disk_space import in_words
from tests.api.conftest import Box, box_on
from tests.box import PROJECT
from tests.browser import Browser, running_browser
from tests.conftest import RedisServer, running_redis

pytestmark = pytest.mark.slow

PHONE, DESK = (390, 844), (1280, 800)
CHARTS = 8
NOT_READY = "503 (Service Unavailable)"
"""What the browser says of `/readyz`, as worker and scheduler don't run here."""

UNKNOWN = "\N{EN DASH}"
REDIS_LIMIT_BYTES = 11_403_436_032
SIZES = [
    *(0, 1, 999, 1_000, 1_023, 1_024, 10_239, 10_240, 2**20 - 1, 5 * 2**28, 2**30 - 1, REDIS_LIMIT_BYTES, 2**50, 2**60),
    *(count * 2**power // 20 for power in (10, 20, 30, 40) for count in range(1, 400)),
]
"""Sizes in bytes: ends of units, and halves that rounding takes up."""

AXE = (PROJECT / "tests" / "data" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
SERIOUS = (
    "axe.run('#panel-box').then(({violations}) => violations.filter((one) => /serious|critical/.test(one.impact)))"
)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with an hour behind it, but for five minutes, and nearly as many devices as it takes."""
    with running_redis() as server:
        found = Box(
            server.url, tmp_path_factory.mktemp("box"), collector__max_devices="40", limits__owner_share_percent="100"
        )
        found.set_up()
        found.client.config_set("maxmemory", REDIS_LIMIT_BYTES)
        now_ms = time.time_ns() // 1_000_000
        for number in range(MAX_SAMPLES - 1, 0, -1):
            if not 180 <= number < 210:
                sample = Sample(now_ms - number * 10_000, 12.5, 0.0, 1.5, 7.5, 40, 20.0, 3, 2_000_000, 60_000_000_000)
                shared_state.keep_sample(found.client, msgspec.json.encode(sample), MAX_SAMPLES)
        found.start()
        for number in range(36):
            assert found.http.post("/v1/records", json={"device_id": f"d{number}"}).status_code == 202
        assert found.http.post("/v1/records", content=b"{").status_code == 400
        deadline = time.monotonic() + 30
        while not is_sampled(found.http.get("/v1/box").json()):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield found
        found.stop()


def is_sampled(answer: dict[str, Any]) -> bool:
    """Whether a look at the box has seen what was sent to it."""
    devices = [one["value"] for one in answer["bounded"] if one["name"] == "devices"]
    return devices == [36] and "invalid-json" in (answer["refused"] or ())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


def open_box(browser: Browser, box: Box) -> None:
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{box.port}/#tab=box")
    browser.wait_for(f"document.querySelectorAll('#panel-box canvas').length === {CHARTS}")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_shows_the_hour_and_what_is_near_its_limit(
    box: Box, browser: Browser, size: tuple[int, int], tmp_path: Path
) -> None:
    browser.look_at(*size)
    open_box(browser, box)
    browser.wait_for("document.querySelector('#panel-box .title') !== null")
    text = browser.text()
    assert "Not ready" in text
    assert "the worker has given no sign of life" in text
    assert "near: 90 %" in text
    assert "36 of 40; further ones are refused" in text
    assert "invalid-json" in text
    assert "Empty: all data could be saved." in text
    near = "document.querySelector('.bounds [data-state=near] .filled').getBoundingClientRect()"
    assert browser.run(f"{near}.width / document.querySelector('.bounds .meter').clientWidth") == pytest.approx(
        0.9, 0.02
    )
    assert browser.run("document.querySelector('#panel-box').scrollWidth <= innerWidth")
    assert browser.hosts() == {f"127.0.0.1:{box.port}"}
    assert [one for one in browser.complaints() if NOT_READY not in one] == []
    browser.run(AXE)
    for scheme in ("light", "dark"):
        browser.look_at(*size, scheme)
        browser.wait_for(f"document.querySelectorAll('#panel-box canvas').length === {CHARTS}")
        assert browser.run(SERIOUS) == [], scheme
        browser.screenshot(tmp_path / f"box-{scheme}.png")


def test_redis_has_one_limit_wherever_it_is_shown(box: Box, browser: Browser) -> None:
    browser.look_at(*DESK)
    open_box(browser, box)
    browser.wait_for("document.querySelector('.bounds li') !== null")
    limit = in_words(REDIS_LIMIT_BYTES)
    assert limit == "10.6 GiB"
    said = browser.run("document.querySelector('.bounds li').textContent")
    assert re.search(rf"of {limit}; above 80 %, records are refused$", said), said
    said = " ".join(box.http.get("/status", headers={"Accept": "text/html"}).text.split())
    assert re.search(rf"of {limit} memory used; above 80 %, records are refused<", said), said


NEAR_WHOLE = "of 4.0 TiB; with less than 1.0 GiB free, records are refused"


@pytest.mark.parametrize(
    ("value", "limit", "whole", "said"),
    [
        (2**41, 2**42 - 2**30, 2**42, f"Disk50 %2.0 TiB {NEAR_WHOLE}"),
        (2**42 - 2**31, 2**42 - 2**30, 2**42, f"Disknear: 99 %4.0 TiB {NEAR_WHOLE}"),
        (2**42, 2**42 - 2**30, 2**42, f"Diskfull4.0 TiB {NEAR_WHOLE}"),
        (2**30, 9 * 2**30, 10 * 2**30, "Disk10 %1.0 GiB of 10.0 GiB; above 90 %, records are refused"),
    ],
    ids=["half", "near", "full", "far from the whole"],
)
def test_a_limit_close_to_the_whole_is_said_by_what_must_stay_free(
    box: Box, browser: Browser, value: int, limit: int, whole: int, said: str
) -> None:
    """Of 4 TiB, 1 GiB is 0.02 %: rounded, the limit would be 100 %."""
    open_box(browser, box)
    found = json.dumps([{"name": "disk_used_bytes", "value": value, "limit": limit, "whole": whole}])
    bars = f"import('/static/page/bounds.js').then(({{bars}}) => bars({found})[0].textContent)"
    assert browser.run(bars) == said


def test_a_size_is_rounded_in_one_way_here_and_in_the_programs(box: Box, browser: Browser) -> None:
    open_box(browser, box)
    said = browser.run(f"import('/static/page/units.js').then(({{bytes}}) => {json.dumps(SIZES)}.map(bytes))")
    assert said == [in_words(size) for size in SIZES]


def test_the_pointer_reads_a_chart_and_five_minutes_of_nothing_are_a_gap(box: Box, browser: Browser) -> None:
    browser.look_at(*DESK)
    open_box(browser, box)
    chart = "document.querySelector('#panel-box .u-over')"
    move = "new MouseEvent('mousemove', {bubbles: true, clientX: %s, clientY: at.top + 5})"
    for part, said in ((0.3, "12.5/s"), (0.46, UNKNOWN)):
        x = f"at.left + {part} * at.width"
        browser.run(f"(() => {{ const at = {chart}.getBoundingClientRect(); {chart}.dispatchEvent({move % x}); }})()")
        browser.wait_for(f"document.querySelector('#panel-box .values strong').textContent === {json.dumps(said)}")
    assert browser.run("document.querySelector('#panel-box .values time').textContent.length") == 5


def test_a_colour_scheme_that_changes_draws_it_anew(box: Box, browser: Browser) -> None:
    browser.look_at(*DESK)
    open_box(browser, box)
    pixels = "document.querySelector('#panel-box canvas').toDataURL()"
    light = browser.run(pixels)
    browser.look_at(*DESK, "dark")
    browser.wait_for(f"document.querySelectorAll('#panel-box canvas').length === {CHARTS}")
    browser.wait_for(f"{pixels} !== {json.dumps(light)}")


def await_known(box: Box, key: str) -> None:
    """A new key works within seconds."""
    deadline = time.monotonic() + 30
    while box.http.get("/v1/latest", headers={"Authorization": f"Bearer {key}"}).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_key_that_is_bound_to_devices_is_offered_no_such_tab(
    own_redis: RedisServer, tmp_path: Path, browser: Browser
) -> None:
    with box_on(own_redis.url, tmp_path, auth__required="true") as box:
        whole, bound = box.make_key("read"), box.make_key("read", devices=("van-7",))
        for key in (whole, bound):
            await_known(box, key)
        tab = "document.querySelector('#tab-box')"
        for key, is_offered in ((whole, True), (bound, False)):
            browser.open(f"http://127.0.0.1:{box.port}/healthz")
            browser.wait_for("document.readyState === 'complete'")
            browser.run(f"sessionStorage.setItem('whimbrel.key', {json.dumps(key)})")
            browser.open(f"http://127.0.0.1:{box.port}/")
            browser.wait_for("document.querySelector('#link-state')?.textContent === 'Live'")
            if is_offered:
                browser.wait_for(f"!{tab}.hidden")
            time.sleep(1)
            assert browser.run(f"{tab}.hidden") is not is_offered
