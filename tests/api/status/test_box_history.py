"""`/v1/box` of a running API: the same numbers as `/metrics`, for the last hour, also after a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Box, box_on
from tests.conftest import RedisServer
from tests.scrape import Scrape

pytestmark = pytest.mark.slow

SAMPLED_S = 40.0


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("box"), redis__shards="2") as found:
        yield found


def ask(box: Box) -> Any:
    answer = box.http.get("/v1/box")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def until_samples(box: Box, count: int) -> Any:
    deadline = time.monotonic() + SAMPLED_S
    while len((found := ask(box))["times"]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def test_the_numbers_are_those_of_metrics(box: Box) -> None:
    before = len(until_samples(box, 1)["times"])
    for number in range(7):
        assert box.http.post("/v1/records", json=[{"device_id": f"d{number}-{at}"} for at in range(3)]).is_success
    assert box.http.post("/v1/records", content=b"{").status_code == 400
    mixed = [{"device_id": "d0-0"}, {"device_id": "d0-0", "latitude": 99}]
    assert box.http.post("/v1/records?on_error=skip", json=mixed).json()["accepted"] == 1
    found = until_samples(box, before + 2)
    series = found["series"]
    assert {len(values) for values in series.values()} == {len(found["times"])}
    assert sum(series["accepted_per_s"]) * found["interval_s"] == pytest.approx(22, rel=0.1)
    assert series["unsaved_records"][-1] == 22
    acks_ms = list(zip(filter(None, series["ack_p50_ms"]), filter(None, series["ack_p99_ms"]), strict=True))
    assert acks_ms
    assert all(0 < p50_ms <= p99_ms < 15_000 for p50_ms, p99_ms in acks_ms)

    page = Scrape.of(box.http.get("/metrics").text)
    bounded = {one["name"]: one for one in found["bounded"]}
    assert bounded["devices"]["value"] == sum(page["whimbrel_devices"].values()) == 21
    assert bounded["devices"]["limit"] == sum(page["whimbrel_devices_limit"].values())
    assert bounded["disk_used_bytes"]["whole"] == page.value("whimbrel_disk_bytes")
    assert bounded["quarantine_bytes"]["limit"] == sum(page["whimbrel_quarantine_limit_bytes"].values())
    json = next(one for one in found["decoders"] if one["protocol"] == "json")
    assert json["records"] == page.value("whimbrel_decoded_records_total", protocol="json", transport="http")
    assert json["last_hour_records"] == json["records"] == 22
    assert json["rejected"] == 1
    assert found["refused"].items() >= {"invalid-json": 1, "invalid-record": 1}.items()
    assert {one["program"] for one in found["programs"]} == {"api", "query"}
    assert all(one["is_up"] and one["memory_bytes"] > 0 for one in found["programs"])
    assert found["uptime_s"] > 10
    assert found["quarantine"] == {"quarantined": 0, "dropped": 0, "replayed": 0, "size_bytes": 0}


def test_after_a_start_the_hour_is_there_again(
    box: Box, own_redis: RedisServer, tmp_path: Path, shared_redis: RedisServer
) -> None:
    before = until_samples(box, 1)
    with box_on(own_redis.url, tmp_path) as other:
        assert ask(other)["times"] == []
        with own_redis.client() as theirs, shared_redis.client() as ours:
            theirs.rpush("whimbrel:box", *ours.lrange("whimbrel:box", 0, -1))
        found = until_samples(other, len(before["times"]))
        assert found["times"][: len(before["times"])] == before["times"]
