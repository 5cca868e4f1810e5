"""`scripts/up` and `whimbrel up` as a user meets them: real processes, ports and signals."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import httpx
import psutil
import pytest

from cli.services import supervisor_config
from telemetry.system.runtime_dir import runtime_dir
from tests.box import PROJECT, STOP_S, Box
from tests.conftest import RedisServer

PROGRAMS = {"redis", "collector", "worker", "scheduler", "query", "api"}
BACK_S = 2.0

pytestmark = pytest.mark.slow


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone of the working tree, in a folder whose name has a blank."""
    folder = tmp_path / "fresh clone"
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(git, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    return folder


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One box for tests after which it runs on as before."""
    with Box(tmp_path_factory.mktemp("lasting")) as started:
        yield started
        assert started.stop() == 0


def pids(box: Box) -> dict[str, int]:
    """The newest process of each program, as the log has it."""
    spawned = (re.search(r" supervisor: (\w+) started, process (\d+)", line) for line in list(box.output))
    return {found[1]: int(found[2]) for found in spawned if found}


def supervisor(box: Box) -> psutil.Process:
    (found,) = (
        one for one in psutil.Process(box.pid).children(recursive=True) if "cli.services.fork_server" in one.cmdline()
    )
    return found


def processes(box: Box) -> list[psutil.Process]:
    """All processes of a box, from `whimbrel up` down."""
    up = supervisor(box).parent()
    assert up is not None
    return [up, *up.children(recursive=True)]


def until(happened: Callable[[], object], within_s: float) -> float:
    """Wait until it has happened; returns the seconds that it took."""
    start = time.monotonic()
    while not happened():
        assert time.monotonic() - start < within_s, f"not within {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - start


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def answers(box: Box, device: str) -> bool:
    """Send a record, and see it in latest."""
    sent = box.http.post("/v1/records", json={"device_id": device, "lat": 53.4, "lon": -2.9})
    found = box.http.get(f"/v1/devices/{device}/latest")
    return sent.status_code == 202 and found.status_code == 200 and found.json()["position"]["latitude"] == 53.4


def answers_again(box: Box, device: str) -> bool:
    try:
        return answers(box, device)
    except httpx.TransportError:
        return False


def stopped_in_order(box: Box) -> None:
    """Every program exited with status 0, and Redis after the programs that need it."""
    ends = [found for line in box.output if (found := re.search(r" supervisor: (\w+) stopped: (.*)", line))]
    last = ends[-len(PROGRAMS) :]
    assert {found[1]: found[2] for found in last} == dict.fromkeys(PROGRAMS, "exit status 0")
    assert last[-1][1] == "redis"


def test_two_commands_from_a_fresh_clone(tmp_path: Path, clone: Path) -> None:
    box = Box(tmp_path, [str(clone / "scripts" / "up")], clone)
    with box:
        where = f"http://127.0.0.1:{box.api_port} (collector http://127.0.0.1:{box.http_port}, "
        line = f"Whimbrel is ready: {where}TCP 127.0.0.1:{box.tcp_port}), data in {box.data}\n"
        assert box.output.count(line) == 1
        assert answers(box, "bus-1")
        all_of_it = processes(box)
        start = time.monotonic()
        assert box.stop() == 0
        assert time.monotonic() - start < STOP_S
        assert all(gone(process) for process in all_of_it)
        stopped_in_order(box)

        box.output.clear()
        box.environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1") | {"PIP_NO_INDEX": "1"}
        start = time.monotonic()
        box.start()
        assert time.monotonic() - start < 15
        assert not any("Installing" in line for line in box.output)
        assert box.http.get("/v1/devices/bus-1/latest").status_code == 200
        assert box.stop() == 0


def test_a_start_logs_a_line_for_each_program_and_the_addresses(lasting: Box) -> None:
    lines = [re.sub(r"^\S+Z ", "", line.strip()) for line in takewhile(lambda one: not is_ready(one), lasting.output)]
    lines = [
        line for line in lines if "telemetry.limits.open_files" not in line
    ]  # on a machine that allows few of them
    started = [line.partition(",")[0] for line in lines if " started, process " in line]
    assert sorted(started) == sorted(f"up INFO supervisor: {name} started" for name in PROGRAMS)
    assert sorted(line for line in lines if " started, process " not in line) == [
        f"api INFO api: answering on 127.0.0.1:{lasting.api_port}",
        f"collector INFO collector: collecting: HTTP on 127.0.0.1:{lasting.http_port}, "
        f"TCP on 127.0.0.1:{lasting.tcp_port}",
    ]


def is_ready(line: str) -> bool:
    return line.startswith("Whimbrel is ready: ")


def test_a_killed_process_is_back_while_the_others_go_on(lasting: Box) -> None:
    box = lasting
    assert answers(box, "before")
    for name in sorted(PROGRAMS):
        before = pids(box)
        assert set(before) == PROGRAMS
        os.kill(before[name], signal.SIGKILL)
        until(lambda name=name, before=before: pids(box)[name] != before[name], BACK_S)  # type: ignore[misc]
        after = pids(box)
        assert {other for other in PROGRAMS if before[other] != after[other]} == {name}
        assert all(psutil.pid_exists(pid) for pid in after.values())
    until(lambda: answers_again(box, "after"), 15)
    assert box.http.get("/v1/devices/before/latest").status_code == 200


def test_killed_again_and_again_it_still_comes_back(lasting: Box) -> None:
    for _ in range(5):
        before = pids(lasting)["scheduler"]
        os.kill(before, signal.SIGKILL)
        until(lambda before=before: pids(lasting)["scheduler"] != before, BACK_S)  # type: ignore[misc]


def test_ctrl_c_stops_it(box: Box) -> None:
    up = processes(box)[0]
    up.send_signal(signal.SIGINT)
    assert box.stop(signal.SIGINT) == 0
    assert gone(up)
    stopped_in_order(box)


@pytest.mark.parametrize("level", [0, 1], ids=["whimbrel-up", "supervisord"])
def test_killed_from_above_nothing_is_left(box: Box, level: int) -> None:
    all_of_it = processes(box)
    all_of_it[level].kill()
    until(lambda: all(gone(process) for process in all_of_it), STOP_S)


@pytest.mark.parametrize("level", [0, 1], ids=["whimbrel-up", "supervisord"])
def test_killed_from_above_it_starts_again_at_once(box: Box, level: int) -> None:
    assert answers(box, "kept")
    processes(box)[level].kill()
    box.kill()
    box.start()
    assert box.http.get("/v1/devices/kept/latest").status_code == 200
    assert answers(box, "new")


def test_one_box_a_folder(lasting: Box) -> None:
    second = lasting.whimbrel("up")
    assert second.returncode == 1
    assert f"Whimbrel is already running on {lasting.data}" in second.stderr
    assert answers(lasting, "bus-1")


@pytest.mark.parametrize("setting", ["api.port", "collector.tcp_port"])
def test_a_port_in_use_is_named(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        box = Box(tmp_path)
        box.environ["WHIMBREL__" + setting.replace(".", "__").upper()] = str(port)
        failed = box.whimbrel("up")
        box.http.close()
    assert failed.returncode == 1
    assert f"cannot start: 127.0.0.1 port {port} ({setting}): Address already in use" in failed.stderr


def test_two_boxes_side_by_side(tmp_path: Path) -> None:
    with (
        Box(tmp_path / "one", redis__server="auto") as one,
        Box(tmp_path / "two", redis__server="bundled") as two,
    ):
        assert answers(one, "bus-1")
        assert answers(two, "boat-1")
        assert one.http.get("/v1/devices/boat-1/latest").status_code == 404
        assert two.http.get("/v1/devices/bus-1/latest").status_code == 404
        assert one.stop() == 0
        assert answers(two, "boat-1")
        assert two.stop() == 0
        stopped_in_order(two)


def test_a_folder_with_a_long_path_and_an_odd_name(tmp_path: Path) -> None:
    with Box(tmp_path / ("long" * 30) / 'a "b" ; c #1 50%(x)s') as box:
        assert answers(box, "bus-1")
        assert box.stop() == 0
        stopped_in_order(box)


def test_with_an_external_redis_it_starts_none(tmp_path: Path, own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("aof-load-truncated", "no")
    with Box(tmp_path, redis__url=own_redis.url) as box:
        assert set(pids(box)) == PROGRAMS - {"redis"}
        assert any("aof-load-truncated is no" in line for line in box.output)
        assert answers(box, "bus-1")
        assert box.stop() == 0


def test_a_redis_that_could_lose_records_is_refused(tmp_path: Path, own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    done = Box(tmp_path, redis__url=own_redis.url).whimbrel("up")
    assert done.returncode == 1
    assert "maxmemory-policy is allkeys-lru, must be noeviction" in done.stderr


def test_every_program_finds_the_settings_file_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[data]\ndir = "here"\n')
    box = Box(tmp_path, [sys.executable, "-m", "cli.main", "--config", str(tmp_path / "mine.toml"), "up"])
    del box.environ["WHIMBREL__DATA__DIR"]
    with box:
        assert answers(box, "bus-1")
        assert (tmp_path / "here" / "redis" / "appendonlydir").is_dir()


def test_without_a_reader_of_its_output_it_goes_on(tmp_path: Path) -> None:
    box = Box(tmp_path)
    command = [sys.executable, "-m", "cli.main", "up"]
    with subprocess.Popen(command, cwd=PROJECT, env=box.environ, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("Whimbrel is ready: "):
                break
        up.stdout.close()
        (worker,) = (child for child in psutil.Process(up.pid).children(True) if "worker" in child.cmdline())
        worker.kill()  # so that there is something to say
        time.sleep(BACK_S)
        assert answers(box, "bus-1")
        up.terminate()
        assert up.wait(STOP_S) == 0
    box.http.close()


def test_it_loads_no_client_of_redis_or_http() -> None:
    """It only waits, for months: with these it took twice the memory."""
    program = "import sys; from cli import main; main.find('up'); print({'redis', 'httpx', 'asyncio'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "set()\n", done.stderr


def test_a_terminal_that_is_closed_ends_the_box(tmp_path: Path) -> None:
    box = Box(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(box._cwd)
        os.execvpe(box._command[0], box._command, box.environ)
    try:
        output = b""
        while b"Whimbrel is ready: " not in output:
            output += os.read(terminal, 65_536)
    finally:
        os.close(terminal)
    deadline = time.monotonic() + 30
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("it runs on without its terminal")
        time.sleep(0.1)
    assert supervisor_config.wake(runtime_dir(box.data)) is False
    box.http.close()
