"""Senders of numbered batches that a shard remembers: listed, and forgotten on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shard

READ_SENDERS = 1_000
"""Senders read or forgotten at once, some ms of Redis's time."""


class Sender(NamedTuple):
    """A sender as one shard remembers it. `owner` is the key (or `@` and the address) whose share it counts towards."""

    shard: int
    name: str
    owner: str
    number: int
    seen_ms: int


def known(shard: Shard) -> Iterator[Sender]:
    """All senders of a shard, in no order. One that comes meanwhile may be missing."""
    owners = _owners(shard)
    jumped_ms = int(translated(lambda: shard.client.hget(shard.keys.store, "jumped_ms")) or 0)
    cursor = 0
    while True:
        cursor, found = _scan(shard, cursor)
        names = list(found)
        seen = translated(lambda: shard.client.zmscore(shard.keys.senders_seen, names)) if names else []  # type: ignore[arg-type]  # noqa: B023
        for name, at_ms in zip(names, seen, strict=True):
            if at_ms is not None:
                text = name.decode(errors="replace")
                yield Sender(shard.shard, text, owners.get(name, ""), int(found[name]), int(at_ms) + jumped_ms)
        if cursor == 0:
            return


def forget(shard: Shard, senders: Sequence[Sender]) -> int:
    """Forget senders of a shard; returns how many. A batch that one sends again is stored again."""
    gone = 0
    for start in range(0, len(senders), READ_SENDERS):
        pipe = shard.client.pipeline(transaction=True)
        for one in senders[start : start + READ_SENDERS]:
            pipe.hdel(shard.keys.senders, one.name)
            pipe.zrem(shard.keys.senders_seen, one.name)
            if one.owner:
                pipe.zrem(shard.keys.senders_of(one.owner), one.name)
        answers = translated(pipe.execute)
        step = iter(answers)
        for one in senders[start : start + READ_SENDERS]:
            gone += next(step)
            next(step)
            if one.owner:
                next(step)
    return gone


def _scan(shard: Shard, cursor: int) -> tuple[int, dict[bytes, bytes]]:
    return translated(lambda: shard.client.hscan(shard.keys.senders, cursor, count=READ_SENDERS))  # type: ignore[no-any-return]


def _owners(shard: Shard) -> dict[bytes, str]:
    """Sender → the owner whose share it counts towards, where there is one."""
    found: dict[bytes, str] = {}
    start = shard.keys.senders_of("")
    pattern = start.replace("[", r"\[") + "*"
    for key in translated(lambda: list(shard.client.scan_iter(match=pattern, count=READ_SENDERS))):
        owner = key.decode(errors="replace")[len(start) :]
        for name in translated(lambda: shard.client.zrange(key, 0, -1)):  # noqa: B023 (called at once)
            found[name] = owner
    return found
