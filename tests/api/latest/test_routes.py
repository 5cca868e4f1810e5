"""The newest record of devices over HTTP: one device, named devices, and all in pages; on one shard and on three."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
import pytest

from telemetry.coordination import rejection_counts, shared_state
from telemetry.model.record import Record, Sent
from tests.api.conftest import Box, assert_problem, box_on, record, segment
from tests.conftest import RedisServer

AT_US = 1_769_250_300_000_000
AT = "2026-01-24T10:25:00.000000Z"
WAIT_S = 20.0
NAMES = [
    "device_id",
    "timestamp",
    "received_at",
    "id",
    "transport",
    "source",
    "latitude",
    "longitude",
    "altitude_m",
    "speed_kmh",
    "heading_deg",
    "accuracy_m",
    "location",
    "attributes",
    "last_seen",
    "position",
]


@pytest.fixture(scope="module", params=["1", "3"], ids=["one shard", "three shards"])
def box(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("latest"), redis__shards=request.param) as found:
        yield found


def latest(box: Box, device_id: str) -> httpx.Response:
    return box.http.get(f"/v1/devices/{segment(device_id)}/latest")


def record_of(number: int) -> Record:
    return record(AT_US + number)


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z" if "." in text else "%Y-%m-%dT%H:%M:%S%z")


def until(is_so: Callable[[], bool]) -> None:
    stop_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < stop_s
        time.sleep(0.05)


def wait_for_another_ms(box: Box, received_ms: int) -> None:
    while True:
        seconds, microseconds = box.client.time()
        if seconds * 1_000 + microseconds // 1_000 > received_ms:
            return


# One device ------------------------------------------------------------------------------------------


def test_a_sent_record_is_the_latest_immediately_with_every_field(box: Box) -> None:
    sent = {
        "device_id": "every field",
        "timestamp": "2026-01-24T10:25:00.5Z",
        "lat": 36.5,
        "lon": "30.25",
        "alt": 12,
        "speed": 60,
        "heading": 359.5,
        "accuracy": 3,
        "location": "Antalya, ü 😀",
        "fuel": 7,
        "attributes": {"big": 2**200, "io239": True},
    }
    before = datetime.now(UTC).replace(microsecond=0)
    assert box.http.post("/v1/records", json=sent).status_code == 202
    answer = latest(box, "every field")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found) == NAMES
    position = found.pop("position")
    assert list(position) == NAMES[:-2]
    assert position == {name: found[name] for name in NAMES[:-2]}
    received_at, last_seen, record_id = (found.pop(name) for name in ("received_at", "last_seen", "id"))
    assert received_at == last_seen
    assert before <= moment(received_at) <= datetime.now(UTC)
    assert isinstance(record_id, int)
    assert 1 <= record_id < 2**53
    assert found == {
        "device_id": "every field",
        "timestamp": "2026-01-24T10:25:00.500000Z",
        "transport": "http",
        "source": "json",
        "latitude": 36.5,
        "longitude": 30.25,
        "altitude_m": 12.0,
        "speed_kmh": 60.0,
        "heading_deg": 359.5,
        "accuracy_m": 3.0,
        "location": "Antalya, ü 😀",
        "attributes": {"big": 2**200, "io239": True, "fuel": 7},
    }
    assert "ü 😀" in answer.text, "text is not escaped"


def test_missing_fields_are_null(box: Box) -> None:
    [stored] = box.append(Sent("bare", record(AT_US, "tcp", fix=False)))
    found = latest(box, "bare").json()
    assert list(found) == NAMES
    assert found["id"] == stored.id
    assert found["transport"] == "tcp"
    assert {name for name, value in found.items() if value is None} == {
        *("latitude", "longitude", "altitude_m", "speed_kmh", "heading_deg", "accuracy_m", "location"),
        *("attributes", "position"),
    }


@pytest.mark.parametrize(
    ("timestamp_us", "shown"),
    [
        (AT_US, AT),
        (AT_US + 1, "2026-01-24T10:25:00.000001Z"),
        (AT_US + 500_000, "2026-01-24T10:25:00.500000Z"),
        (946_684_800_000_000, "2000-01-01T00:00:00.000000Z"),
        (7_258_118_399_999_999, "2199-12-31T23:59:59.999999Z"),
    ],
)
def test_times_always_have_six_digits_of_fraction(box: Box, timestamp_us: int, shown: str) -> None:
    device = f"time {timestamp_us}"
    [stored] = box.append(Sent(device, record(timestamp_us)))
    answer = latest(box, device)
    assert f'"timestamp":"{shown}"' in answer.text
    seconds, ms = divmod(stored.received_ms, 1_000)
    arrival = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms:03}000Z"
    assert f'"received_at":"{arrival}"' in answer.text
    assert f'"last_seen":"{arrival}"' in answer.text


@pytest.mark.parametrize(
    "device_id",
    [
        *("a/b", "/", "/a/", "a//b", "x/latest", "latest", "100%", "%2F", "%", "a b", "1+1", "a?b=c#d&e;f"),
        *("ü", "😀", "e\u0301", "a\\b", "o'brien", 'quo"te', "..", "a\nb", "tab\t", "a\u2028b", "{x}", "x" * 255),
        "😀" * 255,
    ],
)
def test_any_id_works_percent_encoded(box: Box, device_id: str) -> None:
    sent = box.http.post("/v1/records", json={"device_id": device_id, "speed": 1})
    assert sent.status_code == 202, sent.text
    answer = latest(box, device_id)
    assert answer.status_code == 200, answer.text
    assert answer.json()["device_id"] == device_id
    assert box.get("/v1/latest", ("device_id", device_id)).json()["records"] == [answer.json()]


def test_the_position_is_kept_after_a_record_without_a_fix(box: Box) -> None:
    [fixed] = box.append(Sent("fix", record(AT_US, latitude=3.5, longitude=-4.5)))
    assert latest(box, "fix").json()["position"]["id"] == fixed.id
    [newest] = box.append(Sent("fix", record(AT_US + 1, "tcp", fix=False, speed_kmh=9.0)))
    found = latest(box, "fix").json()
    assert (found["id"], found["latitude"], found["speed_kmh"]) == (newest.id, None, 9.0)
    position = found["position"]
    assert (position["id"], position["latitude"], position["longitude"]) == (fixed.id, 3.5, -4.5)
    assert position["timestamp"] == AT
    [fixed] = box.append(Sent("fix", record(AT_US + 2, "tcp")))
    found = latest(box, "fix").json()
    assert found["id"] == found["position"]["id"] == fixed.id


def test_a_late_record_changes_only_last_seen(box: Box) -> None:
    [newest] = box.append(Sent("late", record(AT_US)))
    wait_for_another_ms(box, newest.received_ms)
    [late] = box.append(Sent("late", record(AT_US - 1)))
    found = latest(box, "late").json()
    assert (found["id"], found["position"]["id"]) == (newest.id, newest.id)
    assert moment(found["last_seen"]).timestamp() == late.received_ms / 1_000
    assert moment(found["received_at"]).timestamp() == newest.received_ms / 1_000


def test_latest_is_still_there_after_a_save(box: Box) -> None:
    box.append(Sent("saved", record(AT_US)))
    before = latest(box, "saved").json()
    box.save()
    assert latest(box, "saved").json() == before


def test_an_unknown_device_is_a_problem_that_names_it(box: Box) -> None:
    found = assert_problem(latest(box, "nö/body"), 404, "unknown-device")
    assert "nö/body" in str(found["detail"])


def test_head_is_get_without_a_body(box: Box) -> None:
    box.append(Sent("head", record(AT_US)))
    path = "/v1/devices/head/latest"
    got, headed = box.http.get(path), box.http.head(path)
    assert headed.status_code == 200
    assert headed.content == b""
    for name in ("content-type", "content-length"):
        assert headed.headers[name] == got.headers[name]
    assert box.http.head("/v1/devices/nobody/latest").status_code == 404
    assert box.http.head("/v1/latest").status_code == 200


def test_an_unknown_parameter_is_rejected_by_name(box: Box) -> None:
    found = assert_problem(box.get("/v1/devices/head/latest", ("devise", 1)), 400, "invalid-parameter")
    assert found["parameter"] == "devise"
    found = assert_problem(box.get("/v1/latest", ("start", 1)), 400, "invalid-parameter")
    assert found["parameter"] == "start"
    assert "device_id, limit, cursor" in str(found["detail"])


def test_large_records_are_shown_whole_alone_and_among_others(box: Box) -> None:
    """A page of them is streamed."""
    for number in range(8):
        record = {"device_id": f"large {number}", "latitude": number, "longitude": 1, "text": "ü" * 150_000}
        assert box.http.post("/v1/records", json=record).status_code == 202
        box.append(Sent(f"large {number} small", record_of(number)))
    names = sorted([f"large {number}{end}" for number in range(8) for end in ("", " small")])
    page = box.get("/v1/latest", *(("device_id", name) for name in names)).json()
    assert [one["device_id"] for one in page["records"]] == names
    assert page["next_cursor"] is None
    for one in page["records"]:
        assert one == latest(box, one["device_id"]).json()
    part = box.get("/v1/latest", ("limit", 12), *(("device_id", name) for name in names)).json()
    assert part == {"records": page["records"][:12], "next_cursor": names[11]}
    assert box.http.head("/v1/latest").status_code == 200
    as_is = {"Accept-Encoding": "identity"}
    assert box.http.head("/v1/devices/large 1/latest", headers=as_is).headers["content-length"]


# All, and those named --------------------------------------------------------------------------------


def known(box: Box) -> list[str]:
    """All devices, in the order of their ids' bytes."""
    found: list[bytes] = []
    for shard in box.shards:
        found += box.client.zrange(shard.keys.devices, 0, -1)  # type: ignore[arg-type]
    return [device.decode() for device in sorted(found)]


