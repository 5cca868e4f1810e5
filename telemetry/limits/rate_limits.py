"""How much one address and one key may ask and send: the settings `[limits]` as token buckets.

Each process counts for itself; nothing of it is kept. A request takes one token of its address and, once its key is
known, one of its key; its records take one each of both before they are stored, all or none.
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
    """What was asked is more than may be: of which policy, whose, and the seconds until it may be tried again."""

    policy: str
    who: str
    rate: Rate
    wait_s: float

    @property
    def retry_after_s(self) -> int:
        """Whole seconds, at least one."""
        return max(1, math.ceil(self.wait_s))

    def __str__(self) -> str:
        whose, what = self.policy.split("-", 1)
        named = f"{whose} {self.who}" if whose == "address" else f"the key {self.who}"
        many = f"{self.rate.per_s:g} {what.replace('-', ' ')} a second"
        if what == "wrong-keys":
            many = f"{self.rate.per_s * MINUTE_S:g} wrong keys a minute"
        return f"{named} may send {many}; try again in {self.retry_after_s} s"


class Policy:
    """A limit by its name, and the buckets of all whom it is for.

    `shown` is what the header `RateLimit-Policy` says of it (draft-ietf-httpapi-ratelimit-headers-10).
    """

    def __init__(self, name: str, buckets: Buckets) -> None:
        self.name = name
        self.buckets = buckets
        rate = buckets.rate
        unit = "" if name.endswith("-requests") else f';qu="{name.split("-", 1)[1]}"'
        self.shown = f'"{name}";q={math.floor(rate.burst)};w={max(1, math.ceil(rate.burst / rate.per_s))}{unit}'
        self._start = f'"{name}";r='

    def level(self, who: str) -> str:
        """As the header `RateLimit` says it."""
        left, full_in_s = self.buckets.level(who)
        return f"{self._start}{int(left + TOLERANCE) if left > 0 else 0};t={math.ceil(full_in_s)}"


class Rates:
    """All policies; one that the settings leave out is None."""

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
        self._shown = {who: self._policies("", who) for who in ("", "key")}

    @classmethod
    def of(cls, settings: Settings) -> Rates:
        return cls(settings.limits)

    @property
    def count_records(self) -> bool:
        """Whether there is a limit of records."""
        return bool(self.address_records or self.key_records)

    @property
    def are_set(self) -> bool:
        """Whether there is any limit of requests or records."""
        return any((self.address_requests, self.address_records, self.key_requests, self.key_records))

    def request(self, address: str, brings_records: bool = False) -> Over | None:
        """A request of an address; also if what it brings could not be taken anyway."""
        if brings_records and self.address_records is not None:
            wait_s = self.address_records.buckets.wait_s(address)
            if wait_s:
                return _over(self.address_records, address, wait_s)
        return _take(self.address_requests, address)

    def request_of_key(self, key_id: str) -> Over | None:
        """The same request, once its key is known; an empty id is none."""
        return _take(self.key_requests, key_id) if key_id else None

    def wrong_key(self, address: str) -> Over | None:
        """A key that is nobody's."""
        return _take(self.wrong_keys, address)

    def records(self, address: str, key_id: str, count: int) -> Over | None:
        """Records of a request, before they are stored."""
        asked = list(self._of_records(address, key_id))
        for policy, who in asked:
            wait_s = policy.buckets.wait_s(who, count)
            if wait_s:
                return _over(policy, who, wait_s)
        for policy, who in asked:
            policy.buckets.spend(who, count)
        return None

    def spend_records(self, address: str, key_id: str, count: int) -> None:
        """Records that can't be refused any more: what they are too many is waited for before the next are read."""
        for policy, who in self._of_records(address, key_id):
            policy.buckets.spend(who, count)

    def records_wait_s(self, address: str, key_id: str = "") -> float:
        """Seconds until the next record may come."""
        return max((policy.buckets.wait_s(who) for policy, who in self._of_records(address, key_id)), default=0.0)

    def shown(self, address: str, key_id: str) -> tuple[bytes, bytes]:
        """The headers `RateLimit-Policy` and `RateLimit` of an answer; empty if nothing is limited."""
        levels = ", ".join([policy.level(who) for policy, who in self._all(address, key_id)])
        return self._shown["key" if key_id else ""], levels.encode()

    def _policies(self, address: str, key_id: str) -> bytes:
        return ", ".join(policy.shown for policy, _ in self._all(address, key_id)).encode()

    def _of_records(self, address: str, key_id: str) -> Iterable[tuple[Policy, str]]:
        if self.address_records is not None:
            yield self.address_records, address
        if self.key_records is not None and key_id:
            yield self.key_records, key_id

    def _all(self, address: str, key_id: str) -> Iterable[tuple[Policy, str]]:
        if self.address_requests is not None:
            yield self.address_requests, address
        if self.key_requests is not None and key_id:
            yield self.key_requests, key_id
        yield from self._of_records(address, key_id)


def _take(policy: Policy | None, who: str) -> Over | None:
    wait_s = 0.0 if policy is None else policy.buckets.take(who)
    return _over(policy, who, wait_s) if wait_s and policy is not None else None


def _over(policy: Policy, who: str, wait_s: float) -> Over:
    return Over(policy.name, who, policy.buckets.rate, wait_s)
