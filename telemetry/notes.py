"""What the programs of a box tell each other in Redis, beside the shards: small keys that belong to all of it.

This file is all that knows these keys.

    whimbrel:alive     hash  program → s since epoch of its last sign of life
    whimbrel:refused   hash  reason → how much was ever refused for it (refusals.py)

Each function raises `StoreUnavailable` if Redis can't be asked, `BusyError` if it is at its limit.
"""

from __future__ import annotations

from collections.abc import Mapping

import redis

from telemetry.hot import translated

ALIVE = "whimbrel:alive"
REFUSED = "whimbrel:refused"

# Signs of life ---------------------------------------------------------------------------------------

WORKER, SCHEDULER = "worker", "scheduler"
"""Programs that give signs of life."""


def say_alive(client: redis.Redis, program: str, now_s: float) -> None:
    """Note that a program works."""
    translated(lambda: client.hset(ALIVE, program, f"{now_s:.3f}"))


def seen_alive(client: redis.Redis) -> dict[str, float]:
    """Program → s since the epoch of its last sign of life."""
    found = translated(lambda: client.hgetall(ALIVE))
    return {name.decode(): float(seen) for name, seen in found.items()}


# Refusals --------------------------------------------------------------------------------------------


def add_refused(client: redis.Redis, counts: Mapping[str, int]) -> None:
    """Add to what was refused for each reason, all at once or, if it can't be now, nothing."""
    pipe = client.pipeline(transaction=True)
    for reason, count in counts.items():
        pipe.hincrby(REFUSED, reason, count)
    translated(pipe.execute)


def refused(client: redis.Redis) -> dict[str, int]:
    """Reason → how much was ever refused for it."""
    found = translated(lambda: client.hgetall(REFUSED))
    return {reason.decode(): int(count) for reason, count in sorted(found.items())}
