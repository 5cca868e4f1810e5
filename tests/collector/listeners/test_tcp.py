"""The TCP collector on real sockets with a real Redis: replies in order, limits, and clean ends of connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
import redis

from collector.framing.decoder import MORE_S, QUIET_S, Message
from collector.framing.frame_decoder import Options
from collector.listeners import tcp as tcp_module
from collector.listeners.connection import time_limits
from collector.listeners.connection.read_pacing import TURN_BYTES
from collector.listeners.connection.time_limits import Timeouts
from collector.listeners.tcp_connection import Connection
from collector.protocols.json_stream import JsonStream
from collector.trackers.nmea import Nmea
from telemetry.archive.table import Archive
from telemetry.codec.record_parser import Arrival
from telemetry.coordination import rejection_counts
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Shard
from telemetry.observability import metrics
from telemetry.startup.store_setup import set_up
from tests.collector.conftest import (
    HOST,
    NOT_PROCESSED,
    RECEIVED,
    Connect,
    collecting,
    line,
    numbers,
    run,
    tail,
)
from tests.collector.listeners.senders import WAIT_S, sending, until
from tests.conftest import RedisServer, settings_of

PAUSE_MS = 20_000
OLDER = b'{"device_id":"o","location":"x","speed":1}'
OLDER_ANSWER = b'{"message": "Data received", "data": [{"device_id": "o", "location": "x", "speed": 1}]}'
OLDER_NOT_PROCESSED = b'{"message": "There was an error processing the data."}'


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at time limits more often than the program does."""
    monkeypatch.setattr(tcp_module, "SWEEP_S", 0.02)


# Answers ---------------------------------------------------------------------------------------------