def walk(box: Box, limit: int, *more: tuple[str, str]) -> Iterator[list[str]]:
    """Page after page, the ids of each."""
    cursor: tuple[tuple[str, str], ...] = ()
    while True:
        answer = box.get("/v1/latest", ("limit", limit), *cursor, *more)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert list(page) == ["records", "next_cursor"]
        yield [found["device_id"] for found in page["records"]]
        if page["next_cursor"] is None:
            return
        cursor = (("cursor", page["next_cursor"]),)


def test_pages_contain_all_devices_in_the_order_of_their_ids(box: Box) -> None:
    box.append(*(Sent(f"page {name}", record(AT_US)) for name in ("z", "Z", "ü", "😀", "10", "9", "a/b", "\uffee")))
    devices = known(box)
    one_page = box.get("/v1/latest").json()
    assert [found["device_id"] for found in one_page["records"]] == devices
    assert one_page["next_cursor"] is None
    for limit in (1, 3, len(devices) - 1, len(devices)):
        pages = list(walk(box, limit))
        assert [device for page in pages for device in page] == devices
        assert {len(page) for page in pages[:-1]} <= {limit}
        assert len(pages) == -(-len(devices) // limit), "no empty page at the end"
    assert latest(box, "page 9").json() in one_page["records"]


def test_pages_stay_the_same_while_new_devices_arrive(box: Box) -> None:
    box.append(*(Sent(f"stable {n}", record(AT_US)) for n in range(10)))
    before = known(box)
    seen: list[str] = []
    for number, page in enumerate(walk(box, 7)):
        seen += page
        box.append(Sent(f"! before {number}", record(AT_US)), Sent(f"stable {number}+", record(AT_US)))
        box.append(Sent("stable 3", record(AT_US + number)))
    assert len(set(seen)) == len(seen), "none twice"
    assert set(before) <= set(seen)
    assert seen == sorted(seen)
    assert set(seen) <= set(known(box))


def test_named_devices_occur_once_and_unknown_ones_are_omitted(box: Box) -> None:
    box.append(*(Sent(f"named {n}", record(AT_US)) for n in range(4)))
    names = [("device_id", f"named {n}") for n in (3, 0, 2, 0)]
    answer = box.get("/v1/latest", *names, ("device_id", "nobody"), ("device_id", "")).json()
    assert [found["device_id"] for found in answer["records"]] == ["named 0", "named 2", "named 3"]
    assert answer["next_cursor"] is None
    assert answer["records"][1] == latest(box, "named 2").json()
    assert list(walk(box, 2, *names)) == [["named 0", "named 2"], ["named 3"]]
    assert box.get("/v1/latest", ("device_id", "nobody")).json() == {"records": [], "next_cursor": None}


@pytest.mark.parametrize(
    "limit", ["0", "-1", "50001", "1.5", "ten", "", "0x1", "1e2", "٣", "0000050000999", "9" * 5000]
)
def test_a_limit_out_of_range_is_rejected(box: Box, limit: str) -> None:
    found = assert_problem(box.get("/v1/latest", ("limit", limit)), 400, "invalid-parameter")
    assert found["parameter"] == "limit"
    assert "50000" in str(found["detail"])


def test_the_maximum_limit_is_accepted(box: Box) -> None:
    assert box.get("/v1/latest", ("limit", 50_000)).status_code == 200


def test_an_invalid_cursor_is_rejected(box: Box) -> None:
    found = assert_problem(box.get("/v1/latest", ("cursor", "x" * 256)), 400, "invalid-parameter")
    assert found["parameter"] == "cursor"


def test_without_redis_the_api_reports_it_and_recovers(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with box_on(own_redis.url, tmp_path_factory.mktemp("away")) as box:
        box.append(Sent("a", record(AT_US)))
        before = latest(box, "a").json()
        time.sleep(2 * rejection_counts.REPORT_S)  # while the box started, its API rejected requests
        refused = shared_state.refused(box.client).get("busy", 0)
        own_redis.kill()
        for path in ("/v1/devices/a/latest", "/v1/latest"):
            answer = box.http.get(path)
            assert_problem(answer, 503, "busy")
            assert int(answer.headers["retry-after"]) > 0
        own_redis.start()
        assert latest(box, "a").json() == before
        assert box.get("/v1/latest").json()["records"] == [before]
        until(lambda: shared_state.refused(box.client).get("busy") == refused + 2)
