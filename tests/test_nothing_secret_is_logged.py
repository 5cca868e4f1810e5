"""The log of a whole box with keys, at level `debug`: no line has a key, token, password or text of a payload."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import pytest

from tests.box import Box, free_ports
from tests.collector.trackers.gt06 import test_decoder
from tests.senders import wait_until
from tests.worker.courier.receiver import SAID, Post, Receiver

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"
WAIT_S = 30
TEXT = "PAYLOAD-OF-A-DEVICE"
DEVICE = "van-PAYLOAD"
SETTINGS = ("mqtt-password-31", "forward-header-32", "forward-key-33", "alert-secret-34", "alert-header-35", "hook-36")
SPOKEN = ("wrong-password-41", "wk_aaaaaaaa_wrongwrongwrongwrongwrong1", "url-password-43", "proxy-cookie-44")


class Guarded(NamedTuple):
    """The box, a key of each kind, and the ports of phones, of trackers over TCP and over UDP."""

    box: Box
    ingest: str
    read: str
    posts: int
    tracker: int
    datagrams: int


def refusing(post: Post) -> tuple[int, dict[str, str]]:
    """The response of a receiver that rejects everything and repeats the request."""
    said = json.dumps([post.path, post.headers]).encode()
    return 400, {"Content-Length": str(len(said)), SAID: said.decode()}


@pytest.fixture(scope="module", params=[pytest.param("text", marks=pytest.mark.thorough), "json"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    posts, tracker, datagrams, nobody, other = free_ports(5)
    listen = [
        {"protocol": "owntracks", "transport": "http", "port": posts},
        {"protocol": "gt06", "port": tracker, "allow_anonymous": True},
        {"protocol": "teltonika", "transport": "udp", "port": datagrams, "allow_anonymous": True},
    ]
    mqtt = [{"host": HOST, "port": nobody, "topics": ["a/#"], "username": "u", "password": SETTINGS[0]}]
    receiver = Receiver()
    receiver.answer = refusing
    forward = [
        {"name": "web", "url": receiver.url, "start": "all", "headers": {"Authorization": f"Bearer {SETTINGS[1]}"}},
        {"name": "box", "url": f"whimbrel://{HOST}:{other}", "start": "all", "key": SETTINGS[2]},
    ]
    alert = {
        "name": "hook",
        "url": f"{receiver.url}?{SETTINGS[5]}",
        "secret": SETTINGS[3],
        "headers": {"X-Api-Key": SETTINGS[4]},
    }
    more = {"auth__required": "true", "log__level": "debug", "log__access": "true", "log__format": request.param}
    more |= {"collector__listen": json.dumps(listen), "collector__mqtt": json.dumps(mqtt)}
    more |= {"forward": json.dumps(forward), "alert": json.dumps([alert | {"silent_after_s": 1}])}
    more |= {"persist__flush_seconds": "1", "collector__request_timeout_s": "1"}
    with Box(tmp_path_factory.mktemp("guarded"), **more) as box:
        yield Guarded(box, box.new_key("--scope", "ingest"), box.new_key("--scope", "read"), posts, tracker, datagrams)
    receiver.close()


def work(guarded: Guarded) -> None:
    """Send over all that there is, well and badly, with good keys and wrong ones, and ask."""
    with httpx.Client(verify=False) as http:
        for key in (guarded.ingest, guarded.read, *SPOKEN):
            send(guarded, http, key)
            ask(guarded, key)
    for port in (guarded.tracker, guarded.box.tcp_port):
        over_tcp(port, test_decoder.LOGIN, test_decoder.LOCATION[:-4] + b"\0\0\r\n", TEXT.encode() * 50, b"\r\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.sendto(TEXT.encode() * 5, (HOST, guarded.datagrams))


def send(guarded: Guarded, http: httpx.Client, key: str) -> None:
    """Records over HTTP in each way that a key may come, and over TCP."""
    good = {"device_id": DEVICE, "latitude": 53.4, "longitude": -2.9, "note": TEXT}
    basic = base64.b64encode(f"{TEXT}:{key}".encode()).decode()
    for bad in ({}, {"latitude": TEXT}, {"timestamp": TEXT}, {"device_id": TEXT * 20}, {TEXT: {"deep": [TEXT]}}):
        body = json.dumps(good | bad)
        for base in (f"http://{HOST}:{guarded.box.http_port}", str(guarded.box.http.base_url)):
            url, headers = f"{base}/v1/records", {"Authorization": f"Bearer {key}", "Cookie": SPOKEN[3]}
            http.post(url, content=body, headers=headers)
            http.post(url, content=body[:-3], headers=headers | {"Content-Encoding": "gzip"})
            http.post(url, content=body, params={"token": key}, headers={"Idempotency-Key": f"{TEXT} {key}"})
            http.post(url, content=body, params={"token": key}, headers={"X-Request-Id": f"{TEXT} {key}"})
            http.post(f"{base}/write", content=f"m,device_id={DEVICE} lat={TEXT}", params={"u": TEXT, "p": key})
            http.post(f"{base}/osmand", data={"id": DEVICE, "lat": TEXT, "lon": "1", "token": key})
        http.post(f"http://{HOST}:{guarded.posts}/", content=body, headers={"Authorization": f"Basic {basic}"})
        hello = json.dumps({"token": key}).encode() + b"\n"
        of_message = json.dumps(good | bad | {"token": key}).encode() + b"\n"
        over_tcp(guarded.box.tcp_port, hello, body.encode() + b"\n", of_message, of_message[:-9])
    raw = f"GET /?token={key} HTTP/1.1\r\nHost: a\r\n{TEXT} {key}\r\n\r\n".encode()
    for port in (guarded.box.http_port, guarded.box.api_port, guarded.posts):
        over_tcp(port, raw)


def ask(guarded: Guarded, key: str) -> None:
    """Requests to the API and the query program, with a token in the query and as a password, also to unknown paths."""
    for path in ("/v1/latest", "/v1/records", "/status", "/tracking/data/list/", "/nowhere", "/v1/export"):
        guarded.box.http.get(path, params={"token": key, "device_id": DEVICE, "x": TEXT})
        guarded.box.http.get(path, params={"device_id": DEVICE}, auth=(TEXT, key))


def over_tcp(port: int, *pieces: bytes) -> None:
    """Say something, and leave."""
    with socket.create_connection((HOST, port), timeout=WAIT_S) as device, suppress(OSError):
        for piece in pieces:
            device.sendall(piece)
            time.sleep(0.05)
        device.shutdown(socket.SHUT_WR)
        while device.recv(4_096):
            pass


def is_taken(guarded: Guarded) -> bool:
    """Whether the box knows its keys by now."""
    headers = {"Authorization": f"Bearer {guarded.ingest}"}
    ports = (guarded.box.api_port, guarded.box.http_port)
    return all(
        httpx.post(f"http://{HOST}:{port}/v1/records", json=[], headers=headers).status_code == 202 for port in ports
    )


def test_no_line_has_a_key_a_token_a_password_or_a_payload(guarded: Guarded) -> None:
    wait_until(lambda: is_taken(guarded))
    work(guarded)
    lines = guarded.box.output
    wanted = (
        "collector.listeners.connection.connection_log",
        "collector.listeners.udp",
        "access",
        "forward web: ",
        "forward box: ",
        "alert hook: ",
        "cannot receive from the broker",
    )
    wait_until(lambda: all(any(what in line for line in lines) for what in wanted))
    assert guarded.box.stop() == 0
    secret = [
        *SETTINGS,
        *SPOKEN,
        test_decoder.IMEI,
        guarded.ingest.split("_")[2],
        guarded.read.split("_")[2],
        TEXT,
        "PAYLOAD",
    ]
    secret += [base64.b64encode(text.encode()).decode().rstrip("=")[:-2] for text in secret]
    found = {line for line in lines for text in secret if text in line}
    assert not found, "\n".join(sorted(found)[:20])
    assert any(is_debug(line) for line in lines)


def is_debug(line: str) -> bool:
    """Whether a line is of the least severity."""
    with suppress(json.JSONDecodeError):
        value: Any = json.loads(line)
        return isinstance(value, dict) and value["level"] == "debug"
    return " DEBUG " in line
