"""A page that shows few of many devices looks through a bounded number of them, many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from api.latest.routes import MAX_SCAN_DEVICES, SCAN_STEP_DEVICES
from telemetry.hot_store.keys import Keys
from telemetry.model.record import Sent
from tests.api.conftest import Box, box_on, record
from tests.conftest import RedisServer

AT_US = 1_769_250_300_000_000
COUNT = MAX_SCAN_DEVICES + 5_000


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Devices that are online at one place, and after them one elsewhere."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("scanning")) as found:
        found.append(Sent("a", record(AT_US)), Sent("z", record(AT_US, latitude=50.0)))
        keys = Keys(0)
        latest = found.client.hget(keys.latest, "a")
        devices = iter([f"b{number:06}" for number in range(COUNT)])
        while some := list(islice(devices, 1_000)):
            found.client.hset(keys.latest, mapping=dict.fromkeys(some, latest))  # type: ignore[arg-type]
            found.client.zadd(keys.devices, dict.fromkeys(some, 0))
        yield found


def lists_read(box: Box) -> int:
    """How often Redis was asked for ids of devices."""
    return int(box.client.info("commandstats").get("cmdstat_zrangebylex", {}).get("calls", 0))


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/v1/devices", ("state", "offline"), []),
        ("/v1/latest", ("bbox", "0,49,10,51"), ["z"]),
    ],
)
def test_a_page_that_finds_little_ends_and_goes_on(
    box: Box, path: str, query: tuple[str, str], expected: list[str]
) -> None:
    before, found, cursor, count = lists_read(box), list[str](), "", 0
    while cursor is not None:
        answer = box.get(path, ("limit", 1), query, *([("cursor", cursor)] if cursor else []))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [one["device_id"] for one in page.get("records", page.get("devices"))]
        cursor, count = page["next_cursor"], count + 1
    assert found == expected
    assert count in (2, 3)
    assert lists_read(box) - before <= COUNT / SCAN_STEP_DEVICES + 8 * count


def test_a_page_that_finds_enough_looks_no_further(box: Box) -> None:
    before = lists_read(box)
    page = box.get("/v1/devices", ("limit", 1), ("state", "online"), ("silent_after_s", 86_400)).json()
    assert [one["device_id"] for one in page["devices"]] == ["a"]
    assert page["next_cursor"] == "a"
    assert lists_read(box) - before <= 2
