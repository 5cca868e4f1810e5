"""Keys over TCP: in a hello or in each message, on a real socket, with keys in a real Redis."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

import msgpack
import pytest
import redis

from collector.framing.decoder import Received
from collector.ingest.authorization import Pass
from collector.protocols import msgpack_frames
from telemetry.access.key_cache import Keyring
from telemetry.codec.typed_decoder import LEARN_RECORDS
from telemetry.coordination import shared_state
from telemetry.coordination.shared_state import Stamp
from telemetry.hot_store.shard import Shard
from telemetry.model import api_keys
from telemetry.model.api_keys import Denied, Key, KeyRequest, make
from telemetry.model.errors import StoreUnavailable
from tests.collector.conftest import HOST, RECEIVED, Connect, collecting, line, numbers, run, tail

WELCOME = b'{"message": "Key accepted"}\n'


class Guarded(NamedTuple):
    """A collector that asks for keys, and the Redis that they are in."""

    port: int
    keyring: Keyring
    client: redis.Redis
    shard: Shard

    async def ask(self, data: bytes) -> bytes:
        """What a connection hears that says so much and ends."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(data)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    async def lines(self, *data: bytes) -> list[dict[str, Any]]:
        """The answers to lines."""
        return [json.loads(one) for one in (await self.ask(b"".join(data))).splitlines()]

    def make(self, *scopes: str, **more: Any) -> str:
        """A new key, which the collector knows."""
        text = self.create(*scopes, **more)
        self.keyring.refresh()
        return text

    def create(self, *scopes: str, **more: Any) -> str:
        """A new key, which the collector has not read yet."""
        text, key = make(KeyRequest(scopes, **more), int(time.time()), secrets.token_bytes)
        shared_state.add_key(self.client, key)
        return text

    def revoke(self, text: str) -> None:
        """Take a key back."""
        shared_state.remove_key(self.client, text.split("_")[1])
        self.keyring.refresh()


Test = Callable[[Guarded], Coroutine[Any, Any, None]]


@pytest.fixture
def guarded(connect_shared: Connect, client: redis.Redis, shard: Shard) -> Callable[[Test], None]:
    """Runs a test on a collector that asks for keys."""

    def run_on(test: Test) -> None:
        async def in_loop() -> None:
            keyring = Keyring(partial(shared_state.keys_since, client))
            keyring.refresh()
            async with collecting(connect_shared, keyring=keyring) as found:
                await test(Guarded(found.port, keyring, client, shard))

        run(in_loop)

    return run_on


def hello(key: str) -> bytes:
    return json.dumps({"token": key}).encode() + b"\n"


def with_key(key: str, device: str, number: int = 0) -> bytes:
    return json.dumps({"device_id": device, "altitude": number, "token": key}).encode() + b"\n"


