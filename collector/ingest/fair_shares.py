"""Shares of keys and addresses in common limits: senders, Idempotency-Keys and devices of a shard."""

from __future__ import annotations

from functools import lru_cache

from starlette.types import Scope

from telemetry.hot_store.operations.append import UNLIMITED, Limits, Owner
from telemetry.limits.client_address import Addresses, Headers, owner
from telemetry.limits.connections import NOBODY_TRUSTED
from telemetry.model.api_keys import Caller

ALL_PERCENT = 100

MOST_KNOWN = 4_096
"""Maximum number of cached owners of addresses."""


class Shares:
    """Determines the owner whose share a request counts towards.

    `percent` of each limit is for one key with a prefix or, if no key is required, for one address. A key or token
    for named devices has `senders` and `names` for each of them. 0, and 100 percent, mean no share.
    """

    def __init__(
        self, limits: Limits, percent: int, senders: int, names: int, addresses: Addresses = NOBODY_TRUSTED
    ) -> None:
        is_limited = percent < ALL_PERCENT
        self._max_senders, self._max_names, self._max_devices = (
            max(1, one * percent // ALL_PERCENT) if is_limited else 0
            for one in (limits.max_senders, limits.max_names, limits.max_devices)
        )
        self._senders = senders
        self._names = names
        self._addresses = addresses
        self._of_address = lru_cache(MOST_KNOWN)(self._owner_at)

    def of_request(self, scope: Scope, caller: Caller) -> Owner:
        """Owner of an HTTP request."""
        if caller.key_id:
            return self.of_caller(caller)
        return self.of_client(scope["client"], scope["headers"])

    def of_client(self, peer: tuple[str, int] | None, headers: Headers) -> Owner:
        """Owner for an HTTP client, if no key is required."""
        return self._of_address(self._addresses.asking(peer[0], headers)) if peer and peer[0] else UNLIMITED

    def of_caller(self, caller: Caller) -> Owner:
        """Owner for a key. A key for all devices has no limit."""
        binding = caller.binding
        if not binding.is_bound:
            return UNLIMITED
        if binding.prefix:
            return Owner(caller.key_id, self._max_senders, self._max_names, binding.prefix, self._max_devices)
        name = f"{caller.key_id}:{caller.device}" if caller.device else caller.key_id
        devices = len(binding.devices)
        return Owner(name, self._senders * devices, self._names * devices)

    def of_address(self, address: str) -> Owner:
        """Owner for an address, if no key is required. A unix socket's peer has no limit."""
        return self._of_address(address) if address else UNLIMITED

    def _owner_at(self, address: str) -> Owner:
        return Owner(f"@{owner(address)}", self._max_senders, self._max_names, max_devices=self._max_devices)
