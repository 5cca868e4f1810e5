"""A program dies with the supervisor that started it, also if that was killed before the program could ask."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from telemetry.config.settings import PROJECT
from telemetry.system.process import SUPERVISED, die_with_parent, is_supervised

PROGRAM = """
import signal
from telemetry.system.process import die_with_parent
die_with_parent()
print("tied", flush=True)
signal.pause()
"""
SUPERVISOR = f"""
import os, subprocess, sys
os.environ["{SUPERVISED}"] = str(os.getpid())
program = subprocess.Popen([sys.executable, "-c", {PROGRAM!r}], stdout=subprocess.PIPE)
program.stdout.readline()
print(program.pid, flush=True)
program.wait()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")


def test_a_killed_supervisor_takes_its_program_along() -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, cwd=PROJECT) as supervisor:
        assert supervisor.stdout is not None
        program = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
    deadline = time.monotonic() + 5
    while program.is_running() and program.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_orphan_ends_at_once() -> None:
    gone = {**os.environ, SUPERVISED: str(os.getppid())}  # the program's parent is this process, not ours
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=gone, cwd=PROJECT, capture_output=True, timeout=30)
    assert ended.returncode == -signal.SIGTERM


def test_without_a_supervisor_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUPERVISED, raising=False)
    assert not is_supervised()
    die_with_parent()


def limited(soft: int, hard: int, code: str) -> str:
    """What Python prints under these limits of open files."""
    begin = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    return subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, cwd=PROJECT).stdout


@pytest.mark.parametrize(("wanted", "expected"), [(50, 100), (100, 100), (300, 300), (400, 400), (500, 400)])
def test_files_enough_as_far_as_may_be(wanted: int, expected: int) -> None:
    code = f"from telemetry.system.process import allow_open_files; print(allow_open_files({wanted}))\n"
    code += "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert limited(100, 400, code) == f"{min(wanted, 400)}\n{expected} 400\n"
