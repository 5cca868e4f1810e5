"""Keepalive with the kernel's own TCP, in a network namespace whose one interface goes down."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

import pytest

from collector.listeners.keepalive import PROBES, set_keepalive
from telemetry.http.server import listen
from tests.box import PROJECT

NAMESPACE = ("unshare", "--map-root-user", "--net")
PEER_VANISHES = """
import socket, subprocess, time
from collector.listeners.keepalive import set_keepalive
from telemetry.http.server import listen

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listening = listen("127.0.0.1", 0)
set_keepalive(listening, {keepalive_s}, {user_timeout_s})
peer = socket.create_connection(listening.getsockname())
accepted, _ = listening.accept()
accepted.sendall(b"x")
assert peer.recv(1) == b"x"
subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
if {sends}:
    accepted.sendall(b"an answer")
accepted.settimeout(8)
began_s = time.monotonic()
try:
    accepted.recv(1)
except TimeoutError as error:
    assert str(error) != "timed out", "open for ever"
    print(time.monotonic() - began_s)
"""


def can_make_namespaces() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def test_accepted_connections_have_what_the_listening_socket_has() -> None:
    with listen("127.0.0.1", 0) as listening:
        set_keepalive(listening, 300, 600)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 300
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 300 // PROBES
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 600_000


def test_both_may_be_off() -> None:
    with listen("127.0.0.1", 0) as listening:
        set_keepalive(listening, 0, 0)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.skipif(not can_make_namespaces(), reason="this user may make no network namespace")
@pytest.mark.parametrize("sends", [False, True], ids=["silent", "with an unacknowledged answer"])
def test_a_connection_ends_when_its_peer_vanishes(sends: bool) -> None:
    """Between the keepalive time and the user timeout with one more probe."""
    program = PEER_VANISHES.format(keepalive_s=1, user_timeout_s=3, sends=sends)
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 1.5 < float(done.stdout) < 6
