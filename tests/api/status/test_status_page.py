"""The status page and its JSON show the current state, also if parts of the box are down."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from api.responses.ttl_cache import KEPT_TIMES, LONGEST_KEPT_S, Kept
from api.status.status_page import ago
from telemetry.coordination import shared_state
from telemetry.hot_store.keys import shard_of
from telemetry.model.record import Sent
from telemetry.model.utc import DAY_US
from telemetry.system import clock
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.conftest import RedisServer

AT_US = 1_769_250_300_000_000
SHARDS = 3
JSON = {"Accept": "application/json"}
HOSTILE = "<img src=x onerror=alert(1)>"
NOTHING = "\N{EN DASH}"


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box of several shards."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("status"), redis__shards=str(SHARDS)) as found:
        yield found


def facts(box: Box) -> dict[str, Any]:
    """Facts that were read after the start of this call."""
    begun = datetime.now(UTC)
    while True:
        answer = box.http.get("/status", headers=JSON)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        found: dict[str, Any] = answer.json()
        if datetime.fromisoformat(found["made_at"]) >= begun:
            return found
        time.sleep(0.02)


def page(box: Box) -> tuple[dict[str, Any], Page]:
    """The page, and the facts that it was made of."""
    while True:
        found = facts(box)
        answer = box.http.get("/status")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        if box.http.get("/status", headers=JSON).json()["made_at"] == found["made_at"]:
            return found, Page(answer)


class Page(HTMLParser):
    """A page as a browser reads it: its text, its tags, and the rows of its tables."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.feed(answer.text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.rows and data.strip():
            self.rows[-1].append(data.strip())

    def row(self, name: str) -> list[str]:
        """The texts of the one row that begins with `name`."""
        [found] = [row for row in self.rows if row[:1] == [name]]
        return found


def say_alive(box: Box, ago_s: float = 0) -> None:
    for program in (shared_state.WORKER, shared_state.SCHEDULER):
        shared_state.write_heartbeat(box.client, program, time.time() - ago_s)


# Numbers ---------------------------------------------------------------------------------------------


def test_what_waits_and_what_is_saved(box: Box) -> None:
    before = facts(box)
    stored = box.append(*(Sent(f"count {n}", record(AT_US + n % 2 * DAY_US)) for n in range(10)))
    waiting = facts(box)
    assert waiting["devices"] == before["devices"] + 10
    assert waiting["unsaved_records"] == before["unsaved_records"] + 10
    assert waiting["saved_records"] == before["saved_records"]
    assert 0 <= waiting["oldest_unsaved_age_s"] < 60
    assert datetime.fromisoformat(waiting["newest_arrival"]).timestamp() * 1_000 == max(s.received_ms for s in stored)
    assert [one["shard"] for one in waiting["shards"]] == list(range(SHARDS))
    assert sum(one["unsaved_records"] for one in waiting["shards"]) == waiting["unsaved_records"]
    box.save()
    saved = facts(box)
    assert saved["unsaved_records"] == 0
    assert saved["oldest_unsaved_age_s"] is None
    assert saved["saved_records"] == waiting["saved_records"] + waiting["unsaved_records"]
    assert saved["archive_version"] > waiting["archive_version"]
    assert 0 <= saved["last_commit_age_s"] < 60
    assert sum(one["saves"] for one in saved["shards"]) == saved["archive_version"]


def test_what_was_refused_is_told_by_its_reason(box: Box) -> None:
    before = Counter(facts(box)["refused"])
    shared_state.add_refused(box.client, {"busy": 1_234})
    assert box.get("/v1/records", ("limit", "x")).status_code == 400
    assert box.http.post("/v1/records", content=b"nonsense").status_code == 400
    expected = Counter({"busy": 1_234, "invalid-json": 1, "invalid-parameter": 1})
    stop_s = time.monotonic() + 20
    while True:
        found, shown = page(box)
        if not expected - (Counter(found["refused"]) - before):
            break
        assert time.monotonic() < stop_s, found["refused"]
    assert shown.row("busy")[1] == f"{found['refused']['busy']:,}"


def test_the_archives_days(box: Box) -> None:
    box.append(*(Sent(f"day {n}", record(AT_US + n * DAY_US)) for n in range(20)))
    box.save()
    found = facts(box)
    files = [path.stat().st_size for path in box.archive.root.glob("date=*/*.parquet")]
    assert (found["files"], found["file_bytes"]) == (len(files), sum(files))
    assert (found["days"], found["oldest_day"], found["newest_day"]) == (20, "2026-01-24", "2026-02-12")
    newest = found["newest_days"]
    assert [one["day"] for one in newest] == sorted((one["day"] for one in newest), reverse=True)
    assert len(newest) == 14
    of_day = box.archive.root / "date=2026-02-12"
    assert newest[0] == {
        "day": "2026-02-12",
        "files": 1,
        "records": 1,
        "file_bytes": sum(path.stat().st_size for path in of_day.iterdir()),
    }


