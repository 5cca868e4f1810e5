"""`DELETE /v1/devices/{id}` and `GET /v1/deletions/{id}`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from compactor.compaction import Sweep
from compactor.scheduler import TICK_S, TIDY_TICKS
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations import deletions
from telemetry.model.record import Sent
from telemetry.system import clock
from tests.api.conftest import Box, assert_problem, box_on, record, segment
from tests.conftest import RedisServer
from worker.device_erasure import Eraser
from worker.saving.saver import Saver

AT_US = 1_769_250_300_000_000
STRANGE = ("a/b", "/", "a/latest", "../x", "ü ☂%2F", "a\nb", "?device_id=*", "latest")


@pytest.fixture(scope="module", params=["1", "3"], ids=["one shard", "three shards"])
def box(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("box"), redis__shards=request.param) as found:
        yield found


def erase(box: Box) -> None:
    """Carry out the pending deletions, as the worker does."""
    saver = Saver(box.archive, box.connection, clock.now_ms)
    eraser = Eraser(box.archive, lambda: box.connection, saver, clock.now_ms, monotonic=lambda: 0.0)
    for shard in box.shards:
        eraser.erase(shard)
        assert not deletions.pending(shard)


def fill(box: Box, *devices: str) -> None:
    """Two records of each device: one saved, one unsaved."""
    box.append(*(Sent(name, record(AT_US)) for name in devices))
    box.save()
    box.append(*(Sent(name, record(AT_US + 1)) for name in devices))


def delete(box: Box, device: str, **headers: str) -> httpx.Response:
    return box.http.delete(f"/v1/devices/{segment(device)}", headers=headers)


def records(box: Box, device: str) -> int:
    return len(box.get("/v1/records", ("device_id", device)).json()["records"])


def test_the_latest_of_a_device_cannot_be_deleted(box: Box) -> None:
    fill(box, "van", "van/latest")
    answer = box.http.delete("/v1/devices/van/latest")
    assert_problem(answer, 405, "wrong-method")
    assert answer.headers["allow"] == "GET, HEAD"
    for device in ("van", "van/latest"):
        assert box.get(f"/v1/devices/{segment(device)}/latest").status_code == 200
    assert delete(box, "van/latest").status_code == 202
    assert_problem(box.get("/v1/devices/van%2Flatest"), 404, "unknown-device")
    assert box.get("/v1/devices/van").status_code == 200
    erase(box)


def test_a_deletion_from_the_request_to_the_last_byte(box: Box) -> None:
    fill(box, "gone", "stays")
    asked = delete(box, "gone")
    assert asked.status_code == 202
    name = asked.json()["id"]
    url = f"/v1/deletions/{name}"
    assert asked.json() == {"id": name, "state": "queued", "status_url": url}
    assert asked.headers["location"] == url
    assert int(asked.headers["retry-after"]) > 0
    assert_problem(box.get("/v1/devices/gone/latest"), 404, "unknown-device")
    assert "gone" not in box.get("/v1/latest").text
    assert records(box, "gone") == 1, "the archive follows"
    found = box.get(url)
    assert int(found.headers["retry-after"]) > 0
    waiting = found.json()
    assert waiting | {"state": "queued", "records": 1, "waiting_records": 1, "done_at": None} == waiting
    assert waiting["files_on_disk"] is None
    assert waiting["off_disk_by"] is None

    box.append(Sent("gone", record(AT_US + 2)))
    erase(box)
    found = box.get(url)
    assert "retry-after" not in found.headers
    done = found.json()
    expected = {"state": "done", "records": 2, "archived_records": 1, "quarantined": 0, "days": 1, "files": 1}
    assert done | expected == done
    assert done["files_on_disk"] >= 1
    assert done["off_disk_by"] > done["done_at"] >= done["asked_at"]
    assert not done["waits_for_forward"]
    assert "gone" not in found.text, "the status does not name the device"
    assert records(box, "gone") == 1, "a record accepted after the request stays"
    assert records(box, "stays") == 2

    now_s = 0.0
    sweep = Sweep(box.archive, list, lambda: now_s, grace_s=1)
    sweep.sweep()
    now_s = 2.0
    sweep.sweep()
    assert box.get(url).json()["files_on_disk"] == 0


def test_deleting_again_does_no_harm(box: Box) -> None:
    fill(box, "again")
    first = delete(box, "again").json()
    box.append(Sent("again", record(AT_US + 3)))
    assert delete(box, "again").json() == first, "while it is under way"
    erase(box)
    assert box.get(first["status_url"]).json()["records"] == 3
    assert_problem(delete(box, "again"), 404, "unknown-device")


def test_an_unknown_device(box: Box) -> None:
    problem = assert_problem(delete(box, "unknown"), 404, "unknown-device")
    assert "unknown" in str(problem["detail"])


@pytest.mark.parametrize("device", STRANGE)
def test_an_id_can_contain_any_text(box: Box, device: str) -> None:
    fill(box, device, "a")
    asked = delete(box, device)
    assert asked.status_code == 202, asked.text
    erase(box)
    assert box.get(asked.json()["status_url"]).json()["records"] == 2
    assert records(box, device) == 0
    assert records(box, "a") >= 2


@pytest.mark.parametrize("name", ["x", "0-" + "0" * 32, "99-" + "0" * 32, "0-" + "0" * 31 + "g", "%25"])
def test_an_unknown_deletion(box: Box, name: str) -> None:
    assert_problem(box.get(f"/v1/deletions/{name}"), 404, "unknown-deletion")


def test_an_unknown_parameter(box: Box) -> None:
    assert_problem(box.http.delete("/v1/devices/a?force=true"), 400, "invalid-parameter")
    assert_problem(box.get("/v1/deletions/x", ("a", 1)), 400, "invalid-parameter")
    assert_problem(box.http.put("/v1/devices/a"), 405, "wrong-method")


def test_a_failure_is_reported(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(box, "failing")
    url = delete(box, "failing").json()["status_url"]
    shard = box.shards[shard_of("failing", len(box.shards))]

    def fail(step: str) -> None:
        if step == "write":
            raise OSError(28, "No space left on device")

    saver = Saver(box.archive, box.connection, clock.now_ms)
    Eraser(box.archive, lambda: box.connection, saver, clock.now_ms, fail, lambda: 0.0).erase(shard)
    found = box.get(url)
    assert found.json()["state"] == "failed"
    assert "No space left" in found.json()["trouble"]
    assert "retry-after" in found.headers
    erase(box)
    assert box.get(url).json()["state"] == "done"
    assert box.get(url).json()["trouble"] is None


def test_the_time_of_the_sweep_is_that_of_the_scheduler() -> None:
    assert deletions.SWEPT_WITHIN_S == 2 * TIDY_TICKS * TICK_S


def test_keys(shared_redis: RedisServer, tmp_path: Path) -> None:
    """Deletions need a key with `admin`, which keys that are bound to devices cannot have."""
    more = {"auth__required": "true", "limits__address_wrong_keys_per_min": "0"}
    with box_on(shared_redis.url, tmp_path, **more) as box:
        fill(box, "bus", "van")
        reader = {"Authorization": f"Bearer {box.make_key('read', 'ingest', 'sql')}"}
        while box.http.get("/v1/latest", headers=reader).status_code == 401:
            time.sleep(0.05)
        assert_problem(delete(box, "bus", **reader), 403, "wrong-scope")
        assert_problem(delete(box, "bus", Authorization=""), 401, "no-key")
        assert_problem(delete(box, "unknown", **reader), 403, "wrong-scope")
        url = delete(box, "bus").json()["status_url"]
        assert_problem(box.http.get(url, headers=reader), 403, "wrong-scope")
        assert_problem(box.http.get(url, headers={"Authorization": ""}), 401, "no-key")
        erase(box)
        assert box.get(url).json()["records"] == 2
        assert (records(box, "bus"), records(box, "van")) == (0, 2)
