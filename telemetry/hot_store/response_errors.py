"""Errors of Redis and of the functions in `lua/` as Whimbrel's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from telemetry.model.errors import BusyError, OtherStoreError, ShareFull, StoreError, StoreUnavailable

SHARE_RETRY_S = 300
"""Retry-After if a share is full, s: it empties as names expire, not within seconds."""


def permitted(ask: Callable[[], Any]) -> Any:
    """Run `ask`; raises `PermissionError` if this user lacks the permission."""
    try:
        return ask()
    except NoPermissionError as error:
        raise PermissionError(str(error)) from error


def translated(ask: Callable[[], Any]) -> Any:
    """Run `ask`, converting redis-py's errors to Whimbrel's."""
    try:
        return ask()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(f"cannot reach Redis: {error}") from error
    except redis.OutOfMemoryError as error:
        raise BusyError("Redis is at its memory limit") from error
    except redis.ResponseError as error:
        raise _from_response(str(error)) from error


def _from_response(text: str) -> StoreError | BusyError:
    if text.startswith("OTHERSTORE"):
        return OtherStoreError("cannot use Redis: its store is not the one from the start of this program")
    if text.startswith("DEVICESFULL"):
        return DevicesFull("device limit reached (collector.max_devices): new devices are rejected")
    if text.startswith("NAMEOWNERS"):
        return OwnersNotNamed("cannot add a device: its owner is not named")
    if text.startswith("OWNERFULL"):
        owner = text.partition(" ")[2].removeprefix("@")
        return DeviceShareFull(
            f"cannot add a device: {owner} has added its share of collector.max_devices (limits.owner_share_percent)",
            retry_after_s=SHARE_RETRY_S,
        )
    if text.startswith("SHAREFULL"):
        prefix = text.partition(" ")[2]
        return DeviceShareFull(
            f"cannot add a device: devices with the prefix {prefix!r} have used their share of collector.max_devices "
            "(limits.owner_share_percent)",
            retry_after_s=SHARE_RETRY_S,
        )
    if text.startswith("OOM"):
        return BusyError("Redis is at its memory limit")
    return StoreUnavailable(f"cannot use Redis: {text}")


class DevicesFull(BusyError):
    """The records would add more devices than a shard may have."""


class DeviceShareFull(DevicesFull, ShareFull):
    """The records would add more devices than their key's prefix may have, or than their owner may add."""


class OwnersNotNamed(StoreError):
    """The records would add a device, and the owners that have a share of devices are not named."""
