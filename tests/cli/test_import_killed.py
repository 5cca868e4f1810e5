"""`whimbrel import` into a running box, killed again and again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from telemetry.archive.table import Archive
from telemetry.system.failpoints import VARIABLE
from tests.box import PROJECT, Box
from tests.killer import Killer

ROWS = 700_000
"""Three batches of `whimbrel import`."""


STEPS = ("fence", "settle", "look", "write", "commit", "look", "write", "commit", "note", "latest", "end")
"""Of an undo: its records are of two days or more."""


def write(file: Path) -> None:
    with file.open("w") as out:
        out.write("device_id,timestamp,lat,lon,altitude_m\n")
        out.writelines(f"van {n % 500},{1772323200 + n // 4},41.5,29.5,{n}\n" for n in range(ROWS))


def killed_after(box: Box, file: Path, versions: int, seconds: float) -> int:
    """Import, kill after so many commits and a while; returns the exit status, 0 if it came to its end before."""
    log = box.data / "archive" / "_delta_log"
    first = len(list(log.glob("*.json")))
    command = [sys.executable, "-m", "cli.main", "import", str(file), "--quiet"]
    process = subprocess.Popen(command, cwd=PROJECT, env=box.environ)
    while process.poll() is None and len(list(log.glob("*.json"))) < first + versions:
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    return process.wait()


def rows(box: Box) -> tuple[int, int, int]:
    archive = Archive(box.data / "archive")
    with duckdb.connect() as connection:
        [found] = connection.execute(
            "SELECT count(*), count(DISTINCT altitude_m), count(DISTINCT id) FROM read_parquet($1) "
            "WHERE device_id LIKE 'van %'",
            [archive.files(archive.open())],
        ).fetchall()
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_row_comes_in_once(tmp_path: Path) -> None:
    file = tmp_path / "records.csv"
    write(file)
    with Box(tmp_path) as box:
        box.http.post("/v1/records", json={"device_id": "live", "lat": 1, "lon": 2}).raise_for_status()
        statuses = [killed_after(box, file, 0, 1.0), killed_after(box, file, 1, 0.02), killed_after(box, file, 1, 0.5)]
        box.http.post("/v1/records", json={"device_id": "live", "lat": 1, "lon": 2}).raise_for_status()
        said = box.json("import", str(file), timeout_s=300)
        assert said["imported"] + said["already"] == ROWS
        assert statuses[0] == -9
        assert said["already"] > 0
        assert rows(box) == (ROWS, ROWS, ROWS)
        assert box.json("import", str(file), timeout_s=300)["imported"] == 0
        latest = box.http.get("/v1/devices/van 499/latest").json()
        assert latest["altitude_m"] == ROWS - 1
        box.whimbrel("drain")
        assert rows(box) == (ROWS, ROWS, ROWS)
        assert json.loads(box.whimbrel("recover", "--json").stdout)["apart"] == []
        assert_undone(box, file, said["id"])


def assert_undone(box: Box, file: Path, name: str) -> None:
    """Undo, killed before each of its steps: all of the import goes, and nothing else."""
    killer = Killer(box.data, [f"undo {step}" for step in STEPS])
    command = [sys.executable, "-m", "cli.main", "import", "--undo", name, "--quiet"]
    for _ in STEPS:
        done = subprocess.run(command, cwd=PROJECT, env=box.environ | {VARIABLE: killer.path}, timeout=120)
        assert done.returncode == -signal.SIGKILL
    assert killer.left == []
    assert json.loads(box.whimbrel("import", "--list", "--json").stdout)["state"] == "undo cut off"
    subprocess.run(command, cwd=PROJECT, env=box.environ, check=True, timeout=120)
    assert rows(box) == (0, 0, 0)
    assert [one["device_id"] for one in box.http.get("/v1/latest").json()["records"]] == ["live"]
    assert box.http.get("/v1/devices/van 499/latest").status_code == 404
    assert box.json("import", str(file), timeout_s=300)["imported"] == ROWS
    assert rows(box) == (ROWS, ROWS, ROWS)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_its_memory_is_bounded(tmp_path: Path) -> None:
    """A file four times as long takes hardly more."""
    code = (
        "import resource, sys; from cli.main import main; status = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024); sys.exit(status)"
    )
    with Box(tmp_path) as box:
        peaks = []
        for times in (1, 4):
            file = tmp_path / f"{times}.ndjson"
            line = b'{"device_id":"a","timestamp":%d,"lat":1,"lon":2,"speed":3,"name":"' + b"x" * 100 + b'"}\n'
            with file.open("wb") as out:
                out.writelines(line % (1772323200 + n) for n in range(300_000 * times))
            done = subprocess.run(
                [sys.executable, "-c", code, "import", str(file), "--quiet"],
                cwd=PROJECT,
                env=box.environ,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            peaks.append(int(done.stdout))
        assert peaks[1] < peaks[0] + 250, peaks
