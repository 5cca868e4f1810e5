"""`whimbrel send` against servers on real sockets that fail on order."""

from __future__ import annotations

import argparse
import io
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from cli.sending import tcp_sender
from cli.sending.http_sender import read_answer, retry_after_s
from cli.sending.send import COMMAND
from cli.sending.sender import (
    Accepted,
    Answer,
    Batch,
    Busy,
    Patience,
    Refused,
    Tally,
    batches,
    json_array,
    paced,
    settle,
)
from cli.sending.sources import Row, Unreadable
from telemetry.config.settings import Collector, Settings
from telemetry.model.errors import BusyError, ConfigError, SenderError
from tests.cli.fake_box import FakeBox, Reply, framed, http_server, tcp_server

BUSES = Path(__file__).parents[2] / "data" / "liverpool_bus_route14.csv"


class Sent(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def counts(self) -> tuple[int, int, int]:
        counts: dict[str, Any] = json.loads(self.out)
        assert counts.keys() == {"sent", "accepted", "refused", "seconds", "records_per_s"}
        return counts["sent"], counts["accepted"], counts["refused"]


Send = Callable[..., Sent]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Send:
    """The command with these arguments, as `main` would run it."""

    def run(*arguments: object, settings: Settings | None = None) -> Sent:
        parser = argparse.ArgumentParser()
        COMMAND.add_arguments(parser)
        status = COMMAND.run(parser.parse_args([str(one) for one in arguments]), settings or Settings())
        return Sent(status, *capsys.readouterr())

    return run


@pytest.fixture(params=["http", "tcp"])
def over(request: pytest.FixtureRequest) -> str:
    transport: str = request.param
    return transport


@pytest.fixture
def box() -> FakeBox:
    return FakeBox()


@pytest.fixture
def send(over: str, box: FakeBox, run: Send) -> Iterator[Send]:
    """The command with these arguments, to the box, over the transport."""
    with http_server(box.http, box) as url, tcp_server(box) as address:
        yield lambda *arguments, **more: run(
            *arguments, "--over", over, "--url", url, "--tcp", address, "--json", **more
        )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Ten good records, a line each."""
    return write(tmp_path, range(10))


def write(folder: Path, numbers: range, bad: set[int] = frozenset()) -> Path:  # type: ignore[assignment]
    path = folder / "some.ndjson"
    lines = [json.dumps({"device_id": "d", "n": n, "latitude": 91 if n in bad else 1}) for n in numbers]
    path.write_text("\n".join(lines))
    return path


def test_all_arrive_in_order_on_one_connection(send: Send, box: FakeBox, file: Path) -> None:
    sent = send(file, "--batch", 3)
    assert (sent.status, sent.counts, sent.err) == (0, (10, 10, 0), "")
    assert box.stored_n == list(range(10))
    assert [len(message) for message in box.messages] == [3, 3, 3, 1]
    assert box.connections == 1


def test_the_buses(send: Send, box: FakeBox) -> None:
    assert send(BUSES, "--preset", "buses").counts == (1533, 1533, 0)
    assert len(box.stored) == 1533
    assert {record["device_id"] for record in box.stored} >= {"4716"}


def test_csv_with_maps(send: Send, box: FakeBox, tmp_path: Path) -> None:
    path = tmp_path / "some.CSV"
    path.write_text("v,t,n\na,2026-01-01,1\n")
    assert send(path, "--map", "device_id=v", "--map", "timestamp=t").status == 0
    assert box.stored == [{"device_id": "a", "timestamp": "2026-01-01", "n": "1"}]


def test_standard_input(send: Send, box: FakeBox, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert send("-").counts == (10, 10, 0)
    assert box.stored_n == list(range(10))


@pytest.mark.parametrize("bad", [{3}, {0}, {9}, {0, 1, 8}, set(range(10))])
@pytest.mark.parametrize("names_culprit", [True, False])
def test_only_the_bad_are_refused(send: Send, box: FakeBox, tmp_path: Path, bad: set[int], names_culprit: bool) -> None:
    box.names_culprit = names_culprit
    sent = send(write(tmp_path, range(10), bad))
    assert (sent.status, sent.counts) == (1, (10, 10 - len(bad), len(bad)))
    assert sorted(box.stored_n) == [n for n in range(10) if n not in bad]
    for n in bad:
        assert f"some.ndjson, line {n + 1}: latitude: must be between -90 and 90" in sent.err
    assert len(sent.err.splitlines()) == len(bad)


def test_many_bad_ones_cost_few_messages(send: Send, box: FakeBox, tmp_path: Path) -> None:
    bad = set(range(0, 1000, 2))
    assert send(write(tmp_path, range(1000), bad)).counts == (1000, 500, 500)
    assert len(box.messages) <= 2 + 3 * len(bad)
    assert sum(map(len, box.messages)) < 12 * 1000


def test_an_unreadable_line_is_refused(send: Send, box: FakeBox, file: Path) -> None:
    file.write_text('{"n":1}\n{"n":\n{"n":3}\n')
    sent = send(file)
    assert (sent.status, sent.counts, box.stored_n) == (1, (3, 2, 1), [1, 3])
    assert f"{file}, line 2: not a JSON object" in sent.err


def test_busy_is_tried_again(send: Send, box: FakeBox, file: Path) -> None:
    box.faults.extend(["busy", "busy"])
    sent = send(file, "--batch", 2)
    assert (sent.status, sent.counts) == (0, (10, 10, 0))
    assert sorted(box.stored_n) == list(range(10))
    assert sent.err.count("no room; trying again for 60 s") in (1, 2)  # over TCP one may be taken in between


def test_a_cut_connection_is_made_again(send: Send, box: FakeBox, file: Path) -> None:
    box.faults.extend(["", "cut"])
    sent = send(file, "--batch", 1)
    assert (sent.status, sent.counts) == (0, (10, 10, 0))
    assert box.stored_n == list(range(10))
    assert box.connections == 2
    assert "cannot send to" in sent.err


def test_a_refusal_in_the_middle_of_other_faults(send: Send, box: FakeBox, tmp_path: Path) -> None:
    box.faults.extend(["", "busy", "cut", "", "busy", "cut"])
    sent = send(write(tmp_path, range(100), {7, 50}), "--batch", 5)
    assert sent.counts == (100, 98, 2)
    assert sorted(box.stored_n) == [n for n in range(100) if n not in (7, 50)]


def test_a_box_that_stays_away(run: Send, over: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        target = ("--url", f"http://{address}", "--tcp", address)
        with pytest.raises(BusyError, match=r"gave up after 0.3 s: .*; everything before line 1 is answered"):
            run(file, "--over", over, *target, "--retry-seconds", 0.3, "--json", "--batch", 4)
    assert Sent(1, *capsys.readouterr()).counts[1:] == (0, 0)


def test_what_was_read_before_a_source_broke_is_sent(
    send: Send, box: FakeBox, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(file.read_bytes() + b"\n" + b"x" * 2**21)
    with pytest.raises(SenderError, match="line 11: longer than"):
        send(file)
    assert box.stored_n == list(range(10))
    assert Sent(1, *capsys.readouterr()).counts == (10, 10, 0)


def test_messages_stay_below_the_limits(send: Send, box: FakeBox, file: Path) -> None:
    settings = Settings(collector=Collector(max_message_bytes=100, max_body_bytes=100))
    file.write_text("\n".join(json.dumps({"n": n, "x": "x" * (n % 90)}) for n in range(200)))
    sent = send(file, settings=settings)
    lengths = [len(json.dumps(message, separators=(",", ":"))) for message in box.messages]
    assert max(lengths) < 100
    assert sent.counts == (200, len(box.stored), 200 - len(box.stored))
    assert "a record of" in sent.err


@pytest.mark.parametrize("rate", [100, 1000])
def test_rate(send: Send, box: FakeBox, tmp_path: Path, rate: int) -> None:
    sent = send(write(tmp_path, range(rate // 2)), "--rate", rate)
    assert 0.35 < json.loads(sent.out)["seconds"] < 2
    assert max(map(len, box.messages)) == rate // 10
    assert box.stored_n == list(range(rate // 2))


class TestHttp:
    def test_a_lost_answer_doubles_nothing(self, run: Send, file: Path) -> None:
        box = FakeBox("", "lost")
        with http_server(box.http, box) as url:
            assert run(file, "--url", url, "--batch", 4, "--json").counts == (10, 10, 0)
        assert box.stored_n == list(range(10))
        assert len(box.keys) == 4
        assert box.keys[1] == box.keys[2]
        assert len(set(box.keys)) == 3

    def test_parts_of_a_refused_batch_have_keys_of_their_own(self, run: Send, tmp_path: Path) -> None:
        box = FakeBox()
        with http_server(box.http) as url:
            run(write(tmp_path, range(10), {3}), "--url", url)
        assert len(set(box.keys)) == len(box.keys) == 4

    def test_the_refused_value_is_shown(self, run: Send, tmp_path: Path) -> None:
        with http_server(FakeBox().http) as url:
            sent = run(write(tmp_path, range(5), {3}), "--url", url)
        assert sent.err.endswith("some.ndjson, line 4: latitude: must be between -90 and 90 (sent: 91)\n")
        assert sent.out.startswith("5 sent, 4 accepted, 1 refused in ")

    def test_retry_after_is_kept(self) -> None:
        reply = httpx.Response(503, headers={"Retry-After": "7"})
        assert retry_after_s(reply) == 7
        assert retry_after_s(httpx.Response(503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})) == 0
        assert retry_after_s(httpx.Response(503)) == 0
        assert retry_after_s(httpx.Response(503, headers={"Retry-After": "9" * 400})) == 3_600

    @pytest.mark.parametrize(
        "reply", [Reply(404, {"title": "Not Found"}), Reply(301, b""), Reply(202, b"<html>"), Reply(202, {})]
    )
    def test_no_collector(self, run: Send, file: Path, reply: Reply) -> None:
        with http_server(lambda _: reply) as url, pytest.raises(ConfigError, match="cannot use http://"):
            run(file, "--url", url)

    def test_a_problem_that_is_none(self) -> None:
        assert read_answer(httpx.Response(400, content=b"<html>")) == Refused("Bad Request")

    def test_settings_say_where(self, run: Send, file: Path) -> None:
        with http_server(FakeBox().http) as url:
            settings = Settings(collector=Collector(host="0.0.0.0", http_port=httpx.URL(url).port or 0))
            assert run(file, settings=settings).status == 0


class TestTcp:
    def test_several_frames_are_under_way(self, run: Send, tmp_path: Path) -> None:
        """A box that answers only once it has four frames."""
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer() -> None:
                connection, _ = listening.accept()
                with connection, connection.makefile("rb") as frames:
                    for _ in range(4):
                        frames.read(int.from_bytes(frames.read(4), "big"))
                    connection.sendall(b"".join(framed([number, 0, 1, None]) for number in range(1, 5)))

            thread = threading.Thread(target=answer)
            thread.start()
            address = f"127.0.0.1:{listening.getsockname()[1]}"
            sent = run(write(tmp_path, range(4)), "--over", "tcp", "--tcp", address, "--batch", 1, "--json")
            thread.join()
        assert sent.counts == (4, 4, 0)

    @pytest.mark.parametrize("lost", range(5))
    def test_a_lost_answer_doubles_nothing(self, run: Send, file: Path, lost: int) -> None:
        box = FakeBox(*[""] * lost, "lost")
        with tcp_server(box) as address:
            sent = run(file, "--over", "tcp", "--tcp", address, "--batch", 1, "--json")
        assert sent.counts == (10, 10, 0)
        assert box.stored_n == list(range(10))
        assert len(box.numbers) > len(set(box.numbers)) == 10, "the same number comes again"

    def test_numbers_rise_whatever_happens(self, run: Send, tmp_path: Path) -> None:
        """Over each connection, where one is sent again only after a refusal for now; parts are new batches."""
        box = FakeBox("", "busy", "cut", "", "lost", "busy", "", "cut", "busy")
        with tcp_server(box) as address:
            sent = run(
                write(tmp_path, range(100), {7, 50, 51}), "--over", "tcp", "--tcp", address, "--batch", 3, "--json"
            )
        assert sent.counts == (100, 97, 3)
        assert sorted(box.stored_n) == [n for n in range(100) if n not in (7, 50, 51)]
        assert len({sender for sender, _ in box.numbers}) == 1
        first = list(dict.fromkeys(number for _, number in box.numbers))
        assert first == sorted(first)

    def test_each_run_is_a_sender_of_its_own(self, run: Send, file: Path) -> None:
        box = FakeBox()
        with tcp_server(box) as address:
            for _ in range(2):
                run(file, "--over", "tcp", "--tcp", address)
        assert len({sender for sender, _ in box.numbers}) == 2
        assert box.stored_n == [*range(10), *range(10)]

    def test_what_msgpack_cannot_say_is_refused(self, run: Send, tmp_path: Path) -> None:
        box = FakeBox()
        path = tmp_path / "some.ndjson"
        path.write_text(f'{{"n":1}}\n{{"n":{10**30}}}\n{{"n":3}}\n')
        with tcp_server(box) as address:
            sent = run(path, "--over", "tcp", "--tcp", address, "--json")
        assert (sent.counts, box.stored_n) == ((3, 2, 1), [1, 3])
        assert "line 2: cannot be sent as msgpack" in sent.err

    def test_a_batch_that_grows_as_msgpack_is_cut(self, run: Send, tmp_path: Path) -> None:
        box = FakeBox()
        path = tmp_path / "some.ndjson"
        path.write_text("\n".join(json.dumps({"n": n, "x": [0.5] * (150 if n == 7 else 5)}) for n in range(10)))
        settings = Settings(collector=Collector(max_message_bytes=800))
        with tcp_server(box) as address:
            sent = run(path, "--over", "tcp", "--tcp", address, "--json", settings=settings)
        assert sent.counts == (10, 9, 1)
        assert box.stored_n == [n for n in range(10) if n != 7]
        assert "line 8: 1397 bytes as msgpack, at most 800 are taken" in sent.err
        assert max(len(msgspec.msgpack.encode(message)) for message in box.messages) < 800

    @pytest.mark.parametrize(
        ("status", "detail", "expected"),
        [
            (0, None, Accepted(3)),
            (1, None, Accepted(5)),
            (2, {"index": 1, "field": "lat", "reason": "bad"}, Refused("lat: bad", 1)),
            (2, {"index": None, "field": None, "reason": "bad"}, Refused("bad")),
            (3, {"reason": "no room"}, Busy("no room")),
            (4, {"reason": "version"}, None),
            (5, {"reason": "too long"}, Refused("too long")),
            (9, None, None),
        ],
    )
    def test_answers(self, status: int, detail: object, expected: Answer | None) -> None:
        assert tcp_sender.read_answer(framed([1, status, 3, detail])[4:], 5) == expected

    @pytest.mark.parametrize(
        "answer", [b"HTTP/1.1 400 Bad Request\r\n", b'{"message":"?"}\n', framed([1, 4, 0, {"reason": "?"}]), framed(5)]
    )
    def test_no_collector(self, run: Send, file: Path, answer: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def reply() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(answer)
                    connection.recv(2**16)

            thread = threading.Thread(target=reply)
            thread.start()
            address = f"127.0.0.1:{listening.getsockname()[1]}"
            with pytest.raises(ConfigError, match=f"cannot use {address}: it answered"):
                run(file, "--over", "tcp", "--tcp", address)
            thread.join()


class TestBeforeAnythingIsSent:
    @pytest.mark.parametrize(
        ("name", "arguments", "reason"),
        [
            ("none.csv", [], "cannot read .*none.csv: No such file"),
            ("none", [], "cannot read .*none: No such file"),
            ("", [], "cannot read .*: Is a directory"),
            ("some.txt", [], "cannot tell the format of .*some.txt: name it with --format"),
            ("", ["--format", "csv"], "cannot read .*: Is a directory"),
            ("some.csv", ["--map", "device_id=x"], "line 1: no column 'x'"),
            ("some.csv", ["--map", "a=v", "--map", "a=w"], "cannot map one name to two columns"),
            ("some.csv", ["--preset", "ships"], "no column 'ID'"),
        ],
    )
    def test_errors(self, run: Send, tmp_path: Path, name: str, arguments: list[str], reason: str) -> None:
        for some in ("some.csv", "some.txt"):
            (tmp_path / some).write_text("v,w\n1,2\n")
        with pytest.raises(SenderError, match=reason):
            run(tmp_path / name, *arguments, "--url", "http://127.0.0.1:1")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--map", "x"],
            ["--batch", "0"],
            ["--rate", "-1"],
            ["--rate", "nan"],
            ["--url", "127.0.0.1:8001"],
            ["--url", "http://h:x"],
            ["--url", "http://"],
            ["--tcp", "9999"],
            ["--tcp", "h:70000"],
        ],
    )
    def test_arguments(self, run: Send, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            run("f.csv", *arguments)
        assert arguments[0] in capsys.readouterr().err

    def test_an_empty_file_is_all_accepted(self, run: Send, tmp_path: Path) -> None:
        path = tmp_path / "empty.ndjson"
        path.touch()
        assert run(path, "--json", "--url", "http://127.0.0.1:1").counts == (0, 0, 0)


class TestOutput:
    def test_quiet(self, run: Send, file: Path) -> None:
        with http_server(FakeBox().http) as url:
            assert run(file, "--url", url, "--quiet") == (0, "", "")

    def test_progress_is_for_terminals(self, run: Send, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with http_server(FakeBox().http) as url:
            assert "records" in run(file, "--url", url).err
            assert run(file, "--url", url, "--quiet").err == ""


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


class TestPatience:
    def test_waits_longer_each_time_then_gives_up(self) -> None:
        clock, said = FakeClock(), list[str]()
        patience = Patience(20, clock, clock.sleep, said.append)
        for _ in range(9):
            patience.failed("away")
        with pytest.raises(BusyError, match="gave up after 20 s: away"):
            patience.failed("away")
        assert clock.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 3.7]
        assert said == ["away; trying again for 20 s"]

    def test_as_long_as_was_asked_for(self) -> None:
        clock = FakeClock()
        patience = Patience(20, clock, clock.sleep, lambda _: None)
        patience.failed("busy", 7)
        patience.failed("busy", 60)
        assert clock.slept == [7, 13]

    def test_a_success_is_a_new_start(self) -> None:
        clock, said = FakeClock(), list[str]()
        patience = Patience(1, clock, clock.sleep, said.append)
        for _ in range(30):
            patience.failed("away")
            patience.succeeded()
        assert set(clock.slept) == {0.1}
        assert len(said) == 30


class TestPaced:
    def batch(self, n: int) -> Batch:
        return [Row(1, b"{}")] * n

    def test_even(self) -> None:
        clock = FakeClock()
        list(paced([self.batch(5), self.batch(10), self.batch(1)], 10, clock, clock.sleep))
        assert clock.slept == [0.5, 1]

    def test_after_a_stop_it_catches_up_a_little(self) -> None:
        clock = FakeClock()
        for i, _ in enumerate(paced([self.batch(1)] * 20, 10, clock, clock.sleep)):
            clock.now += 60 if i == 0 else 0
        assert len(clock.slept) in (8, 9)  # of 20 batches the first, and a second's worth, don't wait


class TestBatches:
    def test_cut_by_records_and_bytes(self) -> None:
        rows = [Row(i, b"x" * (1 + i % 7)) for i in range(100)]
        cut = list(batches(iter(rows), 4, 20))
        assert [row for batch in cut for row in batch] == rows
        assert {len(batch) for batch in cut} == {2, 3, 4}
        assert max(len(json_array(batch)) for batch in cut) <= 20

    @pytest.mark.parametrize(("max_bytes", "expected"), [(7, 1), (6, 2)])
    def test_the_limit_itself_is_within(self, max_bytes: int, expected: int) -> None:
        assert len(list(batches([Row(1, b"{}"), Row(2, b"{}")], 10, max_bytes))) == expected

    def test_lazy(self) -> None:
        rows = iter([Row(i, b"{}") for i in range(5)])
        assert next(batches(rows, 2, 100)) == [Row(0, b"{}"), Row(1, b"{}")]
        assert next(rows).line == 2


class TestSettle:
    def test_a_culprit_beyond_the_batch_is_no_culprit(self) -> None:
        rows = [Row(i, b"{}") for i in range(5)]
        tally = Tally("f", lambda _: None, lambda _: None)
        assert settle(rows, Refused("why", 5), tally) == [rows[:3], rows[3:]]
        assert settle(rows[:1], Refused("why", 5), tally) == []
        assert tally.refused == 1

    def test_a_short_count_is_not_complete(self) -> None:
        tally = Tally("f", lambda _: None, lambda _: None)
        rows = list(tally.readable([Row(1, b"{}"), Row(2, b"{}")], 100))
        assert settle(rows, Accepted(1), tally) == []
        assert not tally.complete

    def test_unreadable_rows_are_refused(self) -> None:
        said: list[str] = []
        tally = Tally("f", said.append, lambda _: None)
        assert list(tally.readable([Unreadable(7, "why")], 100)) == []
        assert said == ["f, line 7: why"]
        assert (tally.sent, tally.refused, tally.complete) == (1, 1, False)


def test_a_value_is_shown_cut() -> None:
    content = msgspec.json.encode({"field": "x", "reason": "no", "value": "y" * 500, "index": 2})
    answer = read_answer(httpx.Response(400, content=content))
    assert isinstance(answer, Refused)
    assert len(answer.reason) < 120
    assert answer.record == 2
