"""Rate limit for lookups of unknown keys: per address, and in total per process.

A lookup asks Redis whether a key that the process does not know was just created. Without a limit, wrong keys of an
attacker would cause a Redis call each. The limit per address is the one for wrong keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from telemetry.config.settings import LimitsSection
from telemetry.limits.client_address import UNKNOWN, owner
from telemetry.limits.rate_limits import MINUTE_S
from telemetry.limits.token_bucket import Buckets, Rate

TOTAL = Rate(10.0, 100.0)
"""Lookups per second of all addresses together, and the burst. Each is one short Redis call, and may use a thread."""

EVERYBODY = ""


class LookupLimit:
    """Token buckets per address and in total. With an `address_wrong_keys_per_min` of 0 only the total applies."""

    def __init__(self, limits: LimitsSection | None = None, clock_s: Callable[[], float] = time.monotonic) -> None:
        limits = limits or LimitsSection()
        per_min = limits.address_wrong_keys_per_min
        rate = Rate.of(per_min / MINUTE_S, per_min)
        self._of_addresses = Buckets(rate, limits.max_buckets, clock_s) if per_min else None
        self._total = Buckets(TOTAL, 1, clock_s)

    def take(self, address: str) -> bool:
        """Take a token from both buckets. False if one is empty; then none is taken.

        A peer on a Unix socket has no address. It is either a program of the box, which has checked the key already,
        or a proxy that sends no client address: only the total applies.
        """
        buckets, bucket = self._of_addresses, owner(address)
        if buckets is None or bucket == UNKNOWN:
            return not self._total.take(EVERYBODY)
        if buckets.wait_s(bucket) or self._total.take(EVERYBODY):
            return False
        buckets.spend(bucket)
        return True
