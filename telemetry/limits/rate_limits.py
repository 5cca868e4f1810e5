"""Rate limits per address and per key: the settings `[limits]` as token buckets.

Each process counts separately, in memory. A request takes one token of its address and, once authenticated, one of its
key. Its records take one token each of both before they are stored, all or none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from telemetry.config.settings import LimitsSection, Settings
from telemetry.limits.token_bucket import TOLERANCE, Buckets, Rate

MINUTE_S = 60.0


class Over(NamedTuple):
    """A limit was exceeded: its policy, the owner, the rate, and the seconds until the next attempt."""

    policy: str
    owner: str
    rate: Rate
    wait_s: float

    @property
    def retry_after_s(self) -> int:
        """Seconds until the next attempt, rounded up, at least 1."""
        return max(1, math.ceil(self.wait_s))

    def __str__(self) -> str:
        subject, unit = self.policy.split("-", 1)
        named = f"{subject} {self.owner}" if subject == "address" else f"the key {self.owner}"
        rate = f"{self.rate.per_s:g} {unit.replace('-', ' ')} a second"
        if unit == "wrong-keys":
            rate = f"{self.rate.per_s * MINUTE_S:g} wrong keys a minute"
        return f"{named} may send {rate}; try again in {self.retry_after_s} s"


class Policy:
    """A named limit, and the buckets of its owners.

    `shown` is its item in the header `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
    """

    def __init__(self, name: str, buckets: Buckets) -> None:
        self.name = name
        self.buckets = buckets
        rate = buckets.rate
        unit = "" if name.endswith("-requests") else f';qu="{name.split("-", 1)[1]}"'
        self.shown = f'"{name}";q={math.floor(rate.burst)};w={max(1, math.ceil(rate.burst / rate.per_s))}{unit}'
        self._start = f'"{name}";r='

    def level(self, owner: str) -> str:
        """The item of an owner's bucket in the header `RateLimit`."""
        left, full_in_s = self.buckets.level(owner)
        return f"{self._start}{int(left + TOLERANCE) if left > 0 else 0};t={math.ceil(full_in_s)}"


class Rates:
    """All policies; None for those without a limit in the settings."""

    def __init__(self, limits: LimitsSection, clock_s: Callable[[], float] = time.monotonic) -> None:
        def policy(name: str, per_s: float, burst: float) -> Policy | None:
            if not per_s:
                return None
            return Policy(name, Buckets(Rate.of(per_s, burst), limits.max_buckets, clock_s))

        a, k = limits, limits
        self.address_requests = policy("address-requests", a.address_requests_per_s, a.address_requests_burst)
        self.address_records = policy("address-records", a.address_records_per_s, a.address_records_burst)
        self.key_requests = policy("key-requests", k.key_requests_per_s, k.key_requests_burst)
        self.key_records = policy("key-records", k.key_records_per_s, k.key_records_burst)
        wrong = limits.address_wrong_keys_per_min
        self.wrong_keys = policy("address-wrong-keys", wrong / MINUTE_S, wrong)
        self._shown = {owner: self._policies("", owner) for owner in ("", "key")}

    @classmethod
    def of(cls, settings: Settings) -> Rates:
        return cls(settings.limits)

    @property
    def count_records(self) -> bool:
        """True if records are limited."""
        return bool(self.address_records or self.key_records)

    @property
    def are_set(self) -> bool:
        """True if requests or records are limited."""
        return any((self.address_requests, self.address_records, self.key_requests, self.key_records))

    def request(self, address: str, brings_records: bool = False) -> Over | None:
        """Count a request of an address, whether its records are accepted or not."""
        if brings_records and self.address_records is not None:
            wait_s = self.address_records.buckets.wait_s(address)
            if wait_s:
                return _over(self.address_records, address, wait_s)
        return _take(self.address_requests, address)

    def request_of_key(self, key_id: str) -> Over | None:
        """Count an authenticated request of a key; an empty id = no key."""
        return _take(self.key_requests, key_id) if key_id else None

    def wrong_key(self, address: str) -> Over | None:
        """Count a wrong key."""
        return _take(self.wrong_keys, address)

    def records(self, address: str, key_id: str, count: int) -> Over | None:
        """Take tokens for the records of a request, before they are stored."""
        limits = list(self._of_records(address, key_id))
        for policy, owner in limits:
            wait_s = policy.buckets.wait_s(owner, count)
            if wait_s:
                return _over(policy, owner, wait_s)
        for policy, owner in limits:
            policy.buckets.spend(owner, count)
        return None

    def take_all(self, address: str, key_id: str, records: int) -> bool:
        """Take the tokens of a request with its records, all or none. False if a limit is exceeded."""
        amounts = [(policy, owner, records) for policy, owner in self._of_records(address, key_id)] if records else []
        amounts += [(policy, owner, 1) for policy, owner in self._of_requests(address, key_id)]
        if any(policy.buckets.wait_s(owner, amount) for policy, owner, amount in amounts):
            return False
        for policy, owner, amount in amounts:
            policy.buckets.spend(owner, amount)
        return True

    def spend_records(self, address: str, key_id: str, count: int) -> None:
        """Take tokens for records that were already read; the next ones are read once the debt is paid."""
        for policy, owner in self._of_records(address, key_id):
            policy.buckets.spend(owner, count)

    def records_wait_s(self, address: str, key_id: str = "") -> float:
        """Seconds until the next record is allowed."""
        return max((policy.buckets.wait_s(owner) for policy, owner in self._of_records(address, key_id)), default=0.0)

    def shown(self, address: str, key_id: str) -> tuple[bytes, bytes]:
        """The headers `RateLimit-Policy` and `RateLimit` of a response; empty without limits."""
        levels = ", ".join([policy.level(owner) for policy, owner in self._all(address, key_id)])
        return self._shown["key" if key_id else ""], levels.encode()

    def _policies(self, address: str, key_id: str) -> bytes:
        return ", ".join(policy.shown for policy, _ in self._all(address, key_id)).encode()

    def _of_records(self, address: str, key_id: str) -> Iterable[tuple[Policy, str]]:
        if self.address_records is not None:
            yield self.address_records, address
        if self.key_records is not None and key_id:
            yield self.key_records, key_id

    def _of_requests(self, address: str, key_id: str) -> Iterable[tuple[Policy, str]]:
        if self.address_requests is not None:
            yield self.address_requests, address
        if self.key_requests is not None and key_id:
            yield self.key_requests, key_id

    def _all(self, address: str, key_id: str) -> Iterable[tuple[Policy, str]]:
        yield from self._of_requests(address, key_id)
        yield from self._of_records(address, key_id)


def _take(policy: Policy | None, owner: str) -> Over | None:
    wait_s = 0.0 if policy is None else policy.buckets.take(owner)
    return _over(policy, owner, wait_s) if wait_s and policy is not None else None


def _over(policy: Policy, owner: str, wait_s: float) -> Over:
    return Over(policy.name, owner, policy.buckets.rate, wait_s)
