"""The whole path on a running box: messages of real devices come back from `export`, row by row."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import psutil
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from telemetry.config.loader import load
from telemetry.hot_store.client import connect
from tests.box import PROJECT, Box

BUSES = PROJECT / "tests" / "data" / "liverpool_bus_route14.csv"
SHIPS = PROJECT.parent / "shared" / "data" / "suez_boats.csv"

pytestmark = pytest.mark.slow

Row = tuple[object, ...]


def iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def sent_buses() -> Counter[Row]:
    rows: Counter[Row] = Counter()
    with BUSES.open(newline="") as file:
        for row in csv.DictReader(file):
            others = ("id", "trip_id", "origin", "destination", "route_name", "direction", "operator")
            attributes = json.dumps({name: row[name] for name in others if row[name]}, sort_keys=True)
            heading = float(row["bearing"]) if row["bearing"] else None
            when = iso(datetime.fromisoformat(row["timestamp"]))
            rows[row["vehicle_id"], when, float(row["latitude"]), float(row["longitude"]), heading, attributes] += 1
    return rows


def sent_ships() -> Counter[Row]:
    rows: Counter[Row] = Counter()
    with SHIPS.open(newline="") as file:
        for row in csv.DictReader(file):
            when = iso(datetime.strptime(row["ais_pos_timestamp"], "%d/%m/%Y %H:%M").replace(tzinfo=UTC))
            rows[row["ID"], when, float(row["latitude"]), float(row["longitude"]), None, None] += 1
    return rows


def row_of(values: dict[str, str]) -> Row:
    """A row of an export as CSV."""
    attributes = json.dumps(json.loads(values["attributes"]), sort_keys=True) if values["attributes"] else None
    heading = float(values["heading_deg"]) if values["heading_deg"] else None
    place = float(values["latitude"]), float(values["longitude"])
    return values["device_id"], values["timestamp"], *place, heading, attributes


def exported(box: Box, file: Path, *arguments: str) -> Counter[Row]:
    done = box.json("export", str(file), *arguments)
    with file.open(newline="") as rows:
        found = Counter(row_of(row) for row in csv.DictReader(rows))
    assert found.total() == done["records"]
    return found


DATA_SETS = [pytest.param("buses", BUSES, sent_buses, id="buses"), pytest.param("ships", SHIPS, sent_ships, id="ships")]


def need(file: Path) -> None:
    if not file.exists():
        pytest.skip(f"{file.name} is not in the project; it is read from the shared data folder")


@pytest.mark.parametrize(("preset", "file", "expected"), DATA_SETS)
def test_export_gives_back_what_was_sent(
    preset: str, file: Path, expected: Callable[[], Counter[Row]], tmp_path: Path
) -> None:
    need(file)
    with Box(tmp_path, persist__flush_seconds="3600", persist__flush_records="200000") as box:
        send = ("send", str(file), "--preset", preset, "--over")
        rows = expected()
        done = box.json(*send, "http")
        assert (done["accepted"], done["refused"]) == (rows.total(), 0)
        assert exported(box, tmp_path / "before.csv") == rows
        assert box.json("drain")["saved"] == rows.total()
        assert exported(box, tmp_path / "after.csv") == rows
        done = box.json(*send, "tcp")
        assert (done["accepted"], done["refused"]) == (rows.total(), 0)
        twice = rows + rows
        assert exported(box, tmp_path / "half-way.csv") == twice
        box.json("drain")
        assert exported(box, tmp_path / "all.csv") == twice
        box.json("export", str(tmp_path / "all.parquet"))
        assert pq.read_metadata(tmp_path / "all.parquet").num_rows == twice.total()
        assert box.stop() == 0


def test_a_position_is_everywhere_it_should_be(tmp_path: Path) -> None:
    with Box(tmp_path, persist__flush_seconds="1") as box:
        sent = {"device_id": "van 7", "timestamp": "2026-11-20T10:25:00.000000Z", "lat": 53.4, "lon": -2.9, "fuel": 12}
        answer = box.http.post("/v1/records", json=sent)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
        latest = box.http.get("/v1/devices/van 7/latest").json()
        assert (latest["timestamp"], latest["latitude"], latest["attributes"]) == (
            sent["timestamp"],
            53.4,
            {"fuel": 12},
        )
        one_day = {"device_id": "van 7", "start": "2026-11-20", "end": "2026-11-20"}
        before = box.http.get("/v1/records", params=one_day).json()
        assert len(before["records"]) == 1
        with socket.create_connection(("127.0.0.1", box.tcp_port), 10) as device:
            device.sendall(b'{"device_id":"van 8","location":"53.5,-2.8","speed":"55.5"}')
            device.settimeout(10)
            assert device.recv(1024).startswith(b'{"message": "Data received"')
        assert box.http.get("/tcp_tracking/data/latest/van 8/").json()["speed"] == 55.5
        files = wait_for_files(box, 2)
        with duckdb.connect() as db:
            rows = db.execute("SELECT device_id, transport FROM read_parquet($1) ORDER BY 1", [files]).fetchall()
        assert rows == [("van 7", "http"), ("van 8", "tcp")]
        assert box.http.get("/v1/records", params=one_day).json() == before
        assert not loaded(box, "numpy") | loaded(box, "pandas"), (
            "30 MB in each program (telemetry/startup/import_blocker.py)"
        )
        assert loaded(box, "duckdb") == {"worker", "api.query"}
        assert box.stop() == 0


def loaded(box: Box, library: str) -> set[str]:
    """The box's programs that have code of a library in memory."""
    programs = [p for p in psutil.Process(box.pid).children(recursive=True) if "-m" in p.cmdline()]
    found = [p for p in programs if any(library in part.path for part in p.memory_maps())]
    return {p.cmdline()[p.cmdline().index("-m") + 1] for p in found}


