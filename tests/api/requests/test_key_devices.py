"""Readers whose key is bound to devices: they see these, in archive and tail, as if there were no others."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from telemetry.coordination import shared_state
from telemetry.model import api_keys
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.conftest import RedisServer

AT_US = 1_769_250_300_000_000
WAIT_S = 20.0
DEVICES = ("bus-1", "van", "van-", "van-1", "van-1/x", "van-2", "van-é", "van.", "vao", "wan-1")
VANS = sorted((name for name in DEVICES if name.startswith("van-")), key=str.encode)


class Readers:
    """A box and a reader of each kind."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.vans = box.make_key("read", prefix="van-")
        self.two = box.make_key("read", devices=("van-1", "bus-1"))
        self.one = api_keys.device_token(box.make_key("read", "ingest", is_fleet=True), "van-2")
        self.nothing = box.make_key("read", prefix="nowhere'; DROP")

    def get(self, key: str, path: str, **params: str | int | list[str]) -> httpx.Response:
        return self.box.http.get(path, params=params, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture(scope="module", params=["1", "3"], ids=["one shard", "three shards"])
def readers(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Readers]:
    more = {"redis__shards": request.param, "auth__required": "true", "limits__address_wrong_keys_per_min": "0"}
    with box_on(shared_redis.url, tmp_path_factory.mktemp("bound"), **more) as box:
        box.append(*(Sent(name, record(AT_US + place, speed_kmh=50.0)) for place, name in enumerate(DEVICES)))
        box.save()
        box.append(*(Sent(name, record(AT_US + 100 + place)) for place, name in enumerate(DEVICES)))
        found = Readers(box)
        for path in ("/v1/latest", "/v1/records"):  # until the API and the query program know the newest key
            while found.get(found.nothing, path).status_code == 401:
                time.sleep(0.05)
        yield found


def seen(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return sorted((one["device_id"] for one in answer.json()["records"]), key=str.encode)


def test_latest(readers: Readers) -> None:
    assert seen(readers.get(readers.vans, "/v1/latest")) == VANS
    assert seen(readers.get(readers.two, "/v1/latest")) == ["bus-1", "van-1"]
    assert seen(readers.get(readers.one, "/v1/latest")) == ["van-2"]
    assert seen(readers.get(readers.nothing, "/v1/latest")) == []
    assert seen(readers.get(readers.vans, "/v1/latest", device_id="van-1")) == ["van-1"]
    for name in ("bus-1", "nobody"):  # whether there is such a device is nobody's business
        assert_problem(readers.get(readers.vans, "/v1/latest", device_id=["van-1", name]), 403, "other-device")
        assert_problem(readers.get(readers.vans, f"/v1/devices/{name}/latest"), 403, "other-device")
        assert_problem(readers.get(readers.vans, f"/v1/devices/{name}/latest", x=1), 400, "invalid-parameter")
    assert readers.get(readers.vans, "/v1/devices/van-1/latest").json()["device_id"] == "van-1"
    assert_problem(readers.get(readers.vans, "/v1/devices/van-9/latest"), 404, "unknown-device")


@pytest.mark.parametrize(
    "asked", [{"format": "ndjson"}, {"at": "2026-01-25"}, {"bbox": "1,0,3,2"}, {"bbox": "1,0,3,2", "at": "2026-01-25"}]
)
def test_latest_of_the_query_program(readers: Readers, asked: dict[str, str]) -> None:
    def found(key: str) -> list[str]:
        text = readers.get(key, "/v1/latest", **asked).text
        return [name for name in sorted(DEVICES, key=str.encode) if f'"device_id":"{name}"' in text]

    assert found(readers.vans) == VANS
    assert found(readers.two) == ["bus-1", "van-1"]
    assert found(readers.one) == ["van-2"]
    assert found(readers.nothing) == []
    assert_problem(readers.get(readers.vans, "/v1/latest", device_id="bus-1", **asked), 403, "other-device")


def test_records_of_an_area(readers: Readers) -> None:
    assert seen(readers.get(readers.vans, "/v1/records", bbox="1,0,3,2")) == sorted(VANS * 2, key=str.encode)
    assert seen(readers.get(readers.one, "/v1/records", bbox="1,0,3,2")) == ["van-2"] * 2


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_of_latest(readers: Readers, limit: int) -> None:
    for key, wanted in ((readers.vans, VANS), (readers.two, ["bus-1", "van-1"])):
        found: list[str] = []
        cursor = ""
        while True:
            answer = readers.get(key, "/v1/latest", limit=limit, cursor=cursor)
            found += [one["device_id"] for one in answer.json()["records"]]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                break
        assert found == wanted
    for cursor in ("a", "van-1", "vao", "zzz"):
        behind = [name for name in VANS if name > cursor]
        assert seen(readers.get(readers.vans, "/v1/latest", cursor=cursor)) == behind


def test_records(readers: Readers) -> None:
    assert seen(readers.get(readers.vans, "/v1/records")) == sorted(VANS * 2, key=str.encode)
    assert seen(readers.get(readers.two, "/v1/records")) == ["bus-1"] * 2 + ["van-1"] * 2
    assert seen(readers.get(readers.one, "/v1/records")) == ["van-2"] * 2
    assert seen(readers.get(readers.nothing, "/v1/records")) == []
    assert seen(readers.get(readers.vans, "/v1/records", device_id="van-1")) == ["van-1"] * 2
    assert_problem(readers.get(readers.vans, "/v1/records", device_id="bus-1"), 403, "other-device")
    page = readers.get(readers.vans, "/v1/records", limit=3, order="desc").json()
    more = readers.get(readers.vans, "/v1/records", limit=100, order="desc", cursor=page["next_cursor"])
    assert len(page["records"]) + len(more.json()["records"]) == 2 * len(VANS)


def test_exports(readers: Readers) -> None:
    def exported(key: str) -> set[str]:
        answer = readers.get(key, "/v1/export", format="ndjson")
        return {line.partition(b'"device_id":"')[2].partition(b'"')[0].decode() for line in answer.content.splitlines()}

    assert exported(readers.vans) == set(VANS)
    assert exported(readers.two) == {"bus-1", "van-1"}
    assert exported(readers.one) == {"van-2"}
    assert_problem(readers.get(readers.one, "/v1/export", device_id="van-1"), 403, "other-device")


def test_summaries(readers: Readers) -> None:
    def summed(key: str) -> dict[str, int]:
        answer = readers.get(key, "/v1/summary", fields="count")
        return {one["device_id"]: one["count"] for one in answer.json()["summaries"]}

    assert summed(readers.vans) == dict.fromkeys(VANS, 2)
    assert summed(readers.two) == {"bus-1": 2, "van-1": 2}
    assert summed(readers.nothing) == {}
    assert_problem(readers.get(readers.one, "/v1/summary", device_id="van-1"), 403, "other-device")


def test_trips_and_stops(readers: Readers) -> None:
    for path in ("/v1/trips", "/v1/stops"):
        assert readers.get(readers.vans, path).status_code == 200
        assert_problem(readers.get(readers.vans, path, device_id="bus-1"), 403, "other-device")


def test_older_addresses(readers: Readers) -> None:
    path = "/tracking/data/list/"
    page = readers.get(readers.one, path).json()
    assert page["count"] == 2
    assert {one["device_id"] for one in page["results"]} == {"van-2"}
    assert readers.get(readers.vans, path, device_id="van-1").json()["count"] == 2
    for key, params in ((readers.vans, {}), (readers.two, {}), (readers.vans, {"device_id": "bus-1"})):
        answer = readers.get(key, path, **params)
        assert answer.status_code == 403
        assert "this key is for" in answer.json()["detail"]
    assert readers.get(readers.vans, "/tracking/data/latest/van-1/").status_code == 200
    assert readers.get(readers.vans, "/tracking/data/latest/bus-1/").status_code == 403
    assert readers.get(readers.vans, "/tracking/data/latest/nobody/").status_code == 403


def test_what_is_of_the_whole_box_is_not_for_them(readers: Readers) -> None:
    for path in ("/status", "/metrics", "/v1/anything"):
        assert_problem(readers.get(readers.vans, path), 403, "wrong-scope")


def test_refusals_of_the_most_frequent_question_are_counted(readers: Readers) -> None:
    def answered() -> float:
        route = 'route="/v1/devices/{device_id}/latest"'
        lines = readers.box.http.get("/metrics").text.splitlines()
        found = (
            one for one in lines if one.startswith("whimbrel_http_answers_total{") and route in one and '"4xx"' in one
        )
        return sum(float(one.rpartition(" ")[2]) for one in found)

    before, answered_before = shared_state.refused(readers.box.client).get("other-device", 0), answered()
    for _ in range(3):
        assert_problem(readers.get(readers.vans, "/v1/devices/bus-1/latest"), 403, "other-device")
    stop_s = time.monotonic() + WAIT_S
    while (
        shared_state.refused(readers.box.client).get("other-device", 0) < before + 3 or answered() < answered_before + 3
    ):
        assert time.monotonic() < stop_s
        time.sleep(0.05)


def test_others_see_all(readers: Readers) -> None:
    assert len(seen(readers.box.http.get("/v1/latest"))) == len(DEVICES)
    assert len(seen(readers.box.http.get("/v1/records"))) == 2 * len(DEVICES)


def test_writing_and_reading_back_over_one_port(readers: Readers) -> None:
    def post(device_id: str, path: str = "/v1/records") -> httpx.Response:
        value = {"device_id": device_id, "timestamp": "2026-01-24T10:26:00Z", "location": "1.5,2.5"}
        value |= {"altitude": "7", "speed": "5", "heading": "1", "acc": "1"}
        return readers.box.http.post(path, json=value, headers={"Authorization": f"Bearer {readers.one}"})

    for path in ("/v1/records", "/tracking/data/"):
        assert post("van-3", path).status_code == 403
        assert post("van-2", path).status_code == 202
    assert_problem(post("van-3"), 403, "other-device")
    latest = readers.get(readers.one, "/v1/devices/van-2/latest").json()
    assert latest["timestamp"] == "2026-01-24T10:26:00.000000Z"


@pytest.mark.parametrize(
    ("path", "asked"), [("devices", {}), ("trips", {"min_trip_m": 0}), ("stops", {"min_stop_s": 0})]
)
def test_devices_trips_and_stops(readers: Readers, path: str, asked: dict[str, int]) -> None:
    def found(key: str) -> list[str]:
        answer = readers.get(key, f"/v1/{path}", **asked)
        assert answer.status_code == 200, answer.text
        return sorted({one["device_id"] for one in answer.json()[path]}, key=str.encode)

    of_all = {name: found(key) for name, key in (("vans", readers.vans), ("two", readers.two), ("one", readers.one))}
    assert set(of_all["vans"]) <= set(VANS)
    assert set(of_all["two"]) <= {"bus-1", "van-1"}
    assert set(of_all["one"]) <= {"van-2"}
    if path == "devices":
        assert of_all == {"vans": VANS, "two": ["bus-1", "van-1"], "one": ["van-2"]}
    assert_problem(readers.get(readers.vans, f"/v1/{path}", device_id="bus-1"), 403, "other-device")


def test_live(readers: Readers) -> None:
    headers = {"Authorization": f"Bearer {readers.vans}"}
    with readers.box.http.stream("GET", "/v1/live", headers=headers) as answer:
        text = next(line for line in answer.iter_lines() if line.startswith("data: "))
    assert [name for name in sorted(DEVICES, key=str.encode) if f'"device_id":"{name}"' in text] == VANS
    assert_problem(readers.get(readers.vans, "/v1/live", device_id="bus-1"), 403, "other-device")
