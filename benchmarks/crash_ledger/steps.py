"""What happens to a program that reaches a named step: it goes on, unless a fault waits for it there."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.crash_ledger.schedule import REACHED, STOP, Fault

ENDS = {"save": "save done", "compact": "compact done", "sweep": "save done"}
"""What another program must reach, so that one that stood still at a step of the protocol was overtaken."""

LONGEST_S = 8.0
"""One that nobody overtakes goes on after so long."""


class _Stopped(NamedTuple):
    """A program that stands still, and how often the end that shows it overtaken was reached before."""

    pid: int
    fault: Fault
    since_s: float
    end: str
    ends: int


class Steps(threading.Thread):
    """Listens to the box's programs, one step after another."""

    def __init__(self, path: Path, kill: Callable[[str], None]) -> None:
        super().__init__(name="steps", daemon=True)
        self.reached: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self.kills_of_reached = 0
        self.overtaken = 0
        self._kill = kill
        self._waiting: list[Fault] = []
        self._stopped: _Stopped | None = None
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(100)

    def expect(self, fault: Fault) -> None:
        """Have a fault befall the first program that reaches its point."""
        with self._lock:
            self._waiting.append(fault)

    @property
    def waiting(self) -> int:
        """Faults that nobody has reached yet."""
        return len(self._waiting)

    @property
    def is_any_stopped(self) -> bool:
        """Whether a program stands still just now."""
        return self._stopped is not None

    def forget(self) -> None:
        """Let everything pass from now on."""
        with self._lock:
            self._waiting.clear()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._hear(connection)

    def close(self) -> None:
        """Hear nobody any more; programs then go on without asking."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _hear(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        try:
            point = connection.recv(100).decode().rstrip("\n")
        except OSError:
            return
        if not point:  # killed before it could say where it is
            return
        self.reached[point] += 1
        self._release(point)
        fault = self._fault_at(point)
        if fault is not None:
            self._carry_out(fault, peer(connection))

    def _fault_at(self, point: str) -> Fault | None:
        """None while a program stands still: the other one is to overtake it."""
        with self._lock:
            for fault in self._waiting:
                if fault.point == point and self._stopped is None:
                    self._waiting.remove(fault)
                    return fault
        return None

    def _carry_out(self, fault: Fault, pid: int) -> None:
        """The program still waits for an answer; hanging up lets it go on, if it can."""
        if fault.action == STOP:
            self.stops[fault.point] += 1
            self._stop(pid, fault)
            return
        self.kills[fault.point] += 1
        if fault.target == REACHED:
            self.kills_of_reached += 1
            send(pid, signal.SIGKILL)
        else:
            self._kill(fault.target)

    def _stop(self, pid: int, fault: Fault) -> None:
        send(pid, signal.SIGSTOP)
        end = ENDS[fault.point.split()[0]]
        self._stopped = stopped = _Stopped(pid, fault, time.monotonic(), end, self.reached[end])
        threading.Timer(LONGEST_S, self._let_go, (stopped,)).start()

    def _release(self, point: str) -> None:
        """Let go who stands still long enough and was waiting for another one to be here."""
        stopped = self._stopped
        if stopped is None or point != stopped.fault.until or self.reached[stopped.end] == stopped.ends:
            return
        if time.monotonic() >= stopped.since_s + stopped.fault.for_s:
            self._let_go(stopped)

    def _let_go(self, stopped: _Stopped) -> None:
        with self._lock:
            if self._stopped is not stopped:
                return
            self._stopped = None
        self.overtaken += self.reached[stopped.end] > stopped.ends
        send(stopped.pid, signal.SIGCONT)


def peer(connection: socket.socket) -> int:
    """Process id of the other end of a unix socket."""
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
