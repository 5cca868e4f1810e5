"""Limit of look-ups of unknown keys: of one address, and of all together, in one process.

A look-up asks Redis whether a key that the process does not know was just created. Without a limit, wrong keys of a
stranger would become calls of Redis. The limit of an address is that of its wrong keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from telemetry.config.settings import LimitsSection
from telemetry.limits.client_address import UNKNOWN, owner
from telemetry.limits.rate_limits import MINUTE_S
from telemetry.limits.token_bucket import Buckets, Rate

TOTAL = Rate(10.0, 100.0)
"""Look-ups a second of all addresses together, and at once. Each is one short call of Redis, and may be one thread."""

EVERYBODY = ""


class LookupLimit:
    """Token buckets of addresses and of all together. An `address_wrong_keys_per_min` of 0 leaves only the latter."""

    def __init__(self, limits: LimitsSection | None = None, clock_s: Callable[[], float] = time.monotonic) -> None:
        limits = limits or LimitsSection()
        per_min = limits.address_wrong_keys_per_min
        rate = Rate.of(per_min / MINUTE_S, per_min)
        self._of_addresses = Buckets(rate, limits.max_buckets, clock_s) if per_min else None
        self._total = Buckets(TOTAL, 1, clock_s)

    def take(self, address: str) -> bool:
        """Take a token of both buckets; False, and none is taken, if one of them is empty.

        A peer on a Unix socket has no address. It is a program of the box that has checked the key already, or a proxy
        that names nobody: only the total applies.
        """
        buckets, who = self._of_addresses, owner(address)
        if buckets is None or who == UNKNOWN:
            return not self._total.take(EVERYBODY)
        if buckets.wait_s(who) or self._total.take(EVERYBODY):
            return False
        buckets.spend(who)
        return True
