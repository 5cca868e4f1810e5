"""A program forked from supervisord behaves like one started by a new interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.box import PROJECT

PROGRAM = """\
import atexit, json, os, signal, sys, threading, time
from pathlib import Path
print(json.dumps({
    "name": __name__, "argv": sys.argv[1:], "file": Path(sys.argv[0]).name, "main": sys.modules["__main__"].__name__,
    "environ": dict(os.environ),
    "signals": [str(signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)],
}), flush=True)
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread ended"))).start()
how = sys.stdin.readline().strip()
print("the last line is not flushed")
if how == "raise":
    raise RuntimeError("as it happens")
sys.exit({"end": None, "7": 7, "-1": -1, "words": "in words"}[how])
"""

AS_FORK = """\
import os, signal, sys
from cli.services.fork_server import become
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
    signal.signal(number, lambda *_: None)
os.environ["GONE"] = "supervisord's"
become(["python", "-m", "told", "a", "b c"], {"PATH": os.environ["PATH"], "NEW": "yes"})
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="there programs begin the usual way")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the test module."""
    (tmp_path / "told.py").write_text(PROGRAM)
    return tmp_path


def started(folder: Path, *command: str, **environ: str) -> subprocess.Popen[str]:
    """A process in that folder, which finds our modules, too."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environ |= {"PYTHONPATH": f"{folder}:{PROJECT}"}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=environ, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


@linux
def test_it_is_the_program_that_was_asked_for(folder: Path) -> None:
    with started(folder, "-c", AS_FORK, PATH=os.environ["PATH"], OLD="supervisord's") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert psutil.Process(process.pid).cmdline() == ["python", "-m", "told", "a", "b c"]
        process.communicate("end\n")
    assert said == {
        "name": "__main__",
        "argv": ["a", "b c"],
        "file": "told.py",
        "main": "__main__",
        "environ": {"PATH": os.environ["PATH"], "NEW": "yes"},
        "signals": [str(signal.Handlers.SIG_DFL)] * 3,
    }


@linux
@pytest.mark.parametrize("how", ["end", "7", "-1", "words", "raise"])
def test_it_ends_as_it_would_by_itself(folder: Path, how: str) -> None:
    ends = []
    for command in (("-c", AS_FORK), ("-m", "told", "a", "b c")):
        with started(folder, *command, PATH=os.environ["PATH"]) as process:
            output, errors = process.communicate(f"{how}\n", timeout=60)
        ends.append((process.returncode, output.splitlines()[1:], errors.splitlines()[-1:]))
    assert ends[0] == ends[1]
    assert ends[0][1] == ["the last line is not flushed", "a thread ended", "at exit"]


@linux
def test_a_program_whose_command_line_cannot_be_set_gets_its_own_interpreter(folder: Path) -> None:
    words = ["python", "-m", "told", "x" * 100_000]  # no place for so many
    begin = (
        "import os, sys; from cli.services.fork_server import Options;"
        f"Options.execve(Options.__new__(Options), sys.executable, {words[:3]} + ['x' * 100_000], dict(os.environ))"
    )
    with started(folder, "-c", begin, PATH=os.environ["PATH"]) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["argv"] == words[3:]
        assert psutil.Process(process.pid).cmdline() == words
        process.communicate("end\n")


def test_its_libraries_start_no_thread_and_open_no_file() -> None:
    program = (
        "import importlib, os, threading; before = os.listdir('/proc/self/fd');"
        "from cli.services.fork_server import SHARED;"
        "[importlib.import_module(name) for name in SHARED];"
        "print(os.listdir('/proc/self/task') == [str(os.getpid())], os.listdir('/proc/self/fd') == before,"
        "[name for name in sys.modules if name.partition('.')[0] in ('telemetry', 'collector', 'numpy', 'pyarrow')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}"], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "True True []\n", done.stdout + done.stderr
