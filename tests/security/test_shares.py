"""Attack on what all senders share: one key or address fills its share, and others go on.

One device's token filled `collector.max_senders` in 189 s, for 30 days; the same with Idempotency-Keys, and with
devices by a key for a prefix.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import msgpack
import pytest

from tests.box import Box, plain_http

MANY, SENDERS, NAMES, PERCENT = 40, 3, 4, 50
"""What a shard takes of each; what one device may have; what a key for a prefix may have."""


class Keys(NamedTuple):
    fleet: str
    prefix: str
    all: str


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with Box(
        tmp_path_factory.mktemp("box"),
        auth__required="true",
        collector__max_senders=str(MANY),
        collector__max_idempotency_keys=str(MANY),
        collector__max_devices=str(MANY),
        limits__senders_per_device=str(SENDERS),
        limits__idempotency_keys_per_device=str(NAMES),
        limits__owner_share_percent=str(PERCENT),
    ) as found:
        yield found


@pytest.fixture(scope="module")
def keys(box: Box) -> Keys:
    fleet = box.new_key("--scope", "ingest", "--fleet")
    token = box.whimbrel("keys", "token", "van-1", "--key", fleet).stdout.strip()
    return Keys(token, box.new_key("--scope", "ingest", "--prefix", "p-"), box.new_key("--scope", "ingest"))


def post(box: Box, key: str, device: str, **headers: str) -> httpx.Response:
    with plain_http(f"http://127.0.0.1:{box.http_port}") as web:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.post(
            "/v1/records", json=[{"device_id": device}], headers={"Authorization": f"Bearer {key}"} | headers
        )


def numbered(box: Box, key: str, device: str, sender: str, number: int = 1) -> httpx.Response:
    return post(box, key, device, Sender_Id=sender, Batch_Number=str(number))


def assert_share_full(answer: httpx.Response, setting: str) -> None:
    assert answer.status_code == 429
    assert answer.json()["type"] == "urn:whimbrel:problem:share-full"
    assert setting in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0


def listed(box: Box) -> Any:
    return box.json("senders", "list")


def test_a_token_fills_its_share_of_senders_and_no_more(box: Box, keys: Keys) -> None:
    answers = [numbered(box, keys.fleet, "van-1", f"s{number}") for number in range(SENDERS + 3)]
    assert [one.status_code for one in answers] == [202] * SENDERS + [429] * 3
    assert_share_full(answers[-1], "limits.senders_per_device")
    assert numbered(box, keys.fleet, "van-1", "s0", 2).status_code == 202
    assert numbered(box, keys.all, "bus-1", "gateway").status_code == 202
    assert post(box, keys.fleet, "van-1").status_code == 202
    assert any("has its share of collector.max_senders" in line for line in box.output)


def framed(value: object) -> bytes:
    body: bytes = msgpack.packb(value)
    return len(body).to_bytes(4, "big") + body


def test_over_tcp_a_token_is_told_to_keep_the_batch(box: Box, keys: Keys) -> None:
    with socket.create_connection(("127.0.0.1", box.tcp_port), 30) as sender, sender.makefile("rb") as answers:
        sender.sendall(framed([0, keys.fleet]) + framed([1, "over-tcp", 1, [{"device_id": "van-1"}]]))
        hello, answer = (msgpack.unpackb(answers.read(int.from_bytes(answers.read(4), "big"))) for _ in range(2))
    assert hello[1] == 0
    number, status, accepted, detail = answer
    assert (number, status, accepted) == (1, 3, 0)
    assert "limits.senders_per_device" in json.dumps(detail)


def test_a_token_fills_its_share_of_idempotency_keys_and_no_more(box: Box, keys: Keys) -> None:
    answers = [post(box, keys.fleet, "van-1", Idempotency_Key=f"k{number}") for number in range(NAMES + 2)]
    assert [one.status_code for one in answers] == [202] * NAMES + [429] * 2
    assert_share_full(answers[-1], "limits.idempotency_keys_per_device")
    assert post(box, keys.fleet, "van-1", Idempotency_Key="k0").status_code == 202
    assert post(box, keys.all, "bus-1", Idempotency_Key="k99").status_code == 202


def test_a_key_for_a_prefix_fills_its_share_of_devices_and_no_more(box: Box, keys: Keys) -> None:
    most = MANY * PERCENT // 100
    answers = [post(box, keys.prefix, f"p-{number}") for number in range(most + 2)]
    assert [one.status_code for one in answers] == [202] * most + [429] * 2
    assert_share_full(answers[-1], "limits.owner_share_percent")
    assert post(box, keys.prefix, "p-0").status_code == 202
    with socket.create_connection(("127.0.0.1", box.tcp_port), 30) as sender:
        sender.sendall(json.dumps({"device_id": "p-new", "token": keys.prefix}).encode() + b"\n")
        answer = json.loads(sender.recv(4_096))
    assert answer["retry"] is True
    assert "limits.owner_share_percent" in json.dumps(answer)
    assert post(box, keys.all, "bus-2").status_code == 202


def test_senders_are_listed_and_forgotten(box: Box, keys: Keys) -> None:
    before = listed(box)
    of_token = [one for one in before["senders"] if one["key"].endswith(":van-1")]
    assert len(of_token) == SENDERS
    [(owner, count)] = before["keys"].items()
    assert (owner, count) == (of_token[0]["key"], SENDERS)
    assert owner in box.whimbrel("senders", "list").stdout
    key = owner.partition(":")[0]
    assert "without --yes" in box.whimbrel("senders", "forget", "--key", key).stdout
    assert listed(box) == before
    assert box.json("senders", "forget", of_token[0]["sender"], "--yes") == {"found": 1, "forgotten": 1}
    assert numbered(box, keys.fleet, "van-1", "new").status_code == 202
    assert numbered(box, keys.fleet, "van-1", "newer").status_code == 429
    assert box.json("senders", "forget", "--key", key, "--yes")["forgotten"] == SENDERS
    assert numbered(box, keys.fleet, "van-1", "newer").status_code == 202
    assert box.whimbrel("senders", "forget", "--older-than", "1", "--yes").returncode == 1
    assert {one["sender"] for one in listed(box)["senders"]} >= {"gateway"}
    assert box.whimbrel("senders", "forget").returncode == 1


def test_shares_outlast_a_restart(box: Box, keys: Keys) -> None:
    for number in range(SENDERS):
        numbered(box, keys.fleet, "van-1", f"again{number}")
    box.stop()
    box.start()
    assert_share_full(numbered(box, keys.fleet, "van-1", "one-more"), "limits.senders_per_device")
    assert post(box, keys.prefix, "p-more").status_code == 429


# Without keys ------------------------------------------------------------------------------------------

ATTACKER, NEIGHBOUR = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def open_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with Box(
        tmp_path_factory.mktemp("open"), collector__max_devices=str(MANY), limits__owner_share_percent=str(PERCENT)
    ) as found:
        yield found


def test_an_address_adds_its_share_of_devices_and_no_more(open_box: Box) -> None:
    """The attack: invent a device for each record, over HTTP in two ways and over TCP, until there is no room."""
    url, most = f"http://127.0.0.1:{open_box.http_port}/v1/records", MANY * PERCENT // 100
    with (
        httpx.Client(transport=httpx.HTTPTransport(local_address=ATTACKER)) as attacker,
        httpx.Client(transport=httpx.HTTPTransport(local_address=NEIGHBOUR)) as neighbour,
    ):
        answers = [attacker.post(url, json=[{"device_id": f"x{number}"}]) for number in range(most)]
        assert {one.status_code for one in answers} == {202}
        for headers in ({}, {"Idempotency-Key": "k1"}):  # a request with a key goes another way
            refused = attacker.post(url, json=[{"device_id": "more"}], headers=headers)
            assert_share_full(refused, "limits.owner_share_percent")
        with socket.create_connection(("127.0.0.1", open_box.tcp_port), 30, (ATTACKER, 0)) as sender:
            sender.sendall(b'{"device_id":"more"}\n')
            answer = json.loads(sender.recv(4_096))
        assert answer["retry"] is True
        assert "limits.owner_share_percent" in json.dumps(answer)
        assert attacker.post(url, json=[{"device_id": "x0"}]).status_code == 202
        assert neighbour.post(url, json=[{"device_id": "honest"}]).status_code == 202
