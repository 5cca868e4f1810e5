"""The limit of look-ups of unknown keys."""

from __future__ import annotations

from msgspec.structs import replace

from telemetry.config.settings import LimitsSection
from telemetry.limits.client_address import UNKNOWN
from telemetry.limits.lookup_limit import TOTAL, LookupLimit

BURST = int(TOTAL.burst)


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def limit(clock: Clock, per_min: int) -> LookupLimit:
    return LookupLimit(replace(LimitsSection(), address_wrong_keys_per_min=per_min), clock)


def taken(of: LookupLimit, *addresses: str) -> int:
    return sum([of.take(address) for address in addresses])


def test_an_address_has_as_many_look_ups_as_wrong_keys() -> None:
    clock = Clock()
    of = limit(clock, 6)
    assert taken(of, *["192.0.2.1"] * 50) == 6
    assert of.take("192.0.2.2")
    clock.now_s += 10
    assert taken(of, *["192.0.2.1"] * 50) == 1


def test_an_ipv6_network_is_one_address() -> None:
    assert taken(limit(Clock(), 6), *[f"2001:db8::{number:x}" for number in range(50)]) == 6


def test_all_addresses_together_have_a_limit() -> None:
    clock = Clock()
    of = limit(clock, 6)
    many = [f"192.0.{number // 200}.{number % 200}" for number in range(1_000)]
    assert taken(of, *many) == BURST
    clock.now_s += 1
    assert taken(of, *many) == TOTAL.per_s


def test_what_the_total_refuses_is_not_taken_from_the_address() -> None:
    clock = Clock()
    of = limit(clock, 1)
    assert taken(of, *[f"192.0.2.{number}" for number in range(BURST)]) == BURST
    assert not of.take("198.51.100.1")
    clock.now_s += 1
    assert of.take("198.51.100.1")


def test_without_a_limit_of_wrong_keys_and_without_an_address_the_total_applies() -> None:
    assert taken(limit(Clock(), 0), *["192.0.2.1"] * 500) == BURST
    for nobody in ("", UNKNOWN):
        assert taken(limit(Clock(), 6), *[nobody] * 500) == BURST
