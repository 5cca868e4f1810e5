"""The page's tab History in a real browser: what it draws, plays and downloads is what devices sent."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow.parquet as pq
import pytest
from defusedxml.ElementTree import fromstring

from telemetry.model.record import Sent
from tests.api.conftest import Box, box_on, record
from tests.api.page import module
from tests.box import PROJECT
from tests.browser import Browser, running_browser
from tests.conftest import RedisServer, running_redis
from tests.senders import wait_until

pytestmark = pytest.mark.slow

PHONE, DESK = (390, 844), (1280, 800)
LOADED_S = 90.0
DAY = datetime(2026, 1, 26, tzinfo=UTC)
DAY_MS = int(DAY.timestamp() * 1_000)
MINUTE_MS = 60_000
BAD = "<img src=x onerror=document.title='run'>"
BUS = "4720"
AXE = (PROJECT / "tests" / "data" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
SERIOUS = "axe.run().then(({violations}) => violations.filter((one) => /serious|critical/.test(one.impact)))"
MODULES = f"const {{view}} = await {module('history.js')}, {{context}} = await {module('main.js')};"


def van() -> list[Sent]:
    """A van that drives for 20 min, is not heard for 40, drives for 10, sleeps for 30 and then stands for 10."""

    def told(minute: int, longitude: float, speed_kmh: float) -> Sent:
        at_us = (DAY_MS + (8 * 60 + minute) * MINUTE_MS) * 1_000
        fuel = json.dumps({"fuel": 80 - minute / 4, "engine": {"rpm": 900 + minute}, "name": "no number"})
        place: dict[str, Any] = {"latitude": 53.4, "longitude": longitude, "heading_deg": 90.0}
        return Sent("van", record(at_us, speed_kmh=speed_kmh, attributes=fuel, **place))

    drive = [told(minute, -3 + minute * 0.01, 40.0) for minute in range(21)]
    again = [told(60 + minute, -2.5 + minute * 0.02, 80.0) for minute in range(11)]
    return [*drive, *again, *(told(minute, -2.3, 0.0) for minute in range(100, 111))]


def carried() -> list[Sent]:
    """A device with one position far off, which is then carried 1,100 km away within a minute."""
    places = [(53.4, -3.0)] * 10 + [(53.4, 20.0)] + [(53.4, -3.0)] * 9 + [(43.4, -3.0)] * 10
    return [
        Sent("carried", record((DAY_MS + n * MINUTE_MS) * 1_000, latitude=place[0] + n * 1e-4, longitude=place[1]))
        for n, place in enumerate(places)
    ]


def buses() -> list[Sent]:
    """Those of Liverpool, which tell no speed."""
    with (PROJECT / "tests" / "data" / "liverpool_bus_route14.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Sent(
            row["vehicle_id"],
            record(
                int(datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()) * 1_000_000,
                latitude=float(row["latitude"]),
                longitude=float(row["longitude"]),
                heading_deg=float(row["bearing"]) if row["bearing"] else None,
            ),
        )
        for row in rows
    ]


LONG = "tracker-" + "0123456789" * 24 + "-at-end"
"""An id as long as one may be."""

ONCE = [
    Sent(name, record((DAY_MS + 9 * 60 * MINUTE_MS) * 1_000, speed_kmh=12.0, latitude=53.4, longitude=-2.9))
    for name in ("once", LONG)
]
"""Devices of one record each."""

SENT = [*van(), *carried(), *buses(), *ONCE, Sent(BAD, record((DAY_MS + 9 * 60 * MINUTE_MS) * 1_000))]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with these, half of it saved."""
    with running_redis() as server, box_on(server.url, tmp_path_factory.mktemp("box")) as found:
        found.append(*SENT[::2])
        found.save()
        found.append(*SENT[1::2])
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        found.look_at(*DESK)
        yield found


FAR = "-2.6,53.4,3"
"""From so far that the map needn't unpack the fine coast, for a second of a core."""


