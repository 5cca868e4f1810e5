"""Assignment of requests to shares, and the size of a share."""

from __future__ import annotations

from typing import Any

import pytest

from collector.ingest.fair_shares import Shares
from telemetry.hot_store.operations.append import UNLIMITED, Limits, Owner
from telemetry.limits.client_address import Addresses
from telemetry.model.api_keys import OPEN_CALLER, Binding, Caller

LIMITS = Limits(max_devices=1_000, max_names=500, max_senders=200)
SHARES = Shares(LIMITS, 80, 16, 2_000, Addresses(("10.0.0.0/8",), "x-forwarded-for"))


def caller(devices: tuple[str, ...] = (), prefix: str = "", device: str = "") -> Caller:
    return Caller("key1", frozenset(("ingest",)), Binding(frozenset(devices), prefix), device)


def scope(peer: str, forwarded: str = "") -> dict[str, Any]:
    return {"client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded.encode())] if forwarded else []}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (caller(), UNLIMITED),
        (caller(prefix="p-"), Owner("key1", 160, 400, "p-", 800)),
        (caller(("a", "b")), Owner("key1", 32, 4_000)),
        (caller(("a",), device="a"), Owner("key1:a", 16, 2_000)),
    ],
)
def test_keys(found: Caller, expected: Owner) -> None:
    assert SHARES.of_request(scope("192.0.2.1"), found) == SHARES.of_caller(found) == expected


def test_addresses_where_no_key_is_required() -> None:
    assert SHARES.of_request(scope("192.0.2.1"), OPEN_CALLER) == Owner("@192.0.2.1", 160, 400, max_devices=800)
    assert SHARES.of_request(scope("10.0.0.1", "2001:db8::7"), OPEN_CALLER).name == "@2001:db8::/64"
    assert SHARES.of_address("") == UNLIMITED


def test_none_is_limited_without_the_settings() -> None:
    free = Shares(LIMITS, 100, 0, 0)
    for found in (free.of_address("192.0.2.1"), free.of_caller(caller(prefix="p")), free.of_caller(caller(("a",)))):
        assert (found.max_senders, found.max_names, found.max_devices) == (0, 0, 0)