def test_a_hello_is_for_its_connection(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        key = box.make("ingest")
        assert await box.ask(hello(key) + line("d", 1) + line("d", 2)) == WELCOME + 2 * RECEIVED
        assert numbers(tail(box.shard, "d")) == [1, 2]
        [refused] = await box.lines(line("d", 3), line("d", 4))
        assert (refused["message"], refused["status"], refused["retry"]) == ("Not authorized.", 401, False)
        assert refused["error"] == "send a key first: as a hello, or as `token` in each message"
        assert numbers(tail(box.shard, "d")) == [1, 2]

    guarded(test)


def test_a_message_may_have_its_key(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        key, other = box.make("ingest"), box.make("ingest")
        first, second = await box.lines(with_key(key, "d", 1), line("d", 2))
        assert first["accepted"] == 1
        assert second["status"] == 401  # it was the key of that message alone
        many = [{"device_id": "d", "altitude": n, "token": key} for n in (3, 4)]
        assert (await box.lines(json.dumps(many).encode() + b"\n"))[0]["accepted"] == 2
        many[1]["token"] = other
        [refused] = await box.lines(json.dumps(many).encode() + b"\n")
        assert refused["error"] == "record 1: token: must be the same in all records of a message"
        assert numbers(tail(box.shard, "d")) == [1, 3, 4]
        assert all(stored.record.attributes is None for stored in tail(box.shard, "d"))

    guarded(test)


def test_keys_that_open_nothing(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        good, reads = box.make("ingest"), box.make("read")
        soon = box.make("ingest", expires_s=int(time.time()) + 1)
        revoked = box.make("ingest")
        box.revoke(revoked)
        await asyncio.sleep(1.1)
        for key, status in ((good[:-1] + "-", 401), (soon, 401), (revoked, 401), (reads, 403)):
            [said] = await box.lines(hello(key), line("d"))
            assert (said["message"], said["status"]) == ("Not authorized.", status)
            [said] = await box.lines(with_key(key, "d"))
            assert said["status"] == status
            assert key not in json.dumps(said)
        assert not tail(box.shard, "d")

    guarded(test)


def test_a_new_key_is_taken_at_once_and_all_that_follows_in_order(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        key = box.create("ingest")
        many = [line(f"d-{number % 100}", number) for number in range(300)]  # more than one read
        assert await box.ask(hello(key) + b"".join(many)) == WELCOME + 300 * RECEIVED
        assert all(numbers(tail(box.shard, f"d-{one}")) == [one, one + 100, one + 200] for one in range(100))
        known, first, second = box.make("ingest"), box.create("ingest"), box.create("ingest")
        said = [with_key(one, "e", number) for number, one in enumerate((known, first, known, second, first, known))]
        assert await box.ask(b"".join(said)) == 6 * RECEIVED
        assert numbers(tail(box.shard, "e")) == list(range(6))

    guarded(test)


def test_each_protocol_takes_a_new_key(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        token = api_keys.device_token(box.create("ingest", is_fleet=True), "van-1")
        said = answers(await box.ask(frame([msgpack_frames.HELLO, token]) + batch(1, "van-1") + batch(2, "van-1")))
        assert [one[:2] for one in said] == [[None, 0], [1, msgpack_frames.STORED], [2, msgpack_frames.STORED]]
        values = [{"token": box.create("ingest")}, {"device_id": "van-1", "altitude": 3}]
        assert len(list(unpacked(await box.ask(b"".join(map(msgpack.packb, values)))))) == 2
        value = {"device_id": "van-1", "location": "1.5,2.5", "timestamp": "2026-11-24T10:25:00Z", "altitude": 4}
        older = json.dumps(value | {"speed": 5, "heading": 1, "token": box.create("ingest")}).encode()
        assert json.loads(await box.ask(older))["message"] == "Data received"  # without an end of line
        assert numbers(tail(box.shard, "van-1")) == [1, 2, 3, 4]

    guarded(test)


def test_wrong_keys_of_an_address_are_looked_up_within_the_limit(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        before = box.client.info("commandstats").get("cmdstat_hlen", {"calls": 0})["calls"]
        begun_s = time.monotonic()
        wrong = [f"wk_{''.join('abcdefghij'[int(digit)] for digit in f'{n:08}')}_{26 * 'a'}" for n in range(200)]
        for said in await asyncio.gather(*(box.lines(hello(one), line("d")) for one in wrong)):
            assert [(one["message"], one["status"], one["retry"]) for one in said] == [("Not authorized.", 401, False)]
        reads = box.client.info("commandstats")["cmdstat_hlen"]["calls"] - before
        assert 0 < reads <= 61 + time.monotonic() - begun_s
        assert box.keyring._lookups == {}
        assert not tail(box.shard, "d")

    guarded(test)


class SlowReads:
    """Reads keys, once from Redis, then only when told to; `fails` to have Redis away by then."""

    def __init__(self, client: redis.Redis, fails: bool = False) -> None:
        self.may_go_on = threading.Event()
        self.is_reading = threading.Event()
        self.fails = fails
        self._client = client
        self._is_first = True

    def __call__(self, stamp: Stamp | None) -> tuple[Stamp, dict[str, Key] | None]:
        if not self._is_first:
            self.is_reading.set()
            assert self.may_go_on.wait(10)
            if self.fails:
                raise StoreUnavailable("away")
        self._is_first = False
        return shared_state.keys_since(self._client, stamp)


def test_a_sender_that_leaves_or_ends_during_the_look_up(
    connect_shared: Connect, client: redis.Redis, shard: Shard
) -> None:
    async def test() -> None:
        reads = SlowReads(client)
        keyring = Keyring(reads)
        keyring.refresh()
        async with collecting(connect_shared, keyring=keyring) as found:
            box = Guarded(found.port, keyring, client, shard)
            key = box.create("ingest")
            left = (await asyncio.open_connection(HOST, found.port))[1]
            left.write(hello(key) + line("left", 1))
            ends = asyncio.create_task(box.ask(hello(key) + line("ends", 1) + line("ends", 2)))
            await asyncio.to_thread(reads.is_reading.wait, 10)
            await asyncio.sleep(0.1)
            assert found.tcp.arriving.bytes >= 2 * len(line("ends", 1))  # what waits is counted
            left.transport.abort()
            await asyncio.sleep(0.1)
            reads.may_go_on.set()
            assert await ends == WELCOME + 2 * RECEIVED
            assert numbers(tail(shard, "ends")) == [1, 2]
            assert found.tcp.arriving.bytes == 0

    run(test)


def test_a_key_that_cannot_be_looked_up_is_not_called_wrong(connect_shared: Connect, client: redis.Redis) -> None:
    async def test() -> None:
        reads = SlowReads(client, fails=True)
        reads.may_go_on.set()
        keyring = Keyring(reads)
        keyring.refresh()
        async with collecting(connect_shared, keyring=keyring) as found:
            reader, writer = await asyncio.open_connection(HOST, found.port)
            writer.write(hello("wk_aaaaaaaa_" + "a" * 26))
            said = json.loads(await reader.readline())
            assert said["retry"] is True
            assert "Redis" in said["error"]
            writer.close()

    run(test)


def test_a_key_ends_amid_a_connection(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        for end in ("revoked", "expired"):
            expires_s = int(time.time()) + 2 if end == "expired" else 0
            key = box.make("ingest", expires_s=expires_s)
            reader, writer = await asyncio.open_connection(HOST, box.port)
            writer.write(hello(key) + line(end, 1))
            assert await reader.readline() + await reader.readline() == WELCOME + RECEIVED
            box.make("read")  # keys change, but not this one
            writer.write(line(end, 2))
            assert await reader.readline() == RECEIVED
            if end == "revoked":
                box.revoke(key)
            else:
                await asyncio.sleep(2.1)
            writer.write(line(end, 3))
            assert json.loads(await reader.readline())["status"] == 401
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
            assert numbers(tail(box.shard, end)) == [1, 2]

    guarded(test)


def test_a_bound_key_costs_the_lines_of_others_alone(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        key = box.make("ingest", prefix="van-")
        learnt = [line("van-0") for _ in range(LEARN_RECORDS + 1)]  # from here on lines are read at once
        said = await box.lines(hello(key), *learnt, line("van-1", 1), line("bus-1", 2), line("van-1", 3))
        assert [one.get("accepted") for one in said[-3:]] == [1, None, 1]
        refused = said[-2]
        assert (refused["status"], refused["retry"]) == (403, False)
        assert refused["error"] == (
            "record 0: this key is for devices whose id begins with 'van-', not for device 'bus-1'"
        )
        assert numbers(tail(box.shard, "van-1")) == [1, 3]
        assert not tail(box.shard, "bus-1")

    guarded(test)


def test_a_devices_token_writes_that_device(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        token = api_keys.device_token(box.make("ingest", is_fleet=True), "van-7")
        said = await box.lines(hello(token), line("van-7", 1), line("van-8", 2), line("van-7", 3))
        assert [one.get("status") for one in said] == [None, None, 403, None]
        assert numbers(tail(box.shard, "van-7")) == [1, 3]

    guarded(test)


def test_an_older_message_may_have_a_key(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        value: dict[str, Any] = {"device_id": "d", "location": "1.5,2.5", "timestamp": "2026-11-24T10:25:00Z"}
        value |= {"altitude": 7, "speed": 5, "heading": 1}
        assert json.loads(await box.ask(json.dumps(value).encode()))["message"] == "Not authorized."
        key = box.make("ingest")
        answer = await box.ask(json.dumps(value | {"token": key}).encode())
        assert json.loads(answer)["message"] == "Data received"
        assert key.encode() not in answer
        assert [key in str(stored) for stored in tail(box.shard, "d")] == [False]

    guarded(test)


def test_msgpack_has_the_same(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        key = box.make("ingest", prefix="van-")
        said = {"device_id": "van-1", "altitude": 1}
        values: list[Any] = [{"token": key}, said, [said | {"altitude": 2}], {"device_id": "bus-1"}]
        answers = list(unpacked(await box.ask(b"".join(map(msgpack.packb, values)))))
        assert [one.get("accepted", one.get("status")) for one in answers] == [None, 1, 1, 403]
        [refused] = unpacked(await box.ask(msgpack.packb(said)))
        assert refused["status"] == 401
        [taken] = unpacked(await box.ask(msgpack.packb(said | {"altitude": 3, "token": key})))
        assert taken["accepted"] == 1
        assert numbers(tail(box.shard, "van-1")) == [1, 2, 3]

    guarded(test)


def unpacked(data: bytes) -> msgpack.Unpacker:
    found = msgpack.Unpacker()
    found.feed(data)
    return found


def frame(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return len(data).to_bytes(4, "big") + data


def answers(data: bytes) -> list[list[Any]]:
    found = []
    while data:
        stop = 4 + int.from_bytes(data[:4], "big")
        found.append(msgpack.unpackb(data[4:stop]))
        data = data[stop:]
    return found


def batch(number: int, *devices: str, sender: str | None = "s") -> bytes:
    return frame([1, sender, number, [{"device_id": device, "altitude": number} for device in devices]])


def test_frames_have_a_hello(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        key = box.make("ingest", prefix="van-")
        greeting = frame([msgpack_frames.HELLO, key])
        said = answers(await box.ask(greeting + batch(1, "van-1") + batch(2, "van-1", "bus-1") + batch(2, "van-1")))
        assert [one[:2] for one in said] == [
            [None, 0],
            [1, msgpack_frames.STORED],
            [2, msgpack_frames.REFUSED],
            [2, msgpack_frames.STORED],
        ]
        assert said[2][3]["index"] == 1
        [denied] = answers(await box.ask(batch(3, "van-1")))
        assert denied[:3] == [3, msgpack_frames.DENIED, 0]
        [denied] = answers(await box.ask(frame([msgpack_frames.HELLO, key[:-1] + "-"]) + batch(3, "van-1")))
        assert denied[:3] == [None, msgpack_frames.DENIED, 0]
        assert numbers(tail(box.shard, "van-1")) == [1, 2]

    guarded(test)


def test_no_bound_sender_speaks_for_another(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        fleet = box.make("ingest", is_fleet=True)
        first, second = (api_keys.device_token(fleet, f"van-{number}") for number in (1, 2))
        far = frame([msgpack_frames.HELLO, first]) + batch(1_000_000, "van-1")
        assert answers(await box.ask(far))[1][1] == msgpack_frames.STORED
        own = frame([msgpack_frames.HELLO, second]) + batch(1, "van-2") + batch(1, "van-2")
        assert [one[1] for one in answers(await box.ask(own))[1:]] == [msgpack_frames.STORED, msgpack_frames.REPEATED]

    guarded(test)


def test_a_silent_connection_ends_with_its_key_and_no_other_does(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        key, other = box.make("ingest"), box.make("ingest")
        spoken = [hello(key), with_key(key, "d"), hello(other) + with_key(key, "d"), hello(key) + with_key(other, "d")]
        opened = [await asyncio.open_connection(HOST, box.port) for _ in spoken]
        for (_, writer), data in zip(opened, spoken, strict=True):
            writer.write(data)
        for (reader, _), data in zip(opened, spoken, strict=True):
            for _ in data.splitlines():
                assert b"Not authorized" not in await reader.readline()
        box.revoke(key)
        await box.keyring.end_withdrawn()
        for reader, _ in opened[:3]:
            said = json.loads(await asyncio.wait_for(reader.readline(), 10))
            assert (said["message"], said["status"], said["retry"]) == ("Not authorized.", 401, False)
            assert await asyncio.wait_for(reader.read(), 10) == b""
        opened[3][1].write(with_key(other, "d"))
        assert b"Not authorized" not in await asyncio.wait_for(opened[3][0].readline(), 10)
        assert box.keyring._holds.ids == [other.split("_")[1]]
        for _, writer in opened:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(10):
            while box.keyring._holds.ids:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)

    guarded(test)


def test_while_keys_can_not_be_told_apart_all_wait(connect_shared: Connect) -> None:
    def away(_: Stamp | None) -> tuple[Stamp, dict[str, Key] | None]:
        raise StoreUnavailable("away")

    async def test() -> None:
        async with collecting(connect_shared, keyring=Keyring(away)) as found:
            reader, writer = await asyncio.open_connection(HOST, found.port)
            writer.write(hello("wk_aaaaaaaa_" + "a" * 26))
            said = json.loads(await reader.readline())
            assert said["retry"] is True
            assert "Redis" in said["error"]
            writer.close()

    run(test)


def test_where_no_key_is_asked_for_none_is_kept(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as found:
            reader, writer = await asyncio.open_connection(HOST, found.port)
            key = "wk_aaaaaaaa_" + "a" * 26
            writer.write(hello(key) + with_key(key, "d", 1) + b'{"device_id": "d", "altitude": 2, "token": "mine"}\n')
            assert await reader.readline() == WELCOME
            assert [await reader.readline() for _ in range(2)] == [RECEIVED] * 2
            writer.close()

    run(test)
    assert [stored.record.attributes for stored in tail(shard, "d")] == [None, '{"token":"mine"}']


class Ignoring:
    """A connection that ends in nobody's test."""

    def end(self, denied: Denied) -> None:
        raise AssertionError(denied)


def test_a_connection_speaks_for_the_devices_of_its_key_alone(guarded: Callable[[Test], None]) -> None:
    async def test(box: Guarded) -> None:
        for devices, covers in (((), True), (("van-7",), True), (("van-8",), False)):
            passing = Pass(box.keyring, Ignoring())
            assert not passing.covers("van-7"), "before its key"
            hello = Received([], 0, b"", lambda _: b"", token=box.make("ingest", devices=devices))
            assert len(list(passing.judged([hello]))) == 1
            assert passing.covers("van-7") is covers

    guarded(test)