def show(browser: Browser, box: Box, *devices: str, **more: str) -> None:
    """Open the history of devices on that day, or in another range; with an empty `at` as near as the page takes it."""
    shown = {"start": "2026-01-26T00:00:00Z", "end": "2026-01-27T00:00:00Z", "at": FAR} | more
    said = [("tab", "history"), *(("devices", one) for one in devices)]
    said += [(name, value) for name, value in shown.items() if value]
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{box.port}/#{urlencode(said)}")
    browser.wait_for("document.readyState === 'complete'")


def show_read(browser: Browser, box: Box, *devices: str, **more: str) -> None:
    """The same, all of it read and on the map."""
    show(browser, box, *devices, **more)
    browser.wait_for(
        f"(async () => {{ {MODULES} return Boolean(context.map.gl?.getSource('past-signs')); }})()", LOADED_S
    )
    browser.wait_for("document.querySelectorAll('.moves li').length > 0", LOADED_S)


def ask(browser: Browser, expression: str) -> Any:
    """What an expression of the page's `view` and `context` comes to."""
    return browser.run(f"(async () => {{ {MODULES} return {expression}; }})()")


def features(browser: Browser, source: str) -> list[dict[str, Any]]:
    """What the map was given to draw."""
    found: list[dict[str, Any]] = ask(browser, f"context.map.gl.getSource('{source}').serialize().data.features")
    return found


def seek(browser: Browser, minute: float) -> None:
    """Go to a moment of that day."""
    ask(browser, f"view.playback.seek({DAY_MS + round(minute * MINUTE_MS)})")


def clock_ms(browser: Browser) -> int:
    return int(browser.run("document.querySelector('.clock').dataset.ms"))


def said(browser: Browser) -> str:
    return str(browser.run("document.querySelector('.said').textContent"))


def wait_for_words(browser: Browser, words: str) -> None:
    browser.wait_for(f"document.querySelector('.said').textContent.includes({json.dumps(words)})", LOADED_S)


def press_button(browser: Browser, text: str) -> None:
    """Press one of the buttons beside the words."""
    found = f"[...document.querySelectorAll('.said button')].find((one) => one.textContent === {json.dumps(text)})"
    browser.wait_for(f"Boolean({found})", LOADED_S)
    browser.run(f"{found}.click()")


def places(sent: list[Sent]) -> list[list[float]]:
    found = [[one.record.longitude, one.record.latitude] for one in sent]
    assert all(None not in place for place in found)
    return found  # type: ignore[return-value]


def test_what_is_drawn_is_what_was_sent_and_a_gap_stays_one(box: Box, browser: Browser) -> None:
    show_read(browser, box, "van", at="")
    drawn = features(browser, "past")
    ways = [one["geometry"]["coordinates"] for one in drawn if one["properties"]["kind"] == "way"]
    sent = places(van())
    before, after = sent[:21], sent[21:]
    assert ways[0] == before
    assert ways[1] + ways[2][1:] == after  # the line goes on where another colour begins
    assert ways[1][-1] == ways[2][0]
    gaps = [one for one in drawn if one["properties"]["kind"] == "gap"]
    assert [one["geometry"]["coordinates"] for one in gaps] == [[before[-1], after[0]]]
    assert gaps[0]["properties"]["startMs"] == DAY_MS + (8 * 60 + 20) * MINUTE_MS
    levels = [one["properties"]["level"] for one in drawn if one["properties"]["kind"] == "way"]
    assert levels == [2, 4, 0]  # 40, 80 and 0 km/h of 80
    browser.wait_for(PAINTED)
    assert ask(browser, "context.map.gl.queryRenderedFeatures({layers: ['past-gaps']}).length") >= 1
    assert said(browser).startswith("43 records.")
    assert browser.hosts() == {f"127.0.0.1:{box.port}"}
    assert browser.complaints() == []


def test_an_implausible_position_is_not_drawn_and_a_jump_is_a_gap(box: Box, browser: Browser) -> None:
    show(browser, box, "carried")
    wait_for_words(browser, "1 implausible position is not drawn: jumps, bad accuracy, or 0/0.")
    assert said(browser).startswith("30 records.")
    browser.wait_for(
        f"(async () => {{ {MODULES} return Boolean(context.map.gl?.getSource('past-signs')); }})()", LOADED_S
    )
    drawn, sent = features(browser, "past"), places(carried())
    ways = [one["geometry"]["coordinates"] for one in drawn if one["properties"]["kind"] == "way"]
    assert [place for way in ways for place in way] == [*sent[:10], *sent[11:]]
    gaps = [one["geometry"]["coordinates"] for one in drawn if one["properties"]["kind"] == "gap"]
    assert gaps == [[sent[19], sent[20]]]


