"""The attack: change, ask and try doors, and leave no trace. Every change, question and refusal is in the audit log."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telemetry.audit.reader import Wanted, entries
from tests.box import PROJECT, Box, plain_http

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
WRONG = "wk_aaaaaaaa_" + "b" * 26
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("audit")
    with Box(folder, auth__required="true", sql__enabled="true", limits__address_wrong_keys_per_min="0") as found:
        yield found


@pytest.fixture(scope="module")
def admin(box: Box) -> str:
    return box.new_key("--scope", "admin", "--name", "the admin")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def id_of(key: str) -> str:
    return key.split("_")[1]


def log(box: Box, **wanted: str) -> list[dict[str, Any]]:
    """Entries, read as the command and the API read them."""
    return [msgspec.to_builtins(one) for one in entries(box.data / "audit", Wanted(**wanted))]


def until(look: Callable[[], list[dict[str, Any]]], count: int) -> list[dict[str, Any]]:
    """What a look finds, once it finds so many refusals in all."""
    stop_s = time.monotonic() + DEADLINE_S
    while True:
        found = look()
        if sum(one.get("count", 1) for one in found) >= count:
            return found
        assert time.monotonic() < stop_s, found
        time.sleep(0.2)


def send(box: Box, key: str, *devices: str) -> None:
    with plain_http(f"http://127.0.0.1:{box.http_port}") as http:
        http.post("/v1/records", json=[{"device_id": one} for one in devices], headers=bearer(key)).raise_for_status()


# Changes ---------------------------------------------------------------------------------------------


def test_keys_and_commands_are_recorded_with_who_ran_them(box: Box, admin: str, tmp_path: Path) -> None:
    key = box.new_key("--scope", "read", "--device", "van-1")
    box.whimbrel("keys", "revoke", id_of(key))
    send(box, admin, "van-1")
    for command in (("drain",), ("compact",), ("backup", str(tmp_path / "backups")), ("retain", "--dry-run")):
        assert box.whimbrel(*command).returncode == 0
    made = [one for one in log(box, action="keys.create") if one.get("details", {}).get("key") == id_of(key)]
    assert [one["outcome"] for one in made] == ["done"]
    [begun] = [one for one in log(box, action="keys") if one["id"] == made[0]["id"] and one["outcome"] == "begun"]
    assert begun["device"] == "van-1"
    assert begun["actor"]["kind"] == "local"
    [_, revoked] = log(box, action="keys.revoke")
    assert (revoked["outcome"], revoked["target"]) == ("done", "whimbrel keys")
    for action in ("drain", "compact", "backup"):
        assert [one["outcome"] for one in log(box, action=action)] == ["begun", "done"], action
    assert log(box, action="retain") == [], "it only said what it would do"


def test_a_command_that_fails_is_recorded_as_failed(box: Box) -> None:
    assert box.whimbrel("restore", "/nowhere").returncode == 1
    [begun, failed] = log(box, action="restore")
    assert (begun["outcome"], failed["outcome"]) == ("begun", "failed")
    assert "cannot restore" in failed["details"]["error"]


def test_a_deletion_over_http_is_recorded_with_key_and_address(box: Box, admin: str) -> None:
    send(box, admin, "van-2")
    box.http.delete("/v1/devices/van-2", headers=bearer(admin)).raise_for_status()
    assert box.http.delete("/v1/devices/van-99", headers=bearer(admin)).status_code == 404
    begun, done = log(box, device="van-2")
    assert (begun["outcome"], done["outcome"], done["status"]) == ("begun", "done", 202)
    assert begun["id"] == done["id"]
    assert begun["actor"] == {"kind": "key", "id": id_of(admin)}
    assert (begun["address"], begun["target"]) == ("127.0.0.1", "DELETE /v1/devices/van-2")
    assert begun["action"] == "device.delete"
    assert [one.get("status") for one in log(box, device="van-99")] == [None, 404]


def test_questions_in_sql_and_exports_are_recorded(box: Box, admin: str) -> None:
    for query in ("SELECT count(*) FROM records", "SELEC 1", "SELECT '" + "x" * 9_000 + "'"):
        box.http.post("/v1/sql", json={"query": query}, headers=bearer(admin))
    found = log(box, action="sql")
    assert [one["outcome"] for one in found] == ["begun", "done", "begun", "failed", "begun", "done"]
    assert found[0]["details"] == {"query": "SELECT count(*) FROM records"}
    assert len(found[4]["details"]["query"]) == 2_000, "cut"
    box.http.get("/v1/export", params={"format": "csv"}, headers=bearer(admin)).raise_for_status()
    assert [one["outcome"] for one in log(box, action="export")] == ["begun", "done"]


def test_people_who_sign_in_are_recorded_by_name(box: Box) -> None:
    create = [sys.executable, "-m", "cli.main", "users", "create", "ada", "--role", "admin"]
    subprocess.run(create, cwd=PROJECT, env=box.environ, input=f"{PASSWORD}\n", text=True, check=True)
    own = {"Origin": f"http://127.0.0.1:{box.api_port}", "Sec-Fetch-Site": "same-origin"}
    with plain_http(f"http://127.0.0.1:{box.api_port}") as http:
        stop_s = time.monotonic() + DEADLINE_S
        while http.post("/login", data={"name": "ada", "password": PASSWORD}, headers=own).status_code != 303:
            assert time.monotonic() < stop_s, "the user is not known"
            time.sleep(1)
        assert http.delete("/v1/devices/van-9", headers=own).status_code == 403, "it lacks the session's token"
        token = {"X-CSRF-Token": http.get("/v1/session").json()["csrf_token"]}
        assert http.delete("/v1/devices/van-9", headers=own | token).status_code == 404
        assert http.post("/logout", headers=own | token).status_code == 204
    ada = {"kind": "user", "id": "ada"}
    assert [one["actor"] for one in log(box, action="session")] == [ada, ada]
    assert [one["action"] for one in log(box, action="session")] == ["session.begin", "session.end"]
    assert [one["actor"] for one in log(box, device="van-9")] == [ada, ada]
    assert log(box, action="users.create")[0]["details"]["name"] == "ada"
    refused = until(lambda: [one for one in log(box, outcome="refused") if one["actor"] == ada], 1)
    assert refused[0]["target"] == "DELETE /v1/devices/van-9"
    assert PASSWORD not in "".join(path.read_text() for path in (box.data / "audit").iterdir())


# Refusals --------------------------------------------------------------------------------------------


def test_refusals_are_counted_into_few_lines(box: Box, admin: str) -> None:
    for _ in range(300):
        assert box.http.get("/v1/latest", headers=bearer(WRONG)).status_code == 401
    assert box.http.get("/v1/latest").status_code == 401
    found = until(lambda: log(box, key="aaaaaaaa"), 1)
    assert (found[0]["status"], found[0]["address"], found[0]["target"]) == (401, "127.0.0.1", "GET /v1/latest")
    assert found[0]["details"] == {"reason": "wrong-key", "key": "aaaaaaaa"}
    assert sum(one.get("count", 1) for one in found) <= 300
    assert len(found) <= 2
    assert until(lambda: [one for one in log(box) if one.get("details", {}).get("reason") == "no-key"], 1)


def test_a_key_that_is_not_allowed_is_named(box: Box) -> None:
    reader, bound = box.new_key("--scope", "read"), box.new_key("--scope", "ingest", "--device", "van-1")
    assert box.http.delete("/v1/devices/van-1", headers=bearer(reader)).status_code == 403
    assert box.http.get("/v1/audit", headers=bearer(reader)).status_code == 403
    found = until(lambda: [one for one in log(box, key=id_of(reader)) if one.get("status") == 403], 2)
    assert {one["actor"]["kind"] for one in found} == {"key"}
    assert "device.delete" not in {one["action"] for one in found}, "it did not even begin"
    with plain_http(f"http://127.0.0.1:{box.http_port}") as http:
        assert http.post("/v1/records", json={"device_id": "van-3"}, headers=bearer(bound)).status_code == 403
    [one] = until(lambda: [one for one in log(box, key=id_of(bound)) if one.get("status") == 403], 1)
    assert (one["program"], one["actor"]["id"], one["outcome"]) == ("collector", id_of(bound), "refused")


def test_a_refusal_over_tcp_is_recorded(box: Box) -> None:
    wrong = WRONG.replace("aaaaaaaa", "cccccccc")
    with socket.create_connection(("127.0.0.1", box.tcp_port), 10) as device:
        device.sendall(json.dumps({"token": wrong, "device_id": "van-1"}).encode() + b"\n")
        device.recv(4_096)
    [one] = until(lambda: log(box, key="cccccccc"), 1)
    assert one["target"] == f"TCP port {box.tcp_port}"
    assert one["address"] == "127.0.0.1"


# Reading ---------------------------------------------------------------------------------------------


def test_the_api_shows_it_page_by_page(box: Box, admin: str) -> None:
    def page(**parameters: Any) -> dict[str, Any]:
        answer = box.http.get("/v1/audit", params=parameters, headers=bearer(admin))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    found, cursor = [], ""
    while cursor is not None:
        answer = page(action="keys", limit=3, cursor=cursor)
        found += answer["entries"]
        cursor = answer["next_cursor"]
    assert found == log(box, action="keys")
    done = box.whimbrel("audit", "--action", "keys", "--json", "--last", "4")
    assert [json.loads(line) for line in done.stdout.splitlines()] == found[-4:]
    assert len(found) > 3
    assert page(until="2020-01-01")["entries"] == []
    assert {one["outcome"] for one in page(outcome="refused")["entries"]} == {"refused"}
    assert box.http.get("/v1/audit", params={"cursor": "x"}, headers=bearer(admin)).status_code == 400


def test_text_commands_no_terminal(box: Box, admin: str) -> None:
    box.http.delete("/v1/devices/%1B%5B2J%0Avan", headers=bearer(admin))
    text = box.whimbrel("audit", "--action", "device.delete").stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == len(log(box, action="device.delete"))
    assert f"key {id_of(admin)}" in text


def test_no_key_is_in_it(box: Box, admin: str) -> None:
    box.http.get("/v1/latest", params={"token": WRONG})
    box.http.post("/v1/sql", json={"query": f"SELECT '{admin}'"}, headers=bearer(admin))
    box.http.delete(f"/v1/devices/{admin}", headers=bearer(admin))
    time.sleep(2)
    text = "".join(path.read_text() for path in (box.data / "audit").iterdir())
    assert admin.split("_")[2] not in text
    assert WRONG.split("_")[2] not in text


# When it cannot be written ---------------------------------------------------------------------------


def test_changes_are_refused_and_records_are_taken_while_it_cannot_be_written(box: Box, admin: str) -> None:
    files = [box.data / "audit" / f"{name}.ndjson" for name in ("api-changes", "local-changes", "collector-refusals")]
    for file in files:
        file.rename(file.with_suffix(".away"))
        file.mkdir()
    try:
        send(box, admin, "van-5")
        answer = box.http.delete("/v1/devices/van-5", headers=bearer(admin))
        assert answer.status_code == 503
        assert "cannot record device.delete in the audit log" in answer.json()["detail"]
        done = box.whimbrel("keys", "create", "--scope", "read")
        assert done.returncode == 1
        assert "set audit.enabled = false" in done.stderr
        box.environ["WHIMBREL__AUDIT__ENABLED"] = "false"
        assert box.whimbrel("drain").returncode == 0
    finally:
        box.environ.pop("WHIMBREL__AUDIT__ENABLED", None)
        for file in files:
            file.rmdir()
            file.with_suffix(".away").rename(file)
    assert box.http.get("/v1/devices/van-5/latest", headers=bearer(admin)).status_code == 200
    text = box.http.get("/metrics", headers=bearer(admin)).text
    assert 'whimbrel_audit_failures_total{process="0",program="api"} 1' in text
    assert any("cannot write the audit log" in line for line in box.output)


def test_a_kill_leaves_it_whole_and_the_next_start_names_changed_settings(box: Box, admin: str) -> None:
    send(box, admin, "van-6")
    box.http.delete("/v1/devices/van-6", headers=bearer(admin)).raise_for_status()
    box.kill()
    box.environ["WHIMBREL__PERSIST__FLUSH_SECONDS"] = "7"
    box.environ["WHIMBREL__COURIER__KEY"] = "hunter2"
    box.start()
    assert [one["outcome"] for one in log(box, device="van-6")] == ["begun", "done"]
    start = log(box, action="box.start")[-1]
    assert start["details"]["persist.flush_seconds ="] == "7"
    assert start["details"]["courier.key ="] == '"(secret)"'
    shutil.copytree(box.data / "audit", box.data.parent / "copied")
    assert "hunter2" not in "".join(path.read_text() for path in (box.data.parent / "copied").iterdir())