def test_devices_seen_lately(box: Box) -> None:
    before = facts(box)
    box.append(*(Sent(f"seen {n}", record(AT_US)) for n in range(4)))
    now_ms = clock.now_ms()
    for name, ago_ms in (("seen 1", 400_000), ("seen 2", 4_000_000), ("seen 3", 90_000_000)):
        see(box, name, now_ms - ago_ms)
    found = facts(box)
    for span, more in (("5_min", 1), ("1_h", 2), ("24_h", 3)):
        assert found[f"devices_seen_{span}"] == before[f"devices_seen_{span}"] + more
    assert found["devices"] == before["devices"] + 4


def see(box: Box, device_id: str, at_ms: int) -> None:
    """Let a device have been seen at a moment: the last eight bytes of its latest."""
    latest = box.shards[shard_of(device_id, SHARDS)].keys.latest
    value = box.client.hget(latest, device_id)
    assert isinstance(value, bytes)
    box.client.hset(latest, device_id, value[:-8] + at_ms.to_bytes(8))


def test_the_devices_seen_last(box: Box) -> None:
    for n in range(25):
        box.append(Sent(f"last {n}", record(AT_US, "tcp", fix=False, speed_kmh=7.25, location="Lime Street")))
        see(box, f"last {n}", clock.now_ms() + 1_000 * n)
    box.append(Sent("last 24", record(AT_US - 1)))
    found = facts(box)["newest_devices"]
    assert [one["device_id"] for one in found] == [f"last {n}" for n in range(24, 4, -1)]
    assert found[0]["timestamp"] == "2026-01-24T10:25:00.000000Z"
    assert (found[0]["transport"], found[0]["source"], found[0]["speed_kmh"]) == ("tcp", "json", 7.25)
    assert (found[0]["latitude"], found[0]["longitude"], found[0]["location"]) == (1.0, 2.0, "Lime Street")
    assert (found[1]["latitude"], found[1]["location"]) == (None, "Lime Street")
    _, shown = page(box)
    row = shown.row("last 24")
    assert row[3:] == ["2026-01-24 10:25:00", "tcp · json", "1.00000, 2.00000", "Lime Street", "7.2 km/h"]


def test_programs_and_what_redis_and_disk_have(box: Box) -> None:
    box.client.delete(shared_state.ALIVE)
    found, shown = page(box)
    assert (found["worker_seen_age_s"], found["scheduler_seen_age_s"]) == (None, None)
    assert found["status"] == "not ready"
    assert shown.row("Worker") == ["Worker", "never seen", "silent"]
    say_alive(box, ago_s=20)
    box.client.config_set("maxmemory", 2**30)
    try:
        found, shown = page(box)
    finally:
        box.client.config_set("maxmemory", 0)
    assert 20 <= found["worker_seen_age_s"] < 50
    assert (found["status"], found["reasons"], found["unknown"]) == ("ready", [], [])
    assert found["redis_memory_limit_bytes"] == 2**30
    assert 0 < found["redis_memory_bytes"] < 2**30
    assert (found["redis_aof"], found["redis_aof_last_write"]) == (True, "ok")
    assert found["redis_kind"] in ("Redis", "Valkey")
    assert 0 < found["disk_free_bytes"] < found["disk_bytes"]
    assert shown.tags.count("meter") == 2
    assert facts(box)["redis_memory_limit_bytes"] is None


# The page --------------------------------------------------------------------------------------------


def test_the_page_says_what_the_json_says(box: Box) -> None:
    box.append(*(Sent(f"many {n}", record(AT_US)) for n in range(1_200)))
    say_alive(box)
    found, shown = page(box)
    assert found["unsaved_records"] >= 1_200
    for name, number in (
        ("Records saved", found["saved_records"]),
        ("Records unsaved", found["unsaved_records"]),
        ("Devices", found["devices"]),
        ("Seen in 5 min", found["devices_seen_5_min"]),
    ):
        assert f"{name} {number:,} " in shown.text
    for text in ("ready", found["version"], f"{found['redis_kind']} {found['redis_version']}"):
        assert text in shown.text
    assert re.sub("T|[.].*", " ", found["made_at"]).strip() in shown.text
    for device in found["newest_devices"]:
        assert device["device_id"] in shown.text
    for day in found["newest_days"]:
        assert shown.row(day["day"])[:3] == [day["day"], f"{day['files']:,}", f"{day['records']:,}"]


def test_hostile_text_is_text(box: Box) -> None:
    box.append(Sent(HOSTILE, record(AT_US, fix=False, location="<script>alert(2)</script>")))
    see(box, HOSTILE, clock.now_ms() + 60_000)
    found, shown = page(box)
    assert found["newest_devices"][0]["device_id"] == HOSTILE
    assert HOSTILE in shown.text
    assert "<script>alert(2)</script>" in shown.text
    assert not {"img", "script", "style"} & set(shown.tags)
    assert not [name for name, _ in shown.attributes if name == "style" or name.startswith("on")]


