"""Everything is killed and stopped, at every step of saving and compacting: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.crash_ledger.programs import is_running
from tests.box import KEPT, PROJECT

SECONDS, SEED = 90, 1
END_S = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="crash-") as found:
        yield Path(found)


def run(folder: Path) -> tuple[int, str]:
    """The benchmark in a process of its own, its box in `folder`; returns exit status and output."""
    command = [sys.executable, "-m", "benchmarks.crash_ledger", "--seconds", str(SECONDS), "--seed", str(SEED)]
    command += ["--json", str(folder / "found.json"), "--log", str(folder / "log.txt")]
    environ = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith("WHIMBREL")}
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environ | {"TMPDIR": str(folder)}, text=True, stdout=subprocess.PIPE
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGTERM)  # it ends its box
        process.communicate(timeout=END_S)
        raise
    return process.returncode, output


def left_running(folder: Path) -> list[psutil.Process]:
    """Processes of boxes in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("WHIMBREL__DATA__DIR", "").startswith(str(folder))
        except psutil.Error:
            continue
        if is_ours and is_running(process.pid):
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_doubled_whatever_is_killed(folder: Path) -> None:
    status, output = run(folder)
    assert left_running(folder) == []
    assert status == 0, output[-5_000:]
    found = json.loads((folder / "found.json").read_text())
    assert (found["seed"], found["lost"], found["doubled"], found["anomalies"]) == (SEED, 0, 0, 0)
    assert found["stored"] == found["acknowledged"] + found["unacknowledged_stored"]
    assert found["unacknowledged_stored"] > 0, "no answer was lost"
    assert found["sets_of_pages"] > 0
    assert found["quarantined"] == found["replayed"] > 0
    for what in ("kills_by_point", "stops_by_point"):
        assert [point for point, count in found[what].items() if count == 0] == [], what
    assert found["kills_by_point"].keys() == found["reached_by_point"].keys(), "a step that the schedule does not know"
    assert found["stops_overtaken"] > 0