RENDERED = "context.map.gl.queryRenderedFeatures({layers: ['past-ways']}).length > 0"
PAINTED = f"(async () => {{ {MODULES} return {RENDERED}; }})()"


def test_the_chart_has_the_speed_and_every_number_that_was_sent(box: Box, browser: Browser) -> None:
    show_read(browser, box, "van")
    times, speeds = ask(browser, "view.chart.plot.data")
    assert [value for value in speeds if value is not None] == [one.record.speed_kmh for one in van()]
    gaps = [at for at, value in zip(times, speeds, strict=True) if value is None]
    assert gaps == [(DAY_MS + (8 * 60 + 40) * MINUTE_MS) / 1_000]  # none where it slept
    offered = browser.run("[...document.querySelectorAll('.chart-bar option')].map((one) => one.value)")
    assert offered == ["speed", "engine.rpm", "fuel", "heading_deg"]
    browser.run("document.querySelector('.chart-bar select').value = 'engine.rpm'")
    browser.run("document.querySelector('.chart-bar select').dispatchEvent(new Event('change'))")
    values = [value for value in ask(browser, "view.chart.plot.data[1]") if value is not None]
    assert values == [json.loads(one.record.attributes or "")["engine"]["rpm"] for one in van()]
    for minute, shown in ((5.5, "van905"), (30, "van\N{EN DASH}"), (85, "van970"), (105.5, "van1,005")):
        seek(browser, 8 * 60 + minute)
        assert browser.run("document.querySelector('.values').textContent") == shown


def test_a_click_in_the_chart_sets_the_moment_and_a_drag_zooms(box: Box, browser: Browser) -> None:
    show_read(browser, box, "van")
    corners = "(({x, y, width, height}) => [x, y + height / 2, width])"
    x, y, width = browser.run(f"{corners}(document.querySelector('.u-over').getBoundingClientRect())")
    first_ms, last_ms = DAY_MS + 480 * MINUTE_MS, DAY_MS + 590 * MINUTE_MS
    browser.click_at(x + width / 4, y)
    assert abs(clock_ms(browser) - (first_ms + (last_ms - first_ms) / 4)) < MINUTE_MS
    browser.drag(x + width / 4, x + width / 2, y)
    browser.wait_for("!document.querySelector('.chart-bar button').hidden")
    least_s, most_s = ask(browser, "[view.chart.plot.scales.x.min, view.chart.plot.scales.x.max]")
    assert most_s - least_s == pytest.approx((last_ms - first_ms) / 4_000, rel=0.05)
    browser.click(".chart-bar button")
    browser.wait_for("document.querySelector('.chart-bar button').hidden")


def test_playing_moves_the_device_and_not_across_a_gap(box: Box, browser: Browser) -> None:
    show_read(browser, box, "van")
    seek(browser, 8 * 60 + 10.5)
    [sign] = features(browser, "past-signs")
    assert sign["geometry"]["coordinates"] == pytest.approx([-2.895, 53.4])
    assert (sign["properties"]["heading"], sign["properties"]["isKnown"]) == (90, True)
    seek(browser, 8 * 60 + 40)
    [sign] = features(browser, "past-signs")
    assert sign["geometry"]["coordinates"] == pytest.approx([-2.8, 53.4])
    assert sign["properties"]["isKnown"] is False
    seek(browser, 9 * 60 + 25)  # it slept where it stood: that is known
    assert features(browser, "past-signs")[0]["properties"]["isKnown"] is True

    seek(browser, 8 * 60)
    browser.run("document.querySelector('.play-bar select').value = '300'")
    browser.run("document.querySelector('.play-bar select').dispatchEvent(new Event('change'))")
    browser.run("document.activeElement.blur()")
    began_s = time.monotonic()
    browser.press(" ")
    browser.wait_for(f"Number(document.querySelector('.clock').dataset.ms) > {DAY_MS + 485 * MINUTE_MS}")
    browser.press(" ")
    stood_ms = clock_ms(browser)
    assert stood_ms - (DAY_MS + 480 * MINUTE_MS) <= (time.monotonic() - began_s) * 1_000 * 300
    moved = features(browser, "past-signs")[0]["geometry"]["coordinates"][0]
    assert moved == pytest.approx(-3 + (stood_ms - DAY_MS - 480 * MINUTE_MS) / MINUTE_MS * 0.01, abs=1e-4)
    assert clock_ms(browser) == stood_ms
    browser.press("ArrowRight")
    assert clock_ms(browser) % MINUTE_MS == 0
    assert 0 < clock_ms(browser) - stood_ms <= MINUTE_MS
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert clock_ms(browser) < stood_ms
    assert browser.complaints() == []


