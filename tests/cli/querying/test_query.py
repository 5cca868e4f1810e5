"""`whimbrel latest` and `whimbrel history` against a small API on a real socket."""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import httpx
import pytest
from msgspec import convert

from cli.command import Command
from cli.querying.query import COLUMNS, HISTORY, LATEST, Latest, age, latest_line
from telemetry.config.settings import Api, Settings
from telemetry.model.errors import BusyError, SenderError
from tests.cli.fake_box import Reply, Request, http_server

Record = dict[str, Any]


def position(device: str, n: int) -> Record:
    return {
        "device_id": device,
        "timestamp": f"2026-11-24T10:25:{n % 60:02}.000000Z",
        "received_at": "2026-11-24T10:30:00.000001Z",
        "id": n,
        "transport": "http",
        "source": "json",
        "latitude": 53.4 + n,
        "longitude": -2.925173,
        "altitude_m": None,
        "speed_kmh": 60.0,
        "heading_deg": None,
        "accuracy_m": None,
        "location": 'Q "S",\nü',
        "attributes": {"fuel": 3, "big": 2**63},
    }


class FakeApi:
    """Answers from its records, `page` of them at most at once."""

    def __init__(self, records: list[Record], page: int = 3) -> None:
        self.records = records
        self.page = page
        self.asked: list[str] = []

    def __call__(self, request: Request) -> Reply:
        self.asked.append(request.target)
        url = urlsplit(request.target)
        if url.path.startswith("/v1/devices/"):
            return self._device(unquote(url.path.split("/")[3]))
        params = parse_qs(url.query)
        wanted = [one for one in self.records if one["device_id"] in params.get("device_id", [one["device_id"]])]
        start = int(params.get("cursor", ["0"])[0])
        end = start + min(self.page, int(params.get("limit", ["1000"])[0]))
        cursor = str(end) if end < len(wanted) else None
        return Reply(200, {"records": wanted[start:end], "next_cursor": cursor})

    def _device(self, device: str) -> Reply:
        for one in self.records:
            if one["device_id"] == device:
                return Reply(200, one | {"last_seen": one["received_at"], "position": one})
        return Reply(404, {"title": "Unknown device", "detail": f"no record of device '{device}' was ever received"})


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def records(self) -> list[Record]:
        return [json.loads(line) for line in self.out.splitlines()]


Ask = Callable[..., Answer]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """A command with these arguments, asking this API."""

    def ask(command: Command, api: Callable[[Request], Reply | None], *arguments: str) -> Answer:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        with http_server(api) as url:
            settings = Settings(api=Api(host="127.0.0.1", port=httpx.URL(url).port or 0))
            status = command.run(parser.parse_args(arguments), settings)
        return Answer(status, *capsys.readouterr())

    return ask


class TestLatest:
    @pytest.mark.parametrize("device", ["bus", "a/b", "..", "ü ?&#%2F+", "."])
    def test_one(self, ask: Ask, device: str) -> None:
        api = FakeApi([position("other", 1), position(device, 2)])
        answer = ask(LATEST, api, device, "--json")
        assert answer.status == 0
        assert [one["id"] for one in answer.records] == [2]
        assert answer.records[0]["position"]["attributes"] == {"fuel": 3, "big": 2**63}

    def test_all_over_pages(self, ask: Ask) -> None:
        api = FakeApi([position(f"d{n}", n) for n in range(10)])
        answer = ask(LATEST, api, "--json")
        assert [one["id"] for one in answer.records] == list(range(10))
        assert len(api.asked) == 4

    def test_many_are_asked_for_in_groups(self, ask: Ask) -> None:
        api = FakeApi([position(f"d{n}", n) for n in range(120)], page=1000)
        answer = ask(LATEST, api, *[f"d{n}" for n in range(110)], "--json")
        assert [one["id"] for one in answer.records] == list(range(110))
        assert [len(parse_qs(urlsplit(target).query)["device_id"]) for target in api.asked] == [50, 50, 10]

    def test_unknown_ones(self, ask: Ask) -> None:
        api = FakeApi([position("a", 1)])
        with pytest.raises(SenderError, match=r"no record of device 'x' was ever received \(404\)"):
            ask(LATEST, api, "x")
        answer = ask(LATEST, api, "a", "x")
        assert answer.status == 1
        assert "no record of device 'x'" in answer.err
        assert answer.out.splitlines()[1].startswith("a ")

    def test_table(self, ask: Ask) -> None:
        answer = ask(LATEST, FakeApi([position("bus", 1)]))
        header, line = answer.out.splitlines()
        assert header.split() == ["device", "time", "latitude", "longitude", "km/h", "age"]
        assert line.split()[:5] == ["bus", "2026-11-24T10:25:01Z", "54.4", "-2.925173", "60"]

    def test_a_newest_record_without_a_fix(self) -> None:
        record = {"device_id": "d", "timestamp": "2026-11-24T10:25:00.250000Z", "latitude": None, "longitude": None}
        fix = {"timestamp": "2026-11-24T10:20:00.000000Z", "latitude": 1.25, "longitude": 2.5}
        now = 1795516000.0
        assert latest_line(convert(record | {"position": fix}, Latest), now).split() == [
            *("d", "2026-11-24T10:25:00Z", "1.25", "2.5", "-"),
            *(age(now - 1795515900).split()),
            *("position", "of", "2026-11-24T10:20:00Z"),
        ]
        assert latest_line(convert(record | {"position": None}, Latest), now).split()[2:5] == ["-", "-", "-"]

    def test_a_device_id_can_t_command_the_terminal(self) -> None:
        record = {"device_id": "\x1b[2Jbüs\n", "timestamp": "2026-11-24T10:25:00Z", "latitude": 1, "longitude": 2}
        assert latest_line(convert(record, Latest), 1795516000.0).startswith("\\x1b[2Jbüs\\n ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d"), (-5, "-5 s"), (-7200, "-2 h")],
)
def test_age(seconds: float, text: str) -> None:
    assert age(seconds) == text