def wait_for_files(box: Box, records: int) -> list[str]:
    """The committed files, once they contain the expected number of records."""
    stop_s = time.monotonic() + 30
    while True:
        files = DeltaTable(str(box.data / "archive")).file_uris()
        if files and sum(pq.read_metadata(file).num_rows for file in files) == records:
            return files
        assert time.monotonic() < stop_s, f"not {records} records in {files}"
        time.sleep(0.2)


def test_nothing_is_lost_when_everything_is_killed(tmp_path: Path) -> None:
    with Box(tmp_path, persist__flush_seconds="1") as box:
        for number in range(50):
            answer = box.http.post(
                "/v1/records", json={"device_id": "a", "altitude": number, "time": 1795478400 + number}
            )
            assert answer.status_code == 202
        box.kill()
        box.start()
        found = box.http.get("/v1/records?device_id=a").json()["records"]
        assert [record["altitude_m"] for record in found] == list(range(50))
        wait_for_files(box, 50)
        assert box.stop() == 0
        box.start()
        assert box.http.get("/v1/records?device_id=a").json()["records"] == found


class Lasting(NamedTuple):
    """A box whose programs are killed one after another, and all that was sent to it."""

    box: Box
    sent: Counter[Row]

    def send(self) -> None:
        self.box.json("send", str(BUSES), "--preset", "buses")
        self.sent.update(sent_buses())


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lasting]:
    with Box(tmp_path_factory.mktemp("lasting"), persist__flush_seconds="1") as box:
        yield Lasting(box, Counter())
        assert box.stop() == 0


@pytest.mark.parametrize("program", ["worker", "redis", "api", "collector", "scheduler"])
def test_a_killed_program_comes_back_and_nothing_is_missed(program: str, lasting: Lasting, tmp_path: Path) -> None:
    lasting.send()
    kill(lasting.box, program)
    lasting.send()
    wait_for_files(lasting.box, lasting.sent.total())
    assert exported(lasting.box, tmp_path / "all.csv") == lasting.sent


PROGRAMS = {
    "worker": "-m worker",
    "api": "-m api",
    "query": "-m api.query",
    "collector": "-m collector",
    "scheduler": "-m compactor",
}


def kill(box: Box, program: str) -> None:
    """SIGKILL to one program of this box."""
    if program == "redis":
        with connect(load(environ=box.environ)) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        return
    [process] = [
        p for p in psutil.process_iter() if is_of(p, box) and " ".join(p.cmdline()).endswith(PROGRAMS[program])
    ]
    process.kill()


def is_of(process: psutil.Process, box: Box) -> bool:
    """Whether a process was started with this box's settings."""
    try:
        return process.environ().get("WHIMBREL__DATA__DIR") == str(box.data)
    except psutil.Error:
        return False