def test_a_latest_that_cannot_be_read_is_a_device_all_the_same(box: Box) -> None:
    box.append(Sent("broken", record(AT_US)))
    latest = box.shards[shard_of("broken", SHARDS)].keys.latest
    box.client.hset(latest, "broken", b"\xc1" + (clock.now_ms() + 120_000).to_bytes(8))
    found, shown = page(box)
    assert found["newest_devices"][0]["device_id"] == "broken"
    assert found["newest_devices"][0]["timestamp"] is None
    assert shown.row("broken")[3:] == [NOTHING] * 3
    box.client.hdel(latest, "broken")


def test_headers_and_methods(box: Box) -> None:
    answer = box.http.get("/status")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["vary"] == "Accept"
    head = box.http.head("/status")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == "text/html; charset=utf-8"
    assert_problem(box.http.post("/status"), 405, "wrong-method")
    assert box.http.get("/static/pages.css").status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_older_services_admin_leads_here(box: Box, method: str) -> None:
    answer = box.http.request(method, "/admin/", params={"next": "x"})
    assert (answer.status_code, answer.headers["location"]) == (302, "/status")
    answer = box.http.request(method, "/admin")
    assert (answer.status_code, answer.headers["location"]) == (301, "/admin/")
    assert_problem(box.http.post("/admin/"), 405, "wrong-method")


# What is away ----------------------------------------------------------------------------------------


def test_an_empty_box_then_one_without_archive_then_one_without_redis(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with box_on(own_redis.url, tmp_path_factory.mktemp("away")) as box:
        say_alive(box)
        found, shown = page(box)
        assert found["status"] == "ready"
        counts = ("devices", "devices_seen_24_h", "saved_records", "unsaved_records", "files")
        assert [found[name] for name in counts] == [0] * len(counts)
        assert "No device has sent a record yet." in shown.text
        box.append(Sent("a", record(AT_US)))
        box.save()
        own_redis.kill()
        found, shown = page(box)
        assert found["status"] == "not ready"
        assert found["reasons"] == found["unknown"]
        assert "cannot reach Redis" in found["reasons"][0]
        assert [found[name] for name in counts] == [None, None, 1, None, 1]
        assert "not ready" in shown.text
        assert "Records saved 1 " in shown.text
        assert f"Records unsaved {NOTHING} not known" in shown.text
        box.archive.root.rename(box.archive.root.with_name("elsewhere"))
        found, shown = page(box)
        assert (found["archive_version"], found["saved_records"], found["last_commit"]) == (None, 0, None)
        assert "There is no archive yet" in shown.text
        own_redis.start()
        assert facts(box)["devices"] == 1


def test_an_archive_that_cannot_be_read(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("damaged")) as box:
        say_alive(box)
        box.append(Sent("a", record(AT_US)))
        box.save()
        (box.archive.root / "_delta_log" / f"{1:020}.json").write_text("{")
        found, shown = page(box)
        assert (found["status"], found["devices"], found["saved_records"]) == ("not ready", 1, None)
        assert [text for text in found["unknown"] if text.startswith("cannot read the archive: ")] == found["reasons"]
        assert found["reasons"][0] in shown.text
        assert box.http.get("/readyz").json()["reasons"] == found["reasons"]


# Kept answers ----------------------------------------------------------------------------------------


class Slow:
    """Makes numbers, each of which takes `cost_s` of a clock of its own."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.now_s = 0.0
        self.made = 0

    async def make(self) -> int:
        await asyncio.sleep(0)
        self.now_s += self.cost_s
        self.made += 1
        return self.made


def test_an_answer_is_made_once_for_all_who_wait() -> None:
    async def ask() -> list[int]:
        kept = Kept(Slow(1.0).make, lambda: 0.0)
        return await asyncio.gather(*(kept.get() for _ in range(10)))

    assert asyncio.run(ask())[0] == 1


@pytest.mark.parametrize(("cost_s", "kept_s"), [(0.1, 0.1 * KEPT_TIMES), (60.0, LONGEST_KEPT_S)])
def test_an_answer_is_kept_the_longer_the_more_it_cost(cost_s: float, kept_s: float) -> None:
    async def ask() -> None:
        slow = Slow(cost_s)
        kept = Kept(slow.make, lambda: slow.now_s)
        assert await kept.get() == 1
        slow.now_s = cost_s + kept_s - 0.01
        assert await kept.get() == 1
        slow.now_s = cost_s + kept_s + 0.01
        assert await kept.get() == 2

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "ahead of the box's clock"),
        (-0.5, "0 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7_199, "120 min ago"),
        (7_200, "2 h ago"),
        (172_800, "2 days ago"),
    ],
)
def test_ages_in_words(seconds: float, said: str) -> None:
    assert ago(seconds) == said
