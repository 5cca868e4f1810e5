"""`/metrics`: the metrics of each program and of Redis, in Prometheus's format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from telemetry.model.record import Sent
from tests.api.conftest import Box, box_on, record
from tests.conftest import RedisServer
from tests.scrape import Scrape, families

SHARDS = 2
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
WAIT_S = 20.0


def scrape(box: Box) -> Scrape:
    answer = box.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape.of(answer.text)


def until(box: Box, name: str, expected: float, **labels: str) -> Scrape:
    stop_s = time.monotonic() + WAIT_S
    while True:
        found = scrape(box)
        if found.value(name, **labels) == expected:
            return found
        assert time.monotonic() < stop_s, (name, labels, found.get(name))
        time.sleep(0.1)


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box of several shards."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("metrics"), redis__shards=str(SHARDS)) as found:
        yield found


def test_what_was_sent_adds_up(box: Box) -> None:
    before = scrape(box)
    for number in range(7):
        body = [{"device_id": f"d{number}-{at}"} for at in range(number + 1)]
        assert box.http.post("/v1/records", json=body).status_code == 202
    assert box.http.post("/v1/records", content=b"{").status_code == 400
    found = until(box, "whimbrel_refused_total", 1, reason="invalid-json")
    for name, labels, more in (
        ("whimbrel_records_accepted_total", {"program": "api"}, 28),
        ("whimbrel_http_answers_total", {"route": "/v1/records", "status": "2xx", "program": "api"}, 7),
        ("whimbrel_http_answers_total", {"route": "/v1/records", "status": "4xx", "program": "api"}, 1),
    ):
        assert found.value(name, **labels) - before.or_0(name, **labels) == more
    assert sum(found["whimbrel_unsaved_records"].values()) == 28
    assert sum(found["whimbrel_devices"].values()) == 28
    assert len(found["whimbrel_devices"]) == SHARDS


def test_what_is_saved_is_seen_in_the_archive(box: Box) -> None:
    at_us = time.time_ns() // 1_000
    box.append(*(Sent(f"s{at}", record(at_us)) for at in range(5)))
    assert scrape(box).value("whimbrel_unsaved_age_seconds", shard="0") > 0
    box.save()
    found = scrape(box)
    assert set(found["whimbrel_unsaved_records"].values()) == {0}
    assert found.value("whimbrel_unsaved_age_seconds", shard="0") == 0
    assert [found.value("whimbrel_saves_total", shard=str(shard)) for shard in range(SHARDS)] == [1, 1]
    stop_s = time.monotonic() + WAIT_S
    while scrape(box).value("whimbrel_archive_open_day_files") != SHARDS:
        assert time.monotonic() < stop_s
        time.sleep(0.2)
    assert scrape(box).value("whimbrel_archive_records") >= 5


def test_posts_are_counted_by_their_protocol(box: Box) -> None:
    before = scrape(box)
    assert box.http.get("/osmand?id=o1&lat=1&lon=2&timestamp=1795500000").status_code == 200
    assert box.http.get("/osmand?lat=1&lon=2").status_code == 400
    assert box.http.post("/v1/records?on_error=skip", json=[{"device_id": "p"}, {"lat": 1}]).status_code == 202
    found = scrape(box)
    for name, more, labels in (
        ("whimbrel_messages_total", 1, {"protocol": "osmand"}),
        ("whimbrel_decoded_records_total", 1, {"protocol": "osmand"}),
        ("whimbrel_rejected_messages_total", 1, {"protocol": "osmand", "reason": "invalid-record"}),
        ("whimbrel_decoded_records_total", 1, {"protocol": "json"}),
        ("whimbrel_rejected_messages_total", 1, {"protocol": "json", "reason": "invalid-record"}),
    ):
        assert found.or_0(name, transport="http", **labels) - before.or_0(name, transport="http", **labels) == more


def test_limits_stand_beside_what_they_limit(box: Box) -> None:
    found = until(box, "whimbrel_query_memory_limit_bytes", 192 * 2**20)
    gauges = {family.name for family in families(box.http.get("/metrics").text) if family.type == "gauge"}
    limits = {name for name in gauges if "_limit" in name}
    assert len(limits) > 12
    for name in limits - {"whimbrel_alert_pending_limit_events", "whimbrel_forward_behind_limit_bytes"}:
        assert name.replace("_limit", "") in gauges, name
    assert found.value("whimbrel_http_connections_limit", port=str(box.port)) == 4_000
    assert found.value("whimbrel_http_connections", port=str(box.port)) >= 1


@pytest.mark.parametrize("path", ["/v1/devices/d0-0/latest", "/v1/records?limit=1"])
def test_a_request_keeps_its_name_through_both_programs(box: Box, path: str) -> None:
    named = box.http.get(path, headers={"X-Request-Id": "trace-7"})
    assert named.headers.get_list("x-request-id") == ["trace-7"]
    [made] = box.http.get(path).headers.get_list("x-request-id")
    assert len(made) == 16


def test_routes_have_few_names(box: Box) -> None:
    for path in (
        "/v1/devices/d0-0/latest",
        "/v1/devices/never%2Fseen/latest",
        "/v1/latest",
        "/v1/records",
        "/nothing",
    ):
        box.http.get(path)
    device = until(
        box,
        "whimbrel_http_answers_total",
        1,
        route="/v1/devices/{device_id}/latest",
        status="4xx",
        program="api",
    )
    found = until(box, "whimbrel_http_answers_total", 1, route="other", status="4xx", program="query")
    assert "never" not in str(device) + str(found)
    assert found.value("whimbrel_http_request_duration_seconds_count", route="/v1/latest", program="api") == 1


def test_both_forms_are_read_by_their_parsers_and_say_the_same(box: Box) -> None:
    answer = box.http.get("/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    found = {family.name: family for family in openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    ack = found["whimbrel_ack_duration_seconds"]
    assert ack.type == "histogram"
    buckets = [sample.value for sample in ack.samples if sample.name.endswith("_bucket")]
    counts = [sample.value for sample in ack.samples if sample.name.endswith("_count")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == counts[0] > 0
    names = {family.name for family in families(box.http.get("/metrics").text)}
    assert names == set(found)


def test_every_family_says_what_it_is(box: Box) -> None:
    for family in families(box.http.get("/metrics").text):
        assert family.name.startswith("whimbrel_")
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")


def test_who_is_not_there_is_down(box: Box) -> None:
    found = until(box, "whimbrel_up", 1, program="query")
    assert found.value("whimbrel_up", program="api", process="0") == 1
    for program in ("collector", "worker", "scheduler"):
        assert found.value("whimbrel_up", program=program) == 0
    assert found.value("whimbrel_build_info", program="api") == 1
    assert found.value("whimbrel_redis_up") == 1


def test_without_redis_the_page_comes_at_once_with_what_is_known(own_redis: RedisServer, tmp_path: Path) -> None:
    with box_on(own_redis.url, tmp_path) as box:
        assert box.http.post("/v1/records", json={"device_id": "d"}).status_code == 202
        until(box, "whimbrel_up", 1, program="query")
        own_redis.kill()
        begun_s = time.monotonic()
        found = scrape(box)
        assert time.monotonic() - begun_s < 5, "on a busy machine; else some ms"
        assert found.value("whimbrel_redis_up") == 0
        assert found.value("whimbrel_records_accepted_total", program="api") == 1
        assert found.value("whimbrel_disk_free_bytes") > 0
        assert "whimbrel_unsaved_records" not in found
        found = until(box, "whimbrel_up", 0, program="query")
        # a count stays so
        assert found.value("whimbrel_http_answers_total", program="query", route="/v1/records", status="4xx") >= 1
        assert "whimbrel_ready" not in found, "what was so is not known now"
        own_redis.start()
        found = until(box, "whimbrel_up", 1, program="query")
        assert found.value("whimbrel_redis_up") == 1
