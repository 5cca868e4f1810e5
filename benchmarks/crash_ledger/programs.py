"""The box's processes: found, killed, stopped, and kept alive as a machine's own supervisor would do it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import IO

import psutil

from benchmarks.crash_ledger.schedule import BOX, ONE_COLLECTOR, REDIS, SUPERVISOR
from benchmarks.crash_ledger.steps import send
from tests.box import PROJECT, Box

LOOK_S = 0.1
MODULES = {
    SUPERVISOR: "cli.services.fork_server",
    "collector": "collector",
    "worker": "worker",
    "scheduler": "compactor",
    "query": "api.query",
    "api": "api",
}
SECOND = "CRASH_LEDGER_SECOND_WORKER"
"""Environment variable that tells the second worker from the box's own."""


class Programs:
    """The processes of one box, and a second worker beside its own."""

    def __init__(self, box: Box, log: Path) -> None:
        self.kills: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self._box = box
        self._log = log
        self._second: subprocess.Popen[bytes] | None = None
        self._has_second = False
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Start the box, and begin to start again whatever ends of what nobody else starts again."""
        self._box.start()
        self._keeper.start()

    def begin_second(self) -> None:
        """Start the second worker."""
        self._has_second = True

    def kill(self, target: str) -> None:
        """SIGKILL to a program, or to all of them at once."""
        self.kills[target] += 1
        for pid in self._everything() if target == BOX else self._named(target):
            send(pid, signal.SIGKILL)

    def stop(self, target: str, for_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.stops[target] += 1
        for pid in self._named(target):
            send(pid, signal.SIGSTOP)
            threading.Timer(for_s, send, (pid, signal.SIGCONT)).start()

    def end(self) -> None:
        """End all that still runs, however it stands."""
        self._ending.set()
        self._kill_all()
        if self._keeper.ident is not None:
            self._keeper.join()
        self._kill_all()  # what the keeper was just starting
        self._box.kill()
        if self._second is not None:
            self._second.wait()

    def _kill_all(self) -> None:
        for pid in self._everything():
            send(pid, signal.SIGKILL)

    def _keep(self) -> None:
        with self._log.open("ab") as log:
            while not self._ending.wait(LOOK_S):
                if self._has_second and (self._second is None or self._second.poll() is not None):
                    self._second = self._new_second(log)
                if not is_running(self._box.pid):
                    self._start_again()

    def _start_again(self) -> None:
        self._box.kill()
        while not self._ending.is_set():
            with contextlib.suppress(AssertionError):  # it was killed again before it was ready
                self._box.start()
                return

    def _new_second(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        environ = self._box.environ | {SECOND: "1"}
        return subprocess.Popen([sys.executable, "-m", "worker"], cwd=PROJECT, env=environ, stdout=log, stderr=log)

    def _named(self, target: str) -> list[int]:
        if target == ONE_COLLECTOR:
            return self._children(self._named("collector"))[:1]
        return [process.pid for process in self._processes() if is_program(process, target)]

    @staticmethod
    def _children(pids: list[int]) -> list[int]:
        """Those whose parent is among them."""
        found = []
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                if psutil.Process(pid).ppid() in pids:
                    found.append(pid)
        return found

    def _everything(self) -> list[int]:
        return [process.pid for process in self._processes()]

    def _processes(self) -> list[psutil.Process]:
        """All whose settings name this box's data folder."""
        return [process for process in psutil.process_iter() if is_of(process, str(self._box.data))]


def is_of(process: psutil.Process, data_dir: str) -> bool:
    """Whether a process was started with these settings."""
    try:
        return process.environ().get("WHIMBREL__DATA__DIR") == data_dir
    except psutil.Error:
        return False


def is_program(process: psutil.Process, target: str) -> bool:
    """Whether a process of a box is that program."""
    try:
        words = process.cmdline()
        if target == REDIS:
            return bool(words) and Path(words[0].split()[0]).name in ("redis-server", "valkey-server")
        return MODULES[target] in words and SECOND not in process.environ()
    except psutil.Error:
        return False


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