def test_a_line_is_stored_before_its_answer(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            for number in range(3):
                await sender.send(line("d", number))
                assert await sender.answer() == RECEIVED
                assert numbers(tail(shard, "d")) == list(range(number + 1))
            assert {stored.record.transport for stored in tail(shard, "d")} == {"tcp"}

    run(test)


def test_answers_come_in_the_order_of_their_lines(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    """Also replies that need no store, after lines that are still being stored."""

    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            client.client_pause(PAUSE_MS, all=False)
            await sender.send(line("d", 1) + b'{"device_id":""}\n[]\n{bad\n' + line("d", 2) + b"5\n")
            await asyncio.sleep(0.05)
            assert shard.unsaved() == 0
            client.client_unpause()
            answers = [json.loads(answer) for answer in await sender.answers(6)]
            assert [answer.get("accepted") for answer in answers] == [1, None, 0, None, 1, None]
            assert answers[1] == {
                "message": "Invalid input data format.",
                "error": "record 0: device_id: must not be blank",
                "retry": False,
            }
            assert [answer["message"] for answer in answers[3::2]] == [
                "Invalid JSON format.",
                "Invalid input data format.",
            ]

    run(test)


def test_a_value_in_any_number_of_pieces(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            for byte in b'[{"device_id":"d",\n"altitude":7},\r\n{"device_id":"d","altitude":8}]\n':
                await sender.send(bytes([byte]))
            assert await sender.answer() == b'{"message": "Data received", "accepted": 2}\n'
            assert numbers(tail(shard, "d")) == [7, 8]

    run(test)


def test_a_half_closed_sender_gets_all_answers(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            client.client_pause(PAUSE_MS, all=False)
            await sender.send(b"".join(line("d", number) for number in range(300)) + line("d", 300).strip())
            sender.end()
            await asyncio.sleep(0.05)
            client.client_unpause()
            assert await sender.rest() == RECEIVED * 301
            assert numbers(tail(shard, "d")) == list(range(301))

    run(test)


def test_the_end_of_sending_closes_at_once(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            await sender.send(line("d"))
            assert await sender.answer() == RECEIVED
            sender.end()
            began_s = time.monotonic()
            assert await sender.rest() == b""
            await until(lambda: not box.tcp._connections)
            assert time.monotonic() - began_s < 1

    run(test)


def test_silence_shows_an_error_and_answers_what_is_behind(connect_shared: Connect, shard: Shard) -> None:
    """A line that was cut off, so long that the valid line after it does not yet cause a check."""

    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            await sender.send(b'{"device_id":"' + b"d" * 100 + b'",\n' + line("d", 1))
            first, second = await sender.answers(2)
            assert json.loads(first)["message"] == "Invalid JSON format."
            assert second == RECEIVED

    run(test)


# Older messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_half_closed", [False, True])
def test_an_older_message_is_answered_and_the_connection_closed(
    connect_shared: Connect, shard: Shard, is_half_closed: bool
) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            began_s = time.monotonic()
            await sender.send(OLDER)
            if is_half_closed:
                sender.end()
            assert await sender.rest() == OLDER_ANSWER
            assert is_half_closed or time.monotonic() - began_s > 0.9 * QUIET_S
            assert [stored.record.source for stored in tail(shard, "o")] == ["older"]

    run(test)


def test_an_older_message_may_come_in_pieces_with_pauses(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            for piece in (OLDER[:1], OLDER[1:20], OLDER[20:]):
                await asyncio.sleep(0.15)
                await sender.send(piece)
            assert await sender.rest() == OLDER_ANSWER

    run(test)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"{invalid_json:}", b'{"message": "Invalid JSON format."}'),
        (b"\n", b'{"message": "Invalid JSON format."}'),
        (b"not json at all", b'{"message": "Invalid JSON format."}'),
        (b'{"device_id":"a"}', b'{"message": "Invalid input data. Missing fields: location, speed"}'),
    ],
)
def test_a_bad_older_message(connect_shared: Connect, data: bytes, answer: bytes) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            await sender.send(data)
            assert await sender.rest() == answer

    run(test)


def test_a_reset_does_not_swallow_the_answer_if_more_data_comes(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    """Closing a socket with unread data sends a reset, and a reset discards data that the peer has not read."""

    async def test() -> None:
        async with collecting(connect_shared) as box:
            loop = asyncio.get_running_loop()
            with socket.socket() as sender:
                sender.setblocking(False)
                await loop.sock_connect(sender, (HOST, box.port))
                await loop.sock_sendall(sender, OLDER)
                client.client_pause(PAUSE_MS, all=False)
                await asyncio.sleep(0.2)
                await loop.sock_sendall(sender, b"more " * 1_000)
                client.client_unpause()
                await asyncio.sleep(0.1)
                await loop.sock_sendall(sender, b"and more " * 1_000)
                await asyncio.sleep(0.1)
                received = b""
                while piece := await asyncio.wait_for(loop.sock_recv(sender, 10), WAIT_S):
                    received += piece
                assert received == OLDER_ANSWER

    run(test)


def test_a_sender_that_goes_on_after_the_end_is_let_go_of(
    connect_shared: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "LINGER_S", 0.2)

    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            await sender.send(b"{}")
            await sender.rest()
            began_s = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - began_s < WAIT_S:
                    await sender.send(b"more")
                    await asyncio.sleep(0.01)
            assert 0.1 < time.monotonic() - began_s < 2

    run(test)


def break_one(connection: Connection, method: str) -> None:
    """Give a connection a fault of its own."""

    def broken(*_arguments: object, **_more: object) -> None:
        raise RuntimeError("this connection is broken")

    members = {"__slots__": (), method: broken}
    connection.__class__ = type("Broken", (Connection,), members)


def test_an_error_of_one_connection_costs_only_that_one(connect_shared: Connect) -> None:
    """The others are still cut when they are silent."""

    async def test() -> None:
        counted = metrics.LOOP_ERRORS.of("idle connections").value
        async with (
            collecting(connect_shared, Timeouts(message_s=60, idle_s=0.3)) as box,
            contextlib.AsyncExitStack() as stack,
        ):
            senders = [await stack.enter_async_context(sending(box)) for _ in range(5)]
            await until(lambda: len(box.tcp._connections) == len(senders))
            first = next(iter(box.tcp._connections))
            break_one(first, "check")
            await until(lambda: not box.tcp._connections)
            assert metrics.LOOP_ERRORS.of("idle connections").value == counted + 1

    run(test)


def test_an_answer_that_fails_costs_no_other_its_answer(connect_shared: Connect, client: redis.Redis) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            await until(lambda: len(box.tcp._connections) == 1)
            [connection] = box.tcp._connections
            async with sending(box) as other:
                client.client_pause(PAUSE_MS, all=False)
                for one in (sender, other):
                    await one.send(line("d"))
                await until(lambda: sum(len(one._replies) for one in box.tcp._connections) == 2)
                break_one(connection, "reply")
                client.client_unpause()
                assert await other.answer() == RECEIVED
                assert await sender.rest() == b""

    run(test)


def test_a_connection_that_cannot_end_keeps_no_other_from_its_last_answer(
    connect_shared: Connect, client: redis.Redis
) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, contextlib.AsyncExitStack() as stack:
            senders = [await stack.enter_async_context(sending(box)) for _ in range(3)]
            client.client_pause(PAUSE_MS, all=False)
            for one in senders:
                await one.send(line("d"))
            await until(lambda: sum(len(one._replies) for one in box.tcp._connections) == len(senders))
            first = next(iter(box.tcp._connections))
            break_one(first, "finish")
            stopping = asyncio.create_task(box.tcp.stop(WAIT_S))
            await asyncio.sleep(0.05)
            client.client_unpause()
            await stopping
            rests = await asyncio.gather(*(one.rest() for one in senders), return_exceptions=True)
            assert rests.count(RECEIVED) == len(senders) - 1

    run(test)


# Sentences of one second -----------------------------------------------------------------------------

RMC = b"van7/$GPRMC,120000.000,A,4100.4920,N,02858.7040,E,19.44,270,010326,,\n"
GGA = b"van7/$GPGGA,120000.000,4100.4920,N,02858.7040,E,1,08,1.0,12.5,M,16.2,M,,\n"


def make_nmea() -> Nmea:
    return Nmea(Options())


def fixes(shard: Shard) -> list[tuple[bool, float | None]]:
    """For each record: whether it has a speed, from RMC, and its altitude, from GGA."""
    return [(one.record.speed_kmh is not None, one.record.altitude_m) for one in tail(shard, "van7")]


@pytest.mark.parametrize("pause_s", [0.02, 0.15, 0.5, 0.8])
def test_sentences_of_one_second_are_one_record(connect_shared: Connect, shard: Shard, pause_s: float) -> None:
    async def test() -> None:
        async with collecting(connect_shared, make_decoder=make_nmea) as box, sending(box) as sender:
            await sender.send(RMC)
            await asyncio.sleep(pause_s)
            assert fixes(shard) == []
            await sender.send(GGA)
            await until(lambda: fixes(shard) != [])
            await asyncio.sleep(2 * QUIET_S)
            assert fixes(shard) == [(True, 12.5)]

    run(test)


def test_silence_of_a_second_makes_a_record(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared, make_decoder=make_nmea) as box, sending(box) as sender:
            began_s = time.monotonic()
            await sender.send(RMC)
            await until(lambda: fixes(shard) == [(True, None)])
            assert time.monotonic() - began_s > 0.9 * MORE_S

    run(test)


@pytest.mark.parametrize("begun", [b"", b"van7/$GPGG"], ids=["whole", "another has begun"])
@pytest.mark.parametrize("ending", ["end", "close", "reset", "stop"])
def test_a_record_that_waits_for_more_outlives_its_connection(
    connect_shared: Connect, shard: Shard, ending: str, begun: bytes
) -> None:
    async def test() -> None:
        async with collecting(connect_shared, make_decoder=make_nmea) as box, sending(box) as sender:
            await sender.send(RMC + begun)
            await until(lambda: [one.decoder.held_bytes for one in box.tcp._connections] == [len(RMC + begun)])
            await box.tcp.stop(WAIT_S) if ending == "stop" else getattr(sender, ending)()
            await until(lambda: fixes(shard) == [(True, None)])

    run(test)


# When the store is away ------------------------------------------------------------------------------


def test_while_redis_is_away_senders_are_told_to_retry(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)

    async def test() -> None:
        with connect(settings) as client:
            set_up(client, Archive(settings.archive_dir), 1)
        async with collecting(lambda: connect(settings)) as box, sending(box) as sender:
            await sender.send(line("d", 1))
            assert await sender.answer() == RECEIVED
            own_redis.kill()
            await sender.send(line("d", 2) + b"nonsense\n")
            answer = json.loads(await sender.answer())
            assert (answer["message"], answer["retry"]) == (NOT_PROCESSED, True)
            assert "cannot reach Redis" in answer["error"]
            assert json.loads(await sender.answer())["retry"] is False
            async with sending(box) as older:
                await older.send(OLDER)
                assert await older.rest() == OLDER_NOT_PROCESSED
            own_redis.start()
            await sender.send(line("d", 3))
            assert await sender.answer() == RECEIVED
        with connect(settings) as client:
            [shard] = set_up(client, Archive(settings.archive_dir), 1)
            assert numbers(tail(shard, "d")) == [1, 3]

    run(test)


# Many and bad senders --------------------------------------------------------------------------------


def test_a_thousand_connections_at_once(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, contextlib.AsyncExitStack() as stack:
            senders = [await stack.enter_async_context(sending(box)) for _ in range(1_000)]
            for number, sender in enumerate(senders):
                await sender.send(line(f"d{number}", 1) + line(f"d{number}", 2))
            for sender in senders:
                assert await sender.answers(2) == [RECEIVED] * 2
            assert shard.unsaved() == 2_000

    run(test)


BAD = {
    "nonsense": b"nonsense\n" * 20_000,
    "cut off": b'{"device_id":"a",\n' * 10_000,
    "too long": b'{"device_id":"' + b"x" * 2**20 + b'"}\n',
    "too deep": b"[" * 100_000 + b"\n",
    "bytes": bytes(range(256)) * 100 + b"\n",
    "bad values": b'{"device_id":"a","lat":99}\n' * 5_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_bad_sender_costs_only_itself(connect_shared: Connect, shard: Shard, data: bytes) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as good, sending(box) as bad:
            await good.send(b'{"device_id":')
            await bad.send(line("b"))
            sending_bad = asyncio.ensure_future(bad.send(data))
            await good.send(b'"d"}\n')
            assert await good.answer() == RECEIVED
            assert await bad.answer() == RECEIVED
            assert json.loads(await bad.answer())["retry"] is False
            await good.send(line("d"))
            assert await good.answer() == RECEIVED
            bad.abort()
            with contextlib.suppress(ConnectionError):
                await sending_bad

    run(test)
    assert len(tail(shard, "d")) == 2


def test_halves_of_messages_are_bounded_together(connect_shared: Connect, shard: Shard) -> None:
    half = b'{"device_id":"' + b"x" * 600

    async def test() -> None:
        async with collecting(connect_shared, max_held_bytes=1_000) as box, sending(box) as first:
            await first.send(half)
            await until(lambda: box.tcp.arriving.bytes == len(half))
            async with sending(box) as second, sending(box) as third:
                await second.send(half)
                assert await second.rest() == b""
                await third.send(line("d"))
                assert await third.answer() == RECEIVED
            assert box.tcp.arriving.bytes == len(half)
            await first.send(b'"}\n')
            assert json.loads(await first.answer())["retry"] is False, "its device has a long name"
            await until(lambda: box.tcp.arriving.bytes == 0)
            async with sending(box) as fourth:
                await fourth.send(half)
                await until(lambda: box.tcp.arriving.bytes == len(half))
            await until(lambda: box.tcp.arriving.bytes == 0)

    run(test)
    assert len(tail(shard, "d")) == 1


def test_one_alone_may_always_keep_a_whole_message(connect_shared: Connect) -> None:
    async def test() -> None:
        async with collecting(connect_shared, max_held_bytes=10) as box, sending(box) as sender:
            await sender.send(b'{"device_id":"d",\n' + b" " * 60_000)
            await asyncio.sleep(0.05)
            await sender.send(b'"altitude":1}\n')
            assert await sender.answer() == RECEIVED

    run(test)


def test_what_is_refused_is_counted(connect_shared: Connect) -> None:
    before = Counter(rejection_counts._counted)

    async def test() -> None:
        async with collecting(connect_shared, Timeouts(message_s=0.1), max_connections=3) as box:
            async with sending(box) as sender, sending(box) as slow, sending(box) as silent:
                await slow.send(b'{"device')
                async with sending(box) as more:
                    assert await more.rest() == b""
                await sender.send(b"nonsense\n" * 3 + b'{"device_id":""}\n' * 2 + line("d"))
                await sender.answers(6)
                silent.end()
                await silent.rest()
                assert await slow.rest() == b""
            async with sending(box) as binary:
                await binary.send(b"\x81\xc1")
                await binary.rest()

    run(test)
    found = Counter(rejection_counts._counted) - before
    assert found == {"invalid-json": 3, "invalid-record": 2, "invalid-msgpack": 1, "busy": 1, "timed-out": 1}


def test_senders_have_turns(connect_shared: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of the costliest nonsense delays a good sender by a few turns, not by the whole flood."""
    fed: list[int] = []
    feed = JsonStream.feed

    def noting(decoder: JsonStream, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        fed.append(len(data))
        return feed(decoder, data, arrival)

    monkeypatch.setattr(JsonStream, "feed", noting)

    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as good, sending(box) as bad:
            flood = asyncio.ensure_future(bad.send(b"x\n" * 1_000_000))
            reading = asyncio.ensure_future(bad.rest())
            await until(lambda: bool(fed))
            await good.send(line("d"))
            assert await good.answer() == RECEIVED
            assert max(fed) <= TURN_BYTES
            assert sum(fed) < 10 * TURN_BYTES
            bad.abort()
            await asyncio.gather(flood, reading, return_exceptions=True)

    run(test)


def test_one_that_is_gone_before_its_answer_disturbs_nobody(
    connect_shared: Connect, shard: Shard, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as stays:
            client.client_pause(PAUSE_MS, all=False)
            async with sending(box) as goes:
                await goes.send(line("d", 1) * 10)
                await asyncio.sleep(0.02)
                goes.abort()
            await stays.send(line("d", 2))
            await asyncio.sleep(0.02)
            client.client_unpause()
            assert await stays.answer() == RECEIVED
            assert shard.unsaved() == 11
            assert len(box.tcp._connections) == 1

    with caplog.at_level(logging.WARNING):
        run(test)
    assert caplog.records == []


def test_more_connections_than_may_be_are_closed(connect_shared: Connect) -> None:
    async def test() -> None:
        async with collecting(connect_shared, max_connections=2) as box, sending(box) as first:
            await first.send(line("d"))
            assert await first.answer() == RECEIVED
            async with sending(box) as second, sending(box) as third:
                await second.send(line("d"))
                assert await second.answer() == RECEIVED
                assert await third.rest() == b""
                await first.send(line("d"))
                assert await first.answer() == RECEIVED
            await until(lambda: len(box.tcp._connections) == 1)
            async with sending(box) as fourth:
                await fourth.send(line("d"))
                assert await fourth.answer() == RECEIVED

    run(test)


# The end ---------------------------------------------------------------------------------------------


def test_stop_answers_what_was_taken_and_closes_all(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as busy, sending(box) as idle:
            await idle.send(line("d"))
            await idle.answer()
            client.client_pause(PAUSE_MS, all=False)
            await busy.send(line("d", 1) * 3 + b'{"device_id":')
            await asyncio.sleep(0.05)
            stopping = asyncio.ensure_future(box.tcp.stop(5))
            assert await idle.rest() == b""
            client.client_unpause()
            assert await busy.rest() == RECEIVED * 3
            await asyncio.wait_for(stopping, 1)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, box.port)

    run(test)


def test_stop_does_not_wait_longer_than_its_grace(connect_shared: Connect, client: redis.Redis) -> None:
    async def test() -> None:
        async with collecting(connect_shared) as box, sending(box) as sender:
            client.client_pause(PAUSE_MS, all=False)
            await sender.send(line("d"))
            await asyncio.sleep(0.05)
            began_s = time.monotonic()
            await box.tcp.stop(0.2)
            assert 0.1 < time.monotonic() - began_s < 1
            client.client_unpause()

    run(test)


# The log ---------------------------------------------------------------------------------------------


def test_the_log_says_of_which_connection_and_why_but_nothing_that_was_sent(
    connect_shared: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        timeouts = Timeouts(message_s=0.3, idle_s=60)
        async with (
            collecting(connect_shared, timeouts, max_message_bytes=99) as box,
            sending(box) as good,
            sending(box) as slow,
            sending(box) as large,
        ):
            await good.send(line("d") + b'{"device_id": "OUR-VAN", "latitude": "OUR-PLACE"}\n')
            await good.answers(2)
            await slow.send(b'{"device_id": "OUR-VAN')
            await slow.rest()
            await large.send(b'{"device_id": "' + b"OUR-VAN" * 50)
            await large.rest()

    with caplog.at_level(logging.DEBUG, "collector.listeners.connection.connection_log"):
        run(test)
    texts: dict[str, list[str]] = {}
    for record in caplog.records:
        if record.name == "collector.listeners.connection.connection_log":
            what = record.getMessage().partition(": ")[2]
            texts.setdefault(record.__dict__["connection"], []).append(what)
    assert sorted(texts) == ["c1", "c2", "c3"]
    assert all(of_one[0].startswith("opened, on port ") and of_one[-1] == "closed" for of_one in texts.values())
    assert sorted(of_one[1] for of_one in texts.values()) == [
        "closed for a message of json: body-too-large",
        "closed: a message took more than 0.3 s to arrive",
        "rejected a message of json: invalid-record",
    ]
    assert "OUR" not in caplog.text
    name = "collector.listeners.connection.connection_log"
    assert len({record.lineno for record in caplog.records if record.name == name}) == 5, "not alike"
