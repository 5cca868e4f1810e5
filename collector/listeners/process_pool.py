"""Several collector processes on the same ports, each with its own intake.

The sockets are made before the processes and outlive them. After a process has ended, new connections wait in the
backlog of its socket until a new process runs.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from telemetry.http.server import listen
from telemetry.startup.program import FAILED, StopFlag
from telemetry.system.process import SUPERVISED, die_with_parent
from telemetry.system.systemd_notify import watchdog

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Pause before a process that ended is started again, so that a lasting cause costs no CPU."""

STOP_S = 4.5
"""Time for all processes to end: longer than their grace period, shorter than the supervisor's timeout."""

LOOK_S = 0.05

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Sockets(NamedTuple):
    """Listening sockets of one process: for the common ports, and `more` for additional ports in the settings' order.

    `process` is its number, from 0. Tasks that only one process may do are done by process 0.
    """

    http: socket.socket
    tcp: socket.socket
    more: Sequence[socket.socket] = ()
    process: int = 0

    def close(self) -> None:
        """Close all sockets."""
        for listening in (self.http, self.tcp, *self.more):
            listening.close()


Run = Callable[[Sockets], None]


def sockets(
    host: str, http_port: int, tcp_port: int, count: int, more: Callable[[bool], Sequence[socket.socket]] = lambda _: ()
) -> list[Sockets]:
    """The sockets of each process. `more` makes the sockets of additional ports; its argument is `shares_port`.

    Raises `ConfigError` if a port is in use, also by a program that would share it.
    """
    for port in (http_port, tcp_port):
        listen(host, port).close()
    for listening in more(False):
        listening.close()
    return [
        Sockets(listen(host, http_port, True), listen(host, tcp_port, True), more(True), number)
        for number in range(count)
    ]


def run_each(pairs: Sequence[Sockets], run: Run) -> None:
    """Run a process for each element of `pairs`, again after it ends, until a signal. Returns when all have ended.

    SIGHUP is passed on to each.
    """
    with StopFlag() as stopped:
        children = [_Child(pairs, number, run) for number in range(len(pairs))]
        signal.signal(signal.SIGHUP, lambda *_: _send_all(children, signal.SIGHUP))
        while not stopped():
            watchdog.beat()
            for child in children:
                child.look(time.monotonic())
            time.sleep(LOOK_S)
        _stop(children)


def _send_all(children: Sequence[_Child], number: signal.Signals) -> None:
    for child in children:
        child.send(number)


def _stop(children: Sequence[_Child]) -> None:
    end_s = time.monotonic() + STOP_S
    _send_all(children, signal.SIGTERM)
    while any(child.is_alive() for child in children) and time.monotonic() < end_s:
        time.sleep(LOOK_S)
    _send_all(children, signal.SIGKILL)


class _Child:
    """A process, started again after it has ended."""

    def __init__(self, pairs: Sequence[Sockets], number: int, run: Run) -> None:
        self._pairs = pairs
        self._number = number
        self._run = run
        self._pid = 0
        self._start_s = 0.0

    def look(self, now_s: float) -> None:
        """Start the process if it does not run and its pause is over."""
        if not self.is_alive() and now_s >= self._start_s:
            self._pid = self._fork()
            self._start_s = 0.0

    def is_alive(self) -> bool:
        """True while the process runs; logs its end."""
        if not self._pid:
            return False
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            log.log(logging.WARNING if code else logging.INFO, "collector process %d ended with status %d", pid, code)
            self._pid = 0
            self._start_s = time.monotonic() + PAUSE_S
        return not pid

    def send(self, number: signal.Signals) -> None:
        if self.is_alive():
            os.kill(self._pid, number)

    def _fork(self) -> int:
        """Fork with signals blocked: until the child has its own handlers, it would run the parent's."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_child(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)
        return pid

    def _be_child(self, parent: int) -> None:
        status = FAILED
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the child has certificates to renew
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)
            os.environ[SUPERVISED] = str(parent)
            die_with_parent()
            for pair in (*self._pairs[: self._number], *self._pairs[self._number + 1 :]):
                pair.close()
            self._run(self._pairs[self._number])
            status = 0
        except Exception:
            log.exception("a collector process ends after an unexpected error")
        finally:
            os._exit(status)  # the parent's clean-up must not run in the child
