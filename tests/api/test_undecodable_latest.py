"""A latest in Redis that cannot be decoded costs only itself, over each address that shows latest, and is counted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import httpx
import pytest

from api.latest.latest_texts import LARGE_BYTES
from telemetry.hot_store.keys import Keys
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.conftest import RedisServer

AT_US = 1_769_250_300_000_000
WAIT_S = 20.0
BROKEN = {
    "b no msgpack": b"no msgpack",
    "c no record": b"\x94\xc0\xc0\xc0\xcf" + bytes(8),
    "d beyond the calendar": b"\x94\xc0\xc0\xc0\xcf\x7f" + b"\xff" * 7,
    "e large": b"no msgpack" * LARGE_BYTES,
}


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("undecodable")) as found:
        found.append(Sent("a", record(AT_US)), Sent("f", record(AT_US)))
        keys = Keys(0)
        for device, value in BROKEN.items():
            found.client.hset(keys.latest, device, value)
            found.client.zadd(keys.devices, {device: 0})
        yield found


def skipped(box: Box) -> float:
    """How many values have been counted by all programs; they report each second."""
    text = box.http.get("/metrics").text
    lines = re.findall(r'^whimbrel_undecodable_values_total\{[^}]*kind="latest"[^}]*\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, lines))


@pytest.mark.parametrize(
    "path",
    ["/v1/latest", "/v1/latest?limit=1", "/v1/latest?bbox=-10,-10,10,10", "/v1/devices", "/v1/devices?limit=1"],
)
def test_pages_have_all_other_devices(box: Box, path: str) -> None:
    before, found, cursor = skipped(box), list[str](), ""
    while cursor is not None:
        answer = box.http.get(httpx.URL(path).copy_merge_params({"cursor": cursor}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [one["device_id"] for one in page.get("records", page.get("devices"))]
        cursor = page["next_cursor"]
    assert found == ["a", "f"]
    stop_s = time.monotonic() + WAIT_S
    while skipped(box) < before + len(BROKEN):
        assert time.monotonic() < stop_s
        time.sleep(0.1)


def test_a_table_has_all_other_devices(box: Box) -> None:
    answer = box.http.get("/v1/latest?format=csv")
    assert answer.status_code == 200, answer.text
    assert [line.partition(",")[0] for line in answer.text.splitlines()[1:]] == ["a", "f"]


@pytest.mark.parametrize("device", BROKEN)
def test_a_question_about_that_device_alone_is_answered_with_a_problem(box: Box, device: str) -> None:
    problem = assert_problem(box.http.get(f"/v1/devices/{device}/latest"), 500, "internal")
    assert device in str(problem["detail"])
    by_application = box.http.head(f"/v1/devices/{device}/latest")
    assert by_application.status_code == 500


def test_the_older_address_says_so_too(box: Box) -> None:
    answer = box.http.get("/tracking/data/latest/b%20no%20msgpack/", headers={"Accept": "application/json"})
    assert answer.status_code == 500
    assert "cannot decode the latest record" in answer.json()["detail"]


def test_the_status_shows_all_other_devices_whole(box: Box) -> None:
    answer = box.http.get("/status", headers={"Accept": "application/json"})
    assert answer.status_code == 200
    assert {one["device_id"] for one in answer.json()["newest_devices"]} >= {"a", "f"}
    assert all(one["device_id"] in ("a", "f") or one["timestamp"] is None for one in answer.json()["newest_devices"])
