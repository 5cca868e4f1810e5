"""The devices of examples/ with a real box: compiled, run, and disconnected at the worst moments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.box import PROJECT, Box
from tests.client.proxy import AFTER, BEFORE, Proxy

EXAMPLES = PROJECT / "examples"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with Box(tmp_path_factory.mktemp("box")) as found:
        yield found


@pytest.fixture
def proxy(box: Box) -> Iterator[Proxy]:
    with Proxy(box.tcp_port) as found:
        yield found


@pytest.fixture(scope="module", params=["c", "python", "micropython"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that is a device, without its arguments."""
    if request.param == "c":
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("cc is not installed: scripts/install-micropython")
        program = tmp_path_factory.mktemp("c") / "device"
        flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([compiler, *flags, str(EXAMPLES / "device.c"), "-o", str(program)], check=True)
        return [str(program)]
    found = sys.executable if request.param == "python" else shutil.which("micropython")
    if found is None:
        pytest.skip("micropython is not installed: scripts/install-micropython")
    return [found, str(EXAMPLES / "device.py")]


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(device: list[str]) -> Run:
    """Run the device with lines to send, on a port."""

    def run(port: int, lines: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        environ = os.environ | ({"WHIMBREL_KEY": key} if key else {})
        command = [*device, "127.0.0.1", str(port), "example"]
        return subprocess.run(command, input=lines, env=environ, text=True, capture_output=True, timeout=60)

    return run


def name_of(device: list[str], about: str) -> str:
    return f"{Path(device[0]).name} {about}"


def positions(name: str, count: int) -> str:
    return "".join(f"{name},{1_795_000_000 + at},{53.4 + at / 1_000:.3f},-2.9,{at}\n" for at in range(count))


def speeds(box: Box, name: str) -> list[float]:
    found = box.http.get("/v1/records", params={"device_id": name}).json()["records"]
    return [record["speed_kmh"] for record in found]


def test_positions_arrive(box: Box, device: list[str], run: Run) -> None:
    name = name_of(device, "plain")
    done = run(box.tcp_port, f"{name},2026-11-24T10:25:00Z,53.44,-2.93,48.5\n{name},,,,\n")
    assert done.returncode == 0, done.stderr
    with_fix, without = box.http.get("/v1/records", params={"device_id": name}).json()["records"]
    assert with_fix["timestamp"] == "2026-11-24T10:25:00.000000Z"
    assert (with_fix["latitude"], with_fix["longitude"], with_fix["speed_kmh"]) == (53.44, -2.93, 48.5)
    assert (without["latitude"], without["speed_kmh"], with_fix["source"]) == (None, None, "msgpack")


@pytest.mark.parametrize("cut", [(AFTER,), (BEFORE,), (AFTER, BEFORE, AFTER, "", AFTER)], ids="-".join)
def test_each_position_is_there_once(box: Box, proxy: Proxy, device: list[str], run: Run, cut: tuple[str, ...]) -> None:
    name = name_of(device, "cut " + "-".join(cut))
    proxy.cut.extend(cut)
    done = run(proxy.port, positions(name, 100))
    assert done.returncode == 0, done.stderr
    assert not proxy.cut
    assert speeds(box, name) == list(range(100))


def test_a_refused_position_costs_only_itself(box: Box, device: list[str], run: Run) -> None:
    name = name_of(device, "refused")
    done = run(box.tcp_port, f"{name},,1,2,0\n{name},,91,2,1\n{name},,3,4,2\n")
    assert done.returncode == 0, done.stderr
    assert "must be between -90 and 90" in done.stdout + done.stderr
    assert speeds(box, name) == [0, 2]


def test_a_line_that_is_none(box: Box, device: list[str], run: Run) -> None:
    name = name_of(device, "no number")
    done = run(box.tcp_port, f"{name},,north,2,0\n{name},,1,2,1")
    assert "refused" in done.stdout + done.stderr
    assert speeds(box, name) == [1]


def test_keys(tmp_path: Path, run: Run) -> None:
    with Box(tmp_path, auth__required="true") as box:
        assert run(box.tcp_port, positions("d", 3), box.new_key("--scope", "ingest")).returncode == 0
        for wrong in ("wk_wrong", None):
            done = run(box.tcp_port, positions("d", 3), wrong)
            assert done.returncode != 0
            assert "key" in done.stderr