def test_a_reload_and_a_link_show_the_same(box: Box, browser: Browser) -> None:
    show_read(browser, box, "van", BUS)
    seek(browser, 8 * 60 + 7)
    browser.wait_for("location.hash.includes('moment=2026-01-26T08%3A07')")
    link = browser.run("location.href")
    before = browser.run(SHOWN)
    assert [one.split("\n")[0] for one in before["devices"]] == ["van", BUS]
    for _ in range(2):
        browser.open("about:blank")
        browser.open(link)
        browser.wait_for("document.querySelectorAll('.moves li').length > 0", LOADED_S)
        assert browser.run(SHOWN) == before


SHOWN = """({
    devices: [...document.querySelectorAll('.chosen .name')].map((one) => one.textContent),
    from: document.querySelector('#history-from').value,
    clock: document.querySelector('.clock').dataset.ms,
    said: document.querySelector('.said').textContent,
    moves: document.querySelectorAll('.moves li').length,
})"""


def test_back_shows_what_was_shown_before(box: Box, browser: Browser) -> None:
    show_read(browser, box, "van")
    browser.run("document.querySelector('#history-to').value = '2026-01-26T08:10:00'")
    browser.run("document.querySelector('#history-to').dispatchEvent(new Event('change'))")
    wait_for_words(browser, "10 records.")
    browser.run("history.back()")
    wait_for_words(browser, "43 records.")
    assert browser.run("document.querySelector('#history-to').value").startswith("2026-01-27T00:00")


def test_trips_and_stops_are_listed_and_lead_there(box: Box, browser: Browser) -> None:
    show_read(browser, box, "van")
    texts = browser.run("[...document.querySelectorAll('.moves button')].map((one) => one.textContent)")
    trips = box.get("/v1/trips", ("device_id", "van")).json()["trips"]
    stops = box.get("/v1/stops", ("device_id", "van")).json()["stops"]
    assert len(texts) == len(trips) + len(stops) == 3
    assert "km in 20 min" in texts[0]
    assert "Stood 40 min" in texts[2]
    assert [one["geometry"]["coordinates"] for one in features(browser, "past-stops")] == [[-2.3, 53.4]]
    browser.click(".moves li:nth-child(2) button")
    assert clock_ms(browser) == DAY_MS + 540 * MINUTE_MS
    [marked] = features(browser, "past-trip")
    assert marked["geometry"]["coordinates"][0] == [-2.5, 53.4]
    browser.click(".moves li:nth-child(3) button")
    assert clock_ms(browser) == round(datetime.fromisoformat(stops[0]["start"]).timestamp() * 1_000)
    assert features(browser, "past-trip") == []