class TestHistory:
    def test_pages_are_followed(self, ask: Ask) -> None:
        api = FakeApi([position("a", n) for n in range(10)])
        answer = ask(HISTORY, api, "--json")
        assert answer.status == 0
        assert [one["id"] for one in answer.records] == list(range(10))
        assert answer.records[0] == position("a", 0)

    def test_limit_counts_all_pages(self, ask: Ask) -> None:
        api = FakeApi([position("a", n) for n in range(10)])
        assert len(ask(HISTORY, api, "--json", "--limit", "7").records) == 7
        assert [parse_qs(urlsplit(target).query)["limit"] for target in api.asked] == [["7"], ["4"], ["1"]]
        assert len(ask(HISTORY, api, "--json", "--limit", "70").records) == 10

    def test_the_question(self, ask: Ask) -> None:
        api = FakeApi([])
        times = ("--start", "2026-01-01T00:00:00+01:00", "--end", "2026-02-01")
        answer = ask(HISTORY, api, "a/b", "c&d", *times, "--order", "desc")
        assert answer.out == ",".join(COLUMNS) + "\n"
        (target,) = api.asked
        assert urlsplit(target).path == "/v1/records"
        assert parse_qsl(urlsplit(target).query) == [
            ("device_id", "a/b"),
            ("device_id", "c&d"),
            ("start", "2026-01-01T00:00:00+01:00"),
            ("end", "2026-02-01"),
            ("order", "desc"),
            ("limit", "5000"),
        ]

    def test_table(self, ask: Ask) -> None:
        answer = ask(HISTORY, FakeApi([position("a", 1), position("b", 2)]))
        rows = list(csv.DictReader(io.StringIO(answer.out)))
        assert [row["device_id"] for row in rows] == ["a", "b"]
        assert rows[0]["location"] == 'Q "S",\nü'
        assert rows[0]["altitude_m"] == ""
        assert json.loads(rows[0]["attributes"]) == {"fuel": 3, "big": 2**63}
        assert set(rows[0]) == set(position("a", 1))

    def test_a_wrong_question(self, ask: Ask) -> None:
        with pytest.raises(SenderError, match=r"start: no such day \(400\)"):
            ask(HISTORY, lambda _: Reply(400, {"title": "Bad", "detail": "start: no such day"}), "--start", "x")

    @pytest.mark.parametrize("reply", [Reply(503, {"title": "busy"}), Reply(502, b"<html>"), None])
    def test_an_api_that_can_t_answer(self, ask: Ask, reply: Reply | None) -> None:
        with pytest.raises(BusyError):
            ask(HISTORY, lambda _: reply)

    def test_a_reader_that_has_had_enough(self) -> None:
        api = FakeApi([position("a", n) for n in range(20_000)], page=5_000)
        program = "import argparse, sys; from cli.querying.query import HISTORY as H\n"
        program += "from telemetry.config.settings import Settings\n"
        program += "p = argparse.ArgumentParser(); H.add_arguments(p); sys.exit(H.run(p.parse_args(), Settings()))"
        with http_server(api) as url:
            command = [sys.executable, "-c", program, "--url", url, "--json"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                assert b'"id": 0' in process.stdout.readline()
                process.stdout.close()
                assert process.stderr.read() == b""
                assert process.wait(20) == 0
        assert len(api.asked) < 4
