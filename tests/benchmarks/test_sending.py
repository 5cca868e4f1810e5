"""The benchmarks' sender: answers are counted however they are cut, a bad one is no answer, and rates are kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from itertools import repeat

import pytest

from benchmarks import answers, messages
from benchmarks.sending import Answers, Connection, Message, send
from collector.framing.decoder import Received
from collector.protocols import msgpack_frames
from telemetry.system.clock import arrival

NOW = arrival(1_800_000_000_000_000, 0, 86_400, "kmh", 2**20)
GOOD_LINE = b'{"message": "Data received", "accepted": 1}\n'
GOOD_RESPONSE = b'HTTP/1.1 202 Accepted\r\nContent-Length: 14\r\n\r\n{"accepted":1}'
GOOD_CALL = b"*3\r\n*1\r\n:0\r\n:17\r\n:5\r\n"


@pytest.mark.parametrize(
    ("counter", "one"),
    [
        (answers.Frames, msgpack_frames.answer(7, msgpack_frames.STORED, 1_000, None)),
        (answers.Lines, GOOD_LINE),
        (answers.Http, GOOD_RESPONSE),
        (answers.Appended, GOOD_CALL),
    ],
    ids=["frames", "lines", "http", "appended"],
)
def test_answers_are_counted_however_they_are_cut(counter: type[Answers], one: bytes) -> None:
    whole, by_bytes = counter(), counter()
    assert whole.feed(3 * one + one[:-1]) == 3
    assert whole.feed(one[-1:]) == 1
    assert [by_bytes.feed(one[n : n + 1]) for n in range(len(one))] == [0] * (len(one) - 1) + [1]


@pytest.mark.parametrize(
    ("counter", "bad"),
    [
        (answers.Frames, msgpack_frames.answer(7, msgpack_frames.BUSY, 0, {"reason": "full"})),
        (answers.Frames, msgpack_frames.answer(7, msgpack_frames.REPEATED, 0, None)),
        (answers.Lines, b'{"message": "Data could not be processed.", "error": "full", "retry": true}\n'),
        (answers.Http, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
        (answers.Appended, b"*3\r\n*1\r\n:1\r\n:17\r\n:5\r\n"),
        (answers.Appended, b"-DEVICESFULL\r\n"),
    ],
)
def test_what_was_not_stored_is_no_answer(counter: type[Answers], bad: bytes) -> None:
    with pytest.raises(RuntimeError, match=r"not stored|not a good answer|not appended"):
        counter().feed(bad)


def test_frames_are_what_the_collector_reads() -> None:
    [batch] = messages.batches(1_000, a_device=10, devices=50)
    [body] = messages.msgpack_bodies([batch])
    decoder = msgpack_frames.Frames(2**20, 10_000)
    [message] = decoder.feed(messages.frame("bench", 300, messages.on_day(body, 3)).data, NOW)
    assert isinstance(message, Received)
    assert (message.sender, message.number, len(message.records)) == ("bench", 300, 1_000)
    devices = [sent.device_id for sent in message.records]
    assert all(len(set(devices[at : at + 10])) == 1 for at in range(0, 1_000, 10))
    days = {sent.record.timestamp_us // 86_400_000_000 for sent in message.records}
    assert days == {(messages.day(3) - messages.day(0)).days + 20_454}


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that answers each line."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(one: socket.socket) -> None:
        with one:
            while data := one.recv(2**16):
                one.sendall(GOOD_LINE * data.count(b"\n"))

    def accept() -> None:
        for _ in range(2):
            one, _ = listening.accept()
            threads.append(threading.Thread(target=serve, args=(one,)))
            threads[-1].start()

    threads: list[threading.Thread] = [threading.Thread(target=accept)]
    threads[0].start()
    yield listening.getsockname()
    for thread in threads:
        thread.join(10)
    listening.close()


def test_all_is_sent_and_counted(echo: tuple[str, int]) -> None:
    large = Message(b"x" * 3_000_000 + b"\n", 7)
    batch = Message(b"a\nb\n", 2, answers=2)
    load = send(
        [Connection(echo, [large, batch], answers.Lines(), 2), Connection(echo, [batch] * 50, answers.Lines(), 3)]
    )
    assert load.records == 7 + 2 + 100
    assert len(load.taken_ms) == 52
    assert 0 < load.ms(0.5) <= load.ms(0.99)


def test_a_rate_is_kept_and_ends(echo: tuple[str, int]) -> None:
    line = Message(b"a\n")
    load = send([Connection(echo, repeat(line), answers.Lines()) for _ in range(2)], rate=200, seconds=0.5)
    assert 90 <= load.records <= 100
    assert load.seconds > 0.4
