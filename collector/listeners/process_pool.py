"""Several collector processes on the same ports, each with its own intake.

The sockets are made before the processes and outlive them: who connects while one is dead waits in its queue
until the next has taken its place.
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
"""How long a dead process stays dead, so that a cause that stays costs no CPU."""

STOP_S = 4.5
"""Seconds that all have to end: more than their grace, and less than the supervisor's patience."""

LOOK_S = 0.05

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Sockets(NamedTuple):
    """Where one process listens: on the common ports, and on further ones in the order of the settings.

    `process` is its number, from 0; the first one alone does what only one may do.
    """

    http: socket.socket
    tcp: socket.socket
    more: Sequence[socket.socket] = ()
    process: int = 0

    def close(self) -> None:
        """Close all."""
        for one in (self.http, self.tcp, *self.more):
            one.close()


Run = Callable[[Sockets], None]


def sockets(
    host: str, http_port: int, tcp_port: int, count: int, more: Callable[[bool], Sequence[socket.socket]] = lambda _: ()
) -> list[Sockets]:
    """Those of each process; `more` makes the further ones, to be shared or not.

    Raises `ConfigError` if a port is taken, be it by one who would share it.
    """
    for port in (http_port, tcp_port):
        listen(host, port).close()
    for one in more(False):
        one.close()
    return [
        Sockets(listen(host, http_port, True), listen(host, tcp_port, True), more(True), number)
        for number in range(count)
    ]


def run_each(pairs: Sequence[Sockets], run: Run) -> None:
    """Run a process for each pair, again when it dies, until a signal comes; return when all have ended.

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
    """One process and its successors."""

    def __init__(self, pairs: Sequence[Sockets], number: int, run: Run) -> None:
        self._pairs = pairs
        self._number = number
        self._run = run
        self._pid = 0
        self._start_s = 0.0

    def look(self, now_s: float) -> None:
        """Start the process if there is none and its pause is over."""
        if not self.is_alive() and now_s >= self._start_s:
            self._pid = self._fork()
            self._start_s = 0.0

    def is_alive(self) -> bool:
        """Whether it runs; takes note of its end."""
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
        """Signals wait meanwhile: between the fork and its own handlers the child would take them for the parent's."""
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
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to renew
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)
            os.environ[SUPERVISED] = str(parent)
            die_with_parent()
            for pair in (*self._pairs[: self._number], *self._pairs[self._number + 1 :]):
                pair.close()
            self._run(self._pairs[self._number])
            status = 0
        except Exception:
            log.exception("a collector process can't go on")
        finally:
            os._exit(status)  # nothing of the parent's is to be undone
