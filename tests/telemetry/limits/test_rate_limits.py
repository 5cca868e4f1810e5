"""Rates: what is asked of an address and of a key, what is said of it, and that a refusal costs nobody anything."""

from __future__ import annotations

from telemetry.config.settings import LimitsSection
from telemetry.limits.rate_limits import Over, Rates


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def rates(**settings: float) -> tuple[Rates, Clock]:
    clock = Clock()
    return Rates(LimitsSection(**settings), clock), clock  # type: ignore[arg-type]


def refused(over: Over | None) -> Over:
    assert over is not None
    return over


def test_nothing_is_limited_by_default_but_wrong_keys() -> None:
    found, _ = rates()
    assert not found.are_set
    assert not found.count_records
    assert found.request("a") is None
    assert found.records("a", "k", 10**9) is None
    assert found.shown("a", "k") == (b"", b"")
    assert [found.wrong_key("a") for _ in range(60)] == [None] * 60
    assert str(found.wrong_key("a")) == "address a may send 60 wrong keys a minute; try again in 1 s"


def test_requests_of_an_address_and_of_a_key() -> None:
    found, clock = rates(address_requests_per_s=2, key_requests_per_s=1)
    assert [found.request("a") is None for _ in range(3)] == [True, True, False]
    assert str(found.request("a")) == "address a may send 2 requests a second; try again in 1 s"
    assert found.request("b") is None
    assert found.request_of_key("k") is None
    assert str(found.request_of_key("k")) == "the key k may send 1 requests a second; try again in 1 s"
    assert found.request_of_key("") is None
    clock.now_s += 1
    assert found.request("a") is None
    assert found.request_of_key("k") is None


def test_records_take_from_both_or_from_neither() -> None:
    found, _ = rates(address_records_per_s=1, address_records_burst=100, key_records_per_s=1, key_records_burst=50)
    assert found.records("a", "k", 50) is None
    over = refused(found.records("a", "k", 50))
    assert (over.policy, over.owner, over.retry_after_s) == ("key-records", "k", 50)
    assert found.records("a", "", 50) is None
    assert refused(found.records("a", "", 1)).policy == "address-records"


def test_while_an_address_owes_its_posts_are_refused_before_they_are_read() -> None:
    found, clock = rates(address_records_per_s=10, address_requests_per_s=5)
    assert found.records("a", "", 100) is None
    assert refused(found.request("a", brings_records=True)).policy == "address-records"
    assert found.request("a") is None
    clock.now_s += 10
    assert found.request("a", brings_records=True) is None


def test_what_came_over_a_connection_is_paid_for_later() -> None:
    found, clock = rates(address_records_per_s=10)
    found.spend_records("a", "", 30)
    assert round(found.records_wait_s("a"), 6) == 2.1
    clock.now_s += 2.2
    assert found.records_wait_s("a") == 0


def test_what_an_answer_says() -> None:
    found, _ = rates(address_requests_per_s=0.5, address_requests_burst=3, key_records_per_s=10, key_records_burst=25)
    found.request("a")
    found.records("a", "k", 5)
    policies, levels = found.shown("a", "k")
    assert policies == b'"address-requests";q=3;w=6, "key-records";q=25;w=3;qu="records"'
    assert levels == b'"address-requests";r=2;t=2, "key-records";r=20;t=1'
    assert found.shown("a", "")[1] == b'"address-requests";r=2;t=2'


def test_a_debt_is_said_as_nothing_left() -> None:
    found, _ = rates(address_records_per_s=10)
    found.spend_records("a", "", 30)
    assert found.shown("a", "")[1] == b'"address-records";r=0;t=3'
