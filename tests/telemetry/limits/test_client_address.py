"""Who asks: the peer, or behind our proxies the last hop that is none of them; what a client made up never counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.limits.client_address import UNKNOWN, Addresses, owner
from telemetry.model.errors import ConfigError

TRUSTED = ["127.0.0.1", "10.0.0.0/8", "fd00::/16"]


def asked(header: str, *values: str, peer: str = "10.1.1.1") -> str:
    headers = [(header.encode(), value.encode()) for value in values]
    return Addresses(TRUSTED, header).asking(peer, headers)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", UNKNOWN),
    ],
)
def test_an_address_and_whom_it_stands_for(address: str, expected: str) -> None:
    assert owner(address) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7, 10.2.2.2"], "192.0.2.7"),
        (["198.51.100.1", "192.0.2.7, 10.2.2.2"], "192.0.2.7"),
        (["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        (["198.51.100.1, nonsense, 10.2.2.2"], "10.2.2.2"),
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["2001:db8::5"], "2001:db8::/64"),
        (["[2001:db8::5]:4711"], "2001:db8::/64"),
        ([""], "10.1.1.1"),
        ([], "10.1.1.1"),
    ],
)
def test_x_forwarded_for(values: list[str], expected: str) -> None:
    assert asked("x-forwarded-for", *values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ("for=198.51.100.1, For=192.0.2.7;proto=https;by=10.0.0.1", "192.0.2.7"),
        ('proto=http; for="192.0.2.7:4711"', "192.0.2.7"),
        ('for="[2001:db8::5]:4711"', "2001:db8::/64"),
        ("for=unknown, for=10.2.2.2", "10.2.2.2"),
        ("for=_hidden", "10.1.1.1"),
        ("proto=https", "10.1.1.1"),
    ],
)
def test_forwarded(value: str, expected: str) -> None:
    assert asked("forwarded", value) == expected


def test_nobody_else_is_believed() -> None:
    assert asked("x-forwarded-for", "192.0.2.7", peer="203.0.113.9") == "203.0.113.9"
    assert Addresses([], "x-forwarded-for").asking("127.0.0.1", [(b"x-forwarded-for", b"192.0.2.7")]) == "127.0.0.1"


def test_only_the_header_counts_that_the_settings_name() -> None:
    headers = [(b"forwarded", b"for=198.51.100.1"), (b"x-forwarded-for", b"192.0.2.7")]
    assert Addresses(TRUSTED, "x-forwarded-for").asking("10.1.1.1", headers) == "192.0.2.7"
    assert Addresses(TRUSTED, "forwarded").asking("10.1.1.1", headers) == "198.51.100.1"


@settings(deadline=None)
@given(st.text(max_size=60), st.ip_addresses())
def test_whatever_a_client_makes_up_our_proxy_says_who_it_is(made_up: str, real: object) -> None:
    noise = made_up.encode("latin-1", "replace").decode("latin-1").replace("\n", "").replace("\r", "")
    header = f"{noise}, {real}"
    found = Addresses(["127.0.0.9"], "x-forwarded-for").asking(
        "127.0.0.9", [(b"x-forwarded-for", header.encode("latin-1"))]
    )
    assert found == owner(str(real)) or str(real) == "127.0.0.9"


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(ConfigError, match=r"limits.trusted_proxies: '10.0.0.0/99' is not an address"):
        Addresses(["10.0.0.0/99"], "forwarded")
