"""Limits of connections and handshakes, and how often a refusal is logged."""

from __future__ import annotations

import logging

import pytest

from telemetry.limits.client_address import Addresses
from telemetry.limits.concurrency import Share, handshake_share, http_share, tcp_share
from telemetry.limits.connections import LOG_EVERY_S, MAX_ANSWERED, Connections


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def devices(maximum: int, per_address: int = 0, process: int = 0) -> Connections:
    return Connections(tcp_share(maximum, per_address), Clock(), process)


def are_admitted(found: Connections, *addresses: str, handshakes: Share | None = None) -> list[bool]:
    tickets = [found.admit(address, handshakes) for address in addresses]
    return [ticket is not None and not ticket.refusal for ticket in tickets]


def test_total() -> None:
    found = devices(2)
    first = found.admit("a")
    assert are_admitted(found, "b", "c") == [True, False]
    assert first is not None
    first.close()
    first.close()
    assert are_admitted(found, "a", "a") == [True, False]
    assert found.refused == 2


def test_per_address() -> None:
    found = devices(100, 2)
    first = found.admit("a")
    assert are_admitted(found, "a", "b", "a", "b") == [True, True, False, True]
    assert first is not None
    first.close()
    assert are_admitted(found, "a", "a") == [True, False]
    assert found.share.largest == 2


def test_an_ipv6_network_is_one_address() -> None:
    assert are_admitted(devices(100, 2), *(f"2001:db8::{number}" for number in range(3))) == [True, True, False]


def test_a_trusted_proxy_and_a_unix_socket_have_the_total_alone() -> None:
    proxies = Addresses(("10.0.0.0/8",), "x-forwarded-for")
    found = Connections(http_share(5, 1), Clock(), addresses=proxies)
    assert are_admitted(found, "10.1.2.3", "10.1.2.3", "", "", "192.0.2.1", "192.0.2.2") == [True] * 5 + [False]


def test_nothing_is_kept_of_who_has_left() -> None:
    found = devices(100, 2)
    for number in range(1_000):
        ticket = found.admit(f"address {number}")
        assert ticket is not None
        ticket.close()
    assert (found.share.open, found.share._of) == (0, {})


def test_handshakes_have_limits_of_their_own() -> None:
    found, handshakes = devices(100, 10), handshake_share(3, 2)
    for _ in range(2):
        handshakes.enter("a")
    assert are_admitted(found, "a", "b", handshakes=handshakes) == [False, True]
    handshakes.enter("b")
    assert are_admitted(found, "c", handshakes=handshakes) == [False]
    handshakes.leave("a")
    assert are_admitted(found, "a", handshakes=handshakes) == [True]


def test_over_http_some_refused_peers_get_an_answer_and_the_others_none() -> None:
    found = Connections(http_share(0, 0), Clock(), answers=True)
    tickets = [found.admit("a") for _ in range(MAX_ANSWERED + 1)]
    first, *_, last = tickets
    assert first is not None
    assert first.refusal == "0 connections are open already (collector.max_http_connections)"
    assert last is None
    assert found.admit("a", handshake_share(1, 0)) is None
    first.close()
    assert found.admit("a") is not None
    assert found.share.open == 0


def test_refusals_are_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    found = Connections(tcp_share(1, 0), clock)
    found.admit("a")
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            found.admit("b")
            clock.now_s += LOG_EVERY_S / 20
    why = "1 connections are open already (collector.max_connections)"
    assert [record.getMessage() for record in caplog.records] == [
        f"closed {count} connections at once: {why}" for count in (1, 20, 20)
    ]


def test_connections_are_numbered_and_a_refusal_says_which(caplog: pytest.LogCaptureFixture) -> None:
    first, third = devices(20), devices(20, process=2)
    assert [first.admit("a").name for _ in range(17)][::8] == ["c1", "c9", "c11"]  # type: ignore[union-attr]
    assert [third.admit("a").name for _ in range(2)] == ["c2.1", "c2.2"]  # type: ignore[union-attr]
    full = devices(0)
    assert full.admit("a") is None
    [line] = caplog.records
    assert line.__dict__["connection"] == "c1"
