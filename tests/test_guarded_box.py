"""A whole box that requires keys: its open routes, its protected ones, and its commands with and without a key."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.box import Box, plain_http

pytestmark = pytest.mark.slow

NAMES = ("van-1", "van-2", "bus-1")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("guarded")
    with Box(folder, auth__required="true", limits__address_wrong_keys_per_min="0") as found:
        key = found.new_key("--scope", "ingest")
        records = [{"device_id": name, "altitude": number} for name in NAMES for number in range(3)]
        assert until(found, 202, "/v1/records", key, json=records).status_code == 202
        yield found


def until(box: Box, status: int, path: str, key: str, **more: Any) -> httpx.Response:
    """The answer, once it is the one that is waited for; it must come within what a new or revoked key may take."""
    by_s = time.monotonic() + 5
    while True:
        method = "POST" if "json" in more else "GET"
        answer = box.http.request(method, path, headers={"Authorization": f"Bearer {key}"}, **more)
        if answer.status_code == status or time.monotonic() > by_s:
            return answer
        time.sleep(0.05)


def test_what_is_open(box: Box) -> None:
    assert box.http.get("/healthz").status_code == 200
    assert box.http.get("/readyz").status_code == 200
    assert box.http.get("/static/pages.css").status_code == 200
    assert box.http.get("/").status_code == 200
    for path in ("/status", "/v1/latest", "/v1/records", "/v1/export", "/v1/summary", "/tracking/data/list/"):
        answer = box.http.get(path)
        assert answer.status_code == 401, path
        assert len(answer.headers.get_list("WWW-Authenticate")) == 2
        assert answer.json()["type"] == "urn:whimbrel:problem:no-key"


def created(box: Box, *scopes: str) -> dict[str, str]:
    """The header of a key that was created this moment, and that no program was asked about."""
    done = box.whimbrel("keys", "create", *(word for scope in scopes for word in ("--scope", scope)))
    return {"Authorization": f"Bearer {done.stdout.splitlines()[-1]}"}


def test_a_new_key_is_known_to_every_program_at_once(box: Box) -> None:
    """A key each: the first request with it must be let in, whenever the program reads keys by itself."""
    record = {"device_id": "new-1", "altitude": 1}
    with plain_http(f"http://127.0.0.1:{box.http_port}") as collector:
        for _ in range(4):
            assert collector.post("/v1/records", json=[record], headers=created(box, "ingest")).status_code == 202
            assert box.http.post("/v1/records", json=[record], headers=created(box, "ingest")).status_code == 202
            assert box.http.get("/v1/latest", headers=created(box, "read")).status_code == 200
            page = box.http.get("/v1/records", headers=created(box, "read"))  # through to the query program
            assert page.status_code == 200
            key = created(box, "ingest")["Authorization"].partition(" ")[2]
            with socket.create_connection(("127.0.0.1", box.tcp_port), 30) as connection:
                connection.sendall(json.dumps(record | {"token": key}).encode() + b"\n")
                assert json.loads(connection.makefile("rb").readline())["accepted"] == 1


def test_a_reader_reads_all_and_writes_nothing(box: Box) -> None:
    key = box.new_key("--scope", "read")
    assert until(box, 200, "/v1/latest", key).status_code == 200
    for path in ("/status", "/v1/records", "/v1/export", "/v1/summary", "/tracking/tcp_data/list/"):
        assert until(box, 200, path, key).status_code in (200, 404), path
    assert box.http.get("/v1/latest", params={"token": key}).status_code == 200
    assert box.http.get("/v1/records", params={"token": key}).status_code == 200  # through to the query program
    assert box.http.get("/v1/latest", auth=("anybody", key)).status_code == 200
    answer = box.http.post("/v1/records", json=[], headers={"Authorization": f"Bearer {key}"})
    assert answer.json()["type"] == "urn:whimbrel:problem:wrong-scope"
    box.whimbrel("keys", "revoke", key.split("_")[1])
    assert until(box, 401, "/v1/records", key).json()["type"] == "urn:whimbrel:problem:wrong-key"


@pytest.mark.parametrize("over", ["http", "tcp"])
def test_commands_send_with_a_key(box: Box, over: str, tmp_path: Path) -> None:
    file = tmp_path / "records.ndjson"
    devices = [f"{over}-1", "bus-9", f"{over}-1"]
    file.write_text("".join(json.dumps({"device_id": device}) + "\n" for device in devices))
    key = box.new_key("--scope", "ingest", "--prefix", f"{over}-")
    send = ("send", str(file), "--over", over, "--json")
    without = box.whimbrel(*send)
    assert without.returncode == 1
    assert "send a key first" in without.stderr or "send a key" in without.stderr
    done = box.whimbrel(*send, "--key", key)
    assert done.returncode == 1
    counts = json.loads(done.stdout.splitlines()[-1])
    assert (counts["accepted"], counts["refused"]) == (2, 1)
    assert "not for device 'bus-9'" in done.stderr
    reads = box.new_key("--scope", "read")
    assert until(box, 200, f"/v1/devices/{over}-1/latest", reads).status_code == 200
    wrong = box.whimbrel(*send, "--key", reads)
    assert wrong.returncode == 1
    assert "needs a key with the scope ingest" in wrong.stderr


def test_commands_read_with_a_key(box: Box) -> None:
    assert "send a key" in box.whimbrel("latest", "van-1").stderr
    key = box.new_key("--scope", "read", "--device", "van-1")
    until(box, 200, "/v1/records", key)
    box.environ["WHIMBREL_KEY"] = key
    try:
        assert json.loads(box.whimbrel("latest", "--json").stdout)["device_id"] == "van-1"
        assert box.whimbrel("history", "van-1").stdout.count("van-1") >= 3
        assert "not for device" in box.whimbrel("history", "van-2").stderr
    finally:
        del box.environ["WHIMBREL_KEY"]


def test_no_key_is_in_the_log(box: Box) -> None:
    key = box.new_key("--scope", "read")
    for _ in range(2):
        box.http.get("/v1/records", params={"token": key})
        box.http.get("/nowhere", params={"token": key}, headers={"Accept": "text/html"})
        assert key not in box.http.get("/tracking/data/list/", params={"token": key}).text
    log = "".join(box.output)
    assert "Whimbrel is ready" in log
    assert key.split("_")[2] not in log
    assert json.loads(box.whimbrel("keys", "list", "--json").stdout)["keys"]
    assert key.split("_")[2] not in "".join(path.read_text(errors="replace") for path in logs(box.data))


def logs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".log", ".conf") and path.is_file()]


def test_the_first_start_gives_out_an_admin_key(box: Box) -> None:
    """Written to a file that only its owner can read, because the output is not a terminal; only at the first start."""
    path = box.data / "first-admin-key"
    key = path.read_text(encoding="ascii").strip()
    assert path.stat().st_mode & 0o077 == 0
    assert until(box, 200, "/status", key).status_code == 200
    log = "".join(box.output)
    assert f"the first admin key is in {path}" in log
    assert key.split("_")[2] not in log
