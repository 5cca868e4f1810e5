"""A collector that requires keys, as a program: HTTP, posts of other protocols, TCP, and its log."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.model import api_keys as keys
from telemetry.model.api_keys import KeyRequest, make
from tests.box import free_ports, plain_http
from tests.collector.program import Program, program
from tests.conftest import RedisServer

HOST = "127.0.0.1"
RECORD = {"device_id": "van-7", "latitude": 53.4, "longitude": -2.9}
LONG_AGO_S = 1_700_000_000
LINE = "cpu,device_id=van-7 lat=53.4,lon=-2.9"


class Running(NamedTuple):
    """A program, a client of it, a client of its Redis, and keys of all kinds by their names."""

    program: Program
    http: httpx.Client
    redis: redis.Redis
    keys: dict[str, str]
    posts_port: int
    tracker_port: int


WISHES = {
    "good": KeyRequest(("ingest",)),
    "admin": KeyRequest(("admin",)),
    "revoked": KeyRequest(("ingest",)),
    "expired": KeyRequest(("ingest",), expires_s=LONG_AGO_S + 1),
    "reads": KeyRequest(("read",)),
    "bound": KeyRequest(("ingest",), devices=("van-7",)),
    "elsewhere": KeyRequest(("ingest",), prefix="bus-"),
    "fleet": KeyRequest(("ingest",), is_fleet=True),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared_redis: RedisServer) -> Iterator[Running]:
    posts, tracker = free_ports(2)
    listen = [
        {"protocol": "owntracks", "transport": "http", "port": posts},
        {"protocol": "h02", "port": tracker, "allow_anonymous": True},
    ]
    more = {"auth__required": "true", "limits__address_wrong_keys_per_min": "0"}
    more["collector__listen"] = json.dumps(listen)
    with shared_redis.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    with program(shared_redis, tmp_path_factory.mktemp("guarded"), **more) as found, connect(found.settings) as client:
        made = {}
        for name, wish in WISHES.items():
            made[name], key = make(wish, LONG_AGO_S, secrets.token_bytes)
            shared_state.add_key(client, key)
            if name == "revoked":
                shared_state.remove_key(client, key.id)
        made["token"] = keys.device_token(made["fleet"], "van-7")
        made["misspelt"] = made["good"][:-1] + "-"
        with plain_http(f"http://{HOST}:{found.http_port}") as http:
            until_ready(http, made["good"])
            yield Running(found, http, client, made, posts, tracker)


def until_ready(http: httpx.Client, key: str) -> None:
    """Wait until the program answers, and knows a key."""
    by_s = time.monotonic() + 30
    while time.monotonic() < by_s:
        try:
            if http.post("/v1/records", json=[], headers={"Authorization": f"Bearer {key}"}).status_code == 202:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the collector is not ready")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


STATUSES = [
    ("good", 202),
    ("admin", 202),
    ("bound", 202),
    ("token", 202),
    ("", 401),
    ("misspelt", 401),
    ("revoked", 401),
    ("expired", 401),
    ("reads", 403),
    ("elsewhere", 403),
]


@pytest.mark.parametrize(("name", "status"), STATUSES)
def test_posts_of_records(running: Running, name: str, status: int) -> None:
    key = running.keys.get(name, "")
    for value in (RECORD, [RECORD, {**RECORD, "mood": {"x": 1}}]):  # the quick way, and the plain one
        answer = running.http.post("/v1/records", json=value, headers=bearer(key))
        assert answer.status_code == status, answer.text
        assert ("WWW-Authenticate" in answer.headers) == (status == 401 or name == "reads")
    if name == "elsewhere":
        assert (answer.json()["type"], answer.json()["index"]) == ("urn:whimbrel:problem:other-device", 0)


@pytest.mark.parametrize(("name", "status"), STATUSES)
def test_posts_of_other_protocols(running: Running, name: str, status: int) -> None:
    key = running.keys.get(name, "")
    in_query = {"token": key} if key else {}
    basic = {"Authorization": "Basic " + base64.b64encode(f"phone:{key}".encode()).decode()} if key else {}
    place: dict[str, Any] = {"id": "van-7", "lat": "53.4", "lon": "-2.9"}
    of_phone = {"_type": "location", "lat": 53.4, "lon": -2.9, "tst": 1_795_500_000, "topic": "van-7"}
    posts = running.posts_port
    answers = [
        running.http.get("/osmand", params=place | in_query),
        running.http.post("/osmand", params=place, headers=basic),
        running.http.post("/pub", json=of_phone, headers=basic),
        running.http.post(f"http://{HOST}:{posts}/", json=of_phone, headers=basic),
        running.http.post("/api/v2/write", content=LINE, headers={"Authorization": f"Token {key}"} if key else {}),
        running.http.post("/write", params={"u": "telegraf", "p": key} if key else {}, content=LINE),
    ]
    wanted = [200, 200, 200, 200, 204, 204] if status == 202 else [status] * 6
    assert [answer.status_code for answer in answers] == wanted


def test_health_is_open_and_nothing_else(running: Running) -> None:
    assert running.http.get("/healthz").status_code == 200
    assert running.http.get("/").status_code == 401
    assert running.http.get("/", headers=bearer(running.keys["good"])).status_code == 404


def talk(port: int, data: bytes) -> bytes:
    with socket.create_connection((HOST, port), 10) as connection, connection.makefile("rb") as file:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return file.read()


@pytest.mark.parametrize(("name", "status"), STATUSES)
def test_lines_over_tcp(running: Running, name: str, status: int) -> None:
    key = running.keys.get(name, "")
    hello = json.dumps({"token": key}).encode() + b"\n" if key else b""
    said = [
        json.loads(one) for one in talk(running.program.port, hello + json.dumps(RECORD).encode() + b"\n").splitlines()
    ]
    assert said[-1].get("status", 202) == status


def test_a_tracker_that_was_let_in_needs_no_key(running: Running) -> None:
    frame = b"*HQ,4106012345,V1,054409,A,2232.9806,N,11404.9355,E,000.0,000,221126,FFFFFBFF#"
    talk(running.tracker_port, frame)
    by_s = time.monotonic() + 10
    while not running.redis.hexists("whimbrel:{0}:latest", "4106012345"):
        assert time.monotonic() < by_s
        time.sleep(0.05)


def test_a_revoked_key_is_refused_within_five_seconds(running: Running) -> None:
    text, key = make(KeyRequest(("ingest",)), int(time.time()), secrets.token_bytes)
    shared_state.add_key(running.redis, key)
    for status in (202, 401):
        by_s = time.monotonic() + 5
        while running.http.post("/v1/records", json=RECORD, headers=bearer(text)).status_code != status:
            assert time.monotonic() < by_s
            time.sleep(0.05)
        shared_state.remove_key(running.redis, key.id)


def test_no_key_is_logged_and_wrong_ones_are_counted(running: Running) -> None:
    """After all of the above; it asks once more itself, for it may be run alone."""
    for name in running.keys:
        running.http.get("/osmand", params={"id": "van-7", "token": running.keys[name]})
        running.http.get("/nowhere", params={"token": running.keys[name]})
    by_s = time.monotonic() + 10
    while not {"no-key", "wrong-key", "wrong-scope", "other-device"} <= shared_state.refused(running.redis).keys():
        assert time.monotonic() < by_s, shared_state.refused(running.redis)
        running.http.post("/v1/records", json=RECORD, headers=bearer(running.keys["elsewhere"]))
        running.http.post("/v1/records", json=RECORD)
        time.sleep(0.2)
    log = running.program.log()
    assert "collecting" in log
    kept = str([running.redis.hgetall(name) for name in (shared_state.KEYS, shared_state.REFUSED)])
    for text in running.keys.values():
        proof = text.split("_")[2]
        assert proof not in log
        assert proof not in kept
    for key in running.redis.scan_iter("whimbrel:{0}:stream:*"):
        entries = str(running.redis.xrange(key))
        assert not any(text.split("_")[2] in entries for text in running.keys.values())


def test_a_request_has_a_name_also_on_ports_of_one_protocol(running: Running) -> None:
    key = {"Authorization": f"Bearer {running.keys['good']}"}
    of_phones = f"http://{HOST}:{running.posts_port}/"
    made = set()
    for url in ("/v1/records", "/nowhere", of_phones):
        for headers in (key, {}):
            named = running.http.post(url, json=[], headers=headers | {"X-Request-Id": "trace-7"})
            assert named.headers.get_list("x-request-id") == ["trace-7"]
            [name] = running.http.post(url, json=[], headers=headers).headers.get_list("x-request-id")
            made.add(name)
    assert len(made) == 6