def test_what_is_downloaded_is_what_is_shown(box: Box, browser: Browser, tmp_path: Path) -> None:
    browser.save_to(tmp_path)
    show_read(browser, box, "van", BUS, end="2026-01-26T17:00:00Z")
    end_us = (DAY_MS + 17 * 60 * MINUTE_MS) * 1_000
    shown = [one for one in SENT if one.device_id in {"van", BUS} and one.record.timestamp_us < end_us]
    assert ask(browser, "view.past.shown") == len(shown)
    expected = sorted((one.device_id, one.record.timestamp_us) for one in shown)

    table = pq.read_table(downloaded(browser, tmp_path, "parquet")).to_pylist()
    assert sorted((row["device_id"], int(row["timestamp"].timestamp() * 1e6)) for row in table) == expected
    with downloaded(browser, tmp_path, "csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["device_id"], us(row["timestamp"])) for row in rows) == expected
    assert ["csv_safe=true" in url for url in browser.asked() if "format=csv" in url] == [True]
    collection = json.loads(downloaded(browser, tmp_path, "geojson").read_bytes())
    properties = [one["properties"] for one in collection["features"]]
    assert sorted((one["device_id"], us(one["timestamp"])) for one in properties) == expected
    track = fromstring(downloaded(browser, tmp_path, "gpx").read_bytes())
    points = [one.text for one in track.iter("{http://www.topografix.com/GPX/1/1}time")]
    assert sorted(us(one or "") for one in points) == sorted(at for _, at in expected)


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


def downloaded(browser: Browser, folder: Path, suffix: str) -> Path:
    """The file that a button brings."""
    browser.click(f"[data-format={suffix}]")
    browser.wait_for("/downloaded/.test(document.querySelector('.formats + p').textContent)", LOADED_S)
    wait_until(lambda: any(folder.glob(f"whimbrel-*.{suffix}")))
    return next(folder.glob(f"whimbrel-*.{suffix}"))


def wait_until_known(box: Box, key: str) -> None:
    """Programs learn of a key within seconds."""
    headers = {"Authorization": f"Bearer {key}"}
    wait_until(lambda: box.http.get("/v1/records?limit=1", headers=headers).status_code == 200)


def test_more_records_than_a_browser_holds_are_thinned_and_the_page_says_so(box: Box, browser: Browser) -> None:
    first_us = DAY_MS * 1_000
    for part in range(11):
        at = (first_us + (part * 10_000 + second) * 1_000_000 for second in range(10_000))
        box.append(*(Sent("fast", record(one, latitude=53.0 + one % 997 / 1e5, longitude=-2.0)) for one in at))
    box.save()
    show_read(browser, box, "fast", end="2026-01-28T00:00:00Z")
    wait_for_words(browser, "55,000 of 110,000 records: the first of each device in each 2s.")
    assert ask(browser, "view.past.courses[0].times.length") == 55_000
    assert ask(browser, "view.past.asked.every") == "2s"


def test_a_ship_crosses_the_180th_meridian_the_short_way(box: Box, browser: Browser) -> None:
    crossed = [(179.99, 0), (-179.99, 1), (-179.97, 2), (179.99, 3)]
    ship = [(longitude, (DAY_MS + minute * MINUTE_MS) * 1_000) for longitude, minute in crossed]
    box.append(*(Sent("ship", record(at_us, latitude=0.0, longitude=longitude)) for longitude, at_us in ship))
    show_read(browser, box, "ship")
    ways = [one["geometry"]["coordinates"] for one in features(browser, "past")]
    assert [x for way in ways for x, _ in way] == pytest.approx([179.99, 180.01, 180.03, 180.03, 179.99])
    seek(browser, 0.5)
    [sign] = features(browser, "past-signs")
    assert abs(sign["geometry"]["coordinates"][0]) == pytest.approx(180)
    assert sign["properties"]["heading"] == pytest.approx(90)


def test_reading_can_be_stopped_and_what_is_shown_is_whole_until_there(box: Box, browser: Browser) -> None:
    show(browser, box, "fast", end="2026-01-26T20:00:00Z")
    browser.wait_for("document.querySelector('progress')?.value > 0", LOADED_S)
    press_button(browser, "Stop")
    wait_for_words(browser, "Stopped: only records before")
    shown, asked = ask(browser, "[view.past.shown, view.past.asked]")
    assert 0 < shown < 72_000
    assert box.get("/v1/summary", ("device_id", "fast"), ("end", asked["end"])).json()["summaries"][0]["count"] == shown


def test_what_arrives_late_is_told_of_and_loaded_again(box: Box, browser: Browser) -> None:
    sent = [Sent("late", record((DAY_MS + minute * MINUTE_MS) * 1_000)) for minute in (0, 1, 2)]
    box.append(*sent)
    show(browser, box, "late")
    wait_for_words(browser, "3 records.")
    browser.wait_for(f"(async () => {{ {MODULES} return context.fleet.devices.has('late'); }})()", LOADED_S)
    assert browser.run("document.querySelector('.said [hidden]') !== null")
    box.append(Sent("late", record((DAY_MS + MINUTE_MS // 2) * 1_000)))
    browser.wait_for("document.querySelector('.said [hidden]') === null", LOADED_S)
    press_button(browser, "Load again")
    wait_for_words(browser, "4 records.")
    assert ask(browser, "view.past.courses[0].times") == [DAY_MS + at * MINUTE_MS // 2 for at in (0, 1, 2, 4)]


def test_nothing_to_show_is_said_in_words(box: Box, browser: Browser) -> None:
    show(browser, box, "van", "ghost", start="2026-01-25T00:00:00Z", end="2026-01-26T00:00:00Z")
    wait_for_words(browser, "There are no records of van in this range. Its newest record is from 26 Jan 2026")
    assert "There is no device ghost." in said(browser)
    press_button(browser, "Show that day")
    wait_for_words(browser, "43 records.")
    show(browser, box)
    wait_for_words(browser, "Add a device")


def test_a_name_that_is_markup_is_text(box: Box, browser: Browser) -> None:
    show(browser, box, BAD)
    wait_for_words(browser, "1 record.")
    assert browser.run("document.querySelector('.chosen .name').textContent") == BAD
    assert browser.run("document.querySelectorAll('[src=x]').length") == 0
    assert browser.run("document.title") == "Whimbrel"
    assert browser.run(
        "(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(document.querySelector('#panel-history'))"
    )


def test_devices_are_found_and_left_out_by_keyboard(box: Box, browser: Browser) -> None:
    show(browser, box)
    wait_for_words(browser, "Add a device")
    browser.wait_for(f"(async () => {{ {MODULES} return context.fleet.devices.size > 3; }})()")
    browser.run("document.querySelector('#history-device').focus()")
    browser.write("72")
    browser.wait_for("document.querySelectorAll('#history-offered li').length > 0", LOADED_S)
    assert BUS in browser.run("[...document.querySelectorAll('#history-offered li')].map((one) => one.textContent)")
    browser.write("0")
    browser.press("ArrowDown")
    browser.press("Enter")
    wait_for_words(browser, "278 records.")
    assert f"devices={BUS}" in browser.run("location.hash")
    browser.run("document.querySelector('.chosen button').focus()")
    browser.press("Enter")
    wait_for_words(browser, "Add a device")


def test_a_box_that_can_not_answer_is_said_in_words_and_asked_again(box: Box, browser: Browser) -> None:
    query = box.stop_program("api.query")
    show(browser, box, "van")
    browser.wait_for("document.querySelector('.said .bad') !== null", LOADED_S)
    assert len(said(browser)) > 30
    box.start_program(query)
    wait_until(lambda: box.get("/v1/records", ("limit", 1)).status_code == 200)
    press_button(browser, "Try again")
    wait_for_words(browser, "43 records.")


def test_a_key_for_other_devices_is_told_so_and_downloads_carry_it(
    shared_redis: RedisServer, tmp_path: Path, browser: Browser
) -> None:
    with box_on(shared_redis.url, tmp_path, auth__required="true") as guarded:
        guarded.append(*van(), *buses()[:5])
        key = guarded.make_key("read", devices=("van",))
        wait_until_known(guarded, key)
        browser.open(f"http://127.0.0.1:{guarded.port}/")
        browser.run(f"sessionStorage.setItem('whimbrel.key', {json.dumps(key)})")
        browser.save_to(tmp_path)
        show_read(browser, guarded, "van")
        track = fromstring(downloaded(browser, tmp_path, "gpx").read_bytes())
        assert len(list(track.iter("{http://www.topografix.com/GPX/1/1}trkpt"))) == 43
        show(browser, guarded, "van", BUS)
        wait_for_words(browser, "this key is for")
        browser.run("sessionStorage.clear()")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_everybody_can_use_it(box: Box, browser: Browser, size: tuple[int, int]) -> None:
    browser.look_at(*size)
    show_read(browser, box, "van", BUS, at="")
    browser.run("document.querySelector('#history-device').focus()")
    browser.write("4")
    browser.wait_for("document.querySelectorAll('#history-offered li').length > 0", LOADED_S)
    browser.run(AXE + ";0")
    for scheme in ("light", "dark"):
        browser.look_at(*size, scheme)
        assert browser.run(SERIOUS) == [], scheme
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []
    browser.look_at(*DESK)


def test_one_record_is_in_the_middle_of_minutes(box: Box, browser: Browser) -> None:
    show(browser, box, "once")
    wait_for_words(browser, "1 record.")
    least_s, most_s = ask(browser, "[view.chart.plot.scales.x.min, view.chart.plot.scales.x.max]")
    assert (least_s + most_s) / 2 == DAY_MS / 1_000 + 9 * 3_600
    assert 60 <= most_s - least_s <= 3_600
    labels = ask(browser, "view.chart.plot.axes[0]._values")
    assert len(labels) >= 3
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"\d\d:\d\d(:\d\d)?", one) for one in labels), labels
    assert browser.complaints() == []


@pytest.mark.parametrize(
    "wrong", [{"end": "2026-01-25T00:00:00Z"}, {"end": "2026-01-26T00:00:00Z"}, {"start": "soon"}, {"end": "x"}]
)
def test_a_wrong_range_is_told_once(box: Box, browser: Browser, wrong: dict[str, str]) -> None:
    show(browser, box, "van", **wrong)
    told = "[...document.querySelectorAll('#panel-history .bad')].filter((one) => one.offsetParent)"
    browser.wait_for(f"{told}.length > 0", LOADED_S)
    assert browser.run(f"{told}.map((one) => one.textContent)") == ["The range needs a start, and an end after it."]
    assert said(browser) == ""


def test_from_a_device_to_its_history_its_track_is_framed(box: Box, browser: Browser) -> None:
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{box.port}/#at=100,-40,9&device=van")
    browser.click("#device .actions .main")
    browser.wait_for("document.querySelectorAll('.moves li').length > 0", LOADED_S)
    browser.wait_for(f"(async () => {{ {MODULES} return {FRAMED}; }})()")
    # a reload shows the same, and so does who moved the map meanwhile
    browser.wait_for("!location.hash.includes('at=100') && location.hash.includes('tab=history')")
    place = browser.run("new URLSearchParams(location.hash.slice(1)).get('at')")
    browser.reload()
    browser.wait_for("document.querySelectorAll('.moves li').length > 0", LOADED_S)
    browser.wait_for(f"(async () => {{ {MODULES} return {FRAMED}; }})()")
    assert browser.run("new URLSearchParams(location.hash.slice(1)).get('at')") == place


FRAMED = (
    "[[-3, 53.4], [-2.3, 53.4]].every((place) => context.map.gl?.getBounds().contains(place))"
    " && context.map.gl.getZoom() > 7"
)


def test_a_long_id_is_cut_wherever_it_stands(box: Box, browser: Browser) -> None:
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{box.port}/#{urlencode({'at': FAR, 'device': LONG, 'search': LONG})}")
    browser.wait_for("Boolean(document.querySelector('#device .figures strong')?.textContent)", LOADED_S)
    assert browser.run("document.querySelector('#device h2').clientHeight") < MOST_NAME_PX
    assert browser.run("document.querySelector('#device h2 bdi').title") == LONG
    browser.wait_for("document.querySelector('.row .name')?.clientHeight < 30")
    show(browser, box, LONG, "van", start="2026-01-26T09:00:00Z")
    browser.wait_for("document.querySelectorAll('.values li').length === 2", LOADED_S)
    assert browser.run("document.querySelector('#panel-history').scrollWidth") <= SIDE_PX
    show(browser, box, LONG, start="2026-01-26T10:00:00Z")
    wait_for_words(browser, f"{LONG[:24]}…{LONG[-24:]}")
    assert LONG not in said(browser)


MOST_NAME_PX, SIDE_PX = 90, 352
