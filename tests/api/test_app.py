"""One port serves a device's whole round trip; what is not there is a problem."""

from __future__ import annotations

import pytest

from tests.api.conftest import Box, assert_problem


def test_one_port_serves_the_whole_round_trip(box: Box) -> None:
    first, second = (f"2026-01-24T10:25:{second}.000000Z" for second in ("00", "20"))
    sent = [
        {"device_id": "bus 14", "time": first, "lat": 53.4, "lon": -2.97, "speed": 30, "line": "14"},
        {"device_id": "bus 14", "time": second, "lat": 53.41, "lon": -2.98, "speed": 31, "line": "14"},
    ]
    answer = box.http.post("/v1/records", json=sent)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
    newest = box.http.get("/v1/devices/bus%2014/latest").json()
    assert (newest["timestamp"], newest["speed_kmh"], newest["attributes"]) == (second, 31.0, {"line": "14"})
    for _ in range(2):
        found = box.get("/v1/records", ("device_id", "bus 14"), ("start", "2026-01-24"), ("end", "2026-01-24")).json()
        assert [one["timestamp"] for one in found["records"]] == [first, second]
        assert found["records"][1] == {name: newest[name] for name in found["records"][1]}
        older = box.http.get("/tracking/data/latest/bus%2014/").json()
        assert (older["id"], older["speed"]) == (newest["id"], "31.00")
        box.save()


def test_a_key_makes_a_retry_safe_on_this_port_too(box: Box) -> None:
    for _ in range(2):
        answer = box.http.post("/v1/records", json={"device_id": "retry"}, headers={"Idempotency-Key": "one"})
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert len(box.get("/v1/records", ("device_id", "retry")).json()["records"]) == 1
    other = box.http.post("/v1/records", json={"device_id": "other"}, headers={"Idempotency-Key": "one"})
    assert_problem(other, 422, "idempotency-key-reused")


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/device/a", "/v1/latest/a"])
def test_what_is_not_there_is_a_problem(box: Box, path: str) -> None:
    assert path in str(assert_problem(box.http.get(path), 404, "not-found")["detail"])


@pytest.mark.parametrize("path", ["/v1/devices/a", "/v1/devices//latest"])
def test_a_device_can_be_asked_for_and_deleted_and_nothing_else(box: Box, path: str) -> None:
    answer = box.http.post(path)
    assert_problem(answer, 405, "wrong-method")
    assert set(answer.headers["allow"].split(", ")) == {"DELETE", "GET", "HEAD"}


@pytest.mark.parametrize("path", ["/v2/latest", "/static/nothing.css", "/%3Cscript%3E"])
def test_elsewhere_it_is_a_page_but_to_programs_that_accept_json(box: Box, path: str) -> None:
    found = box.http.get(path)
    assert found.status_code == 404
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in found.text
    assert_problem(box.http.get(path, headers={"Accept": "application/json"}), 404, "not-found")


@pytest.mark.parametrize("path", ["/v1/latest", "/v1/devices/a/latest", "/healthz", "/readyz"])
def test_what_can_only_be_read_is_not_written(box: Box, path: str) -> None:
    answer = box.http.put(path)
    assert_problem(answer, 405, "wrong-method")
    assert {"GET", "HEAD"} <= {name.strip() for name in answer.headers["allow"].split(",")}


def test_a_wrong_method_is_told_all_that_are_right(box: Box) -> None:
    answer = box.http.delete("/v1/records")
    assert_problem(answer, 405, "wrong-method")
    assert answer.headers["allow"] == "GET, HEAD, POST"
