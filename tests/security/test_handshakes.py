"""Attack with silent sockets: connections count from accept on, and one address leaves room for others.

9,000 silent sockets of one address took 584 MB of TLS handshakes that counted towards no limit. With 4,096 open files
4,500 sockets closed both ports for everybody: uvloop closes a listening socket, unlogged, once accept fails.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.box import Box, free_ports
from tests.certificates import Authority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

FILES = 320
"""Open files that each program may have; all limits of connections are far above."""

ATTACKER, OTHER = "127.0.0.66", "127.0.0.1"
SOCKETS = 450
WAIT_S = 30.0
LINE = b'{"device_id":"van-1","latitude":53.4,"longitude":-2.9}\n'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates")).issue()


@pytest.fixture(scope="module")
def more_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def box(authority: Authority, more_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    more = [{"protocol": "osmand", "port": more_port, "transport": "http", "tls": True}]
    start = f'ulimit -n {FILES}; exec "$0" -m cli.main up'
    with Box(
        tmp_path_factory.mktemp("box"),
        command=["bash", "-c", start, sys.executable],
        tls__certificate=str(authority.certificate),
        tls__key=str(authority.key),
        collector__listen=json.dumps(more),
    ) as found:
        yield found


def silent(stack: ExitStack, port: int, count: int) -> None:
    """Open sockets that say nothing, as fast as the kernel takes them."""
    for _ in range(count):
        stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S, (ATTACKER, 0)))


def answers(port: int, authority: Authority, path: str) -> int:
    trusting = authority.client()
    with closing(
        http.client.HTTPSConnection("127.0.0.1", port, timeout=WAIT_S, source_address=(OTHER, 0), context=trusting)
    ) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def stored(port: int, authority: Authority) -> bool:
    plain = socket.create_connection(("127.0.0.1", port), WAIT_S, (OTHER, 0))
    with authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        connection.sendall(LINE)
        return bool(json.loads(connection.recv(4_096)).get("accepted"))


def until(true: Callable[[], bool]) -> None:
    stop_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < stop_s
        time.sleep(0.1)


def test_silent_sockets_of_one_address_shut_no_port_for_others(box: Box, authority: Authority, more_port: int) -> None:
    ports = {box.api_port: "/healthz", box.http_port: "/healthz", more_port: "/?id=van-2&lat=53.4&lon=-2.9"}
    with ExitStack() as stack:
        for port in (*ports, box.tcp_port):
            silent(stack, port, SOCKETS)
        for port, path in ports.items():
            assert answers(port, authority, path) == 200
        assert stored(box.tcp_port, authority)
    until(lambda: any("at once: " in line and ATTACKER in line for line in box.output))
    assert not any("Too many open files" in line for line in box.output)
    for port, path in ports.items():
        assert answers(port, authority, path) == 200
    assert stored(box.tcp_port, authority)
