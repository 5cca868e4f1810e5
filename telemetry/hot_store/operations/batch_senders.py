"""Lists and forgets the senders of numbered batches that a shard remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import Shard

READ_SENDERS = 1_000
"""Number of senders per call, which takes some ms of Redis's time."""


class Sender(NamedTuple):
    """A remembered sender. `owner` is the key (or `@` and the address) whose share it counts towards."""

    shard: int
    name: str
    owner: str
    number: int
    seen_ms: int


def known(shard: Shard) -> Iterator[Sender]:
    """All senders of a shard, unordered. A sender added meanwhile may be missing."""
    owners = _owners(shard)
    jumped_ms = int(translated(lambda: shard.client.hget(shard.keys.store, "jumped_ms")) or 0)
    cursor = 0
    while True:
        cursor, fields = _scan(shard, cursor)
        names = list(fields)
        seen = translated(lambda: shard.client.zmscore(shard.keys.senders_seen, names)) if names else []  # type: ignore[arg-type]  # noqa: B023
        for name, at_ms in zip(names, seen, strict=True):
            if at_ms is not None:
                text = name.decode(errors="replace")
                yield Sender(shard.shard, text, owners.get(name, ""), int(fields[name]), int(at_ms) + jumped_ms)
        if cursor == 0:
            return


def forget(shard: Shard, senders: Sequence[Sender]) -> int:
    """Forget senders of a shard; returns their number. If one repeats a batch, it is stored again."""
    removed = 0
    for start in range(0, len(senders), READ_SENDERS):
        pipe = shard.client.pipeline(transaction=True)
        for sender in senders[start : start + READ_SENDERS]:
            pipe.hdel(shard.keys.senders, sender.name)
            pipe.zrem(shard.keys.senders_seen, sender.name)
            if sender.owner:
                pipe.zrem(shard.keys.senders_of(sender.owner), sender.name)
        answers = translated(pipe.execute)
        step = iter(answers)
        for sender in senders[start : start + READ_SENDERS]:
            removed += next(step)
            next(step)
            if sender.owner:
                next(step)
    return removed


def _scan(shard: Shard, cursor: int) -> tuple[int, dict[bytes, bytes]]:
    return translated(lambda: shard.client.hscan(shard.keys.senders, cursor, count=READ_SENDERS))  # type: ignore[no-any-return]


def _owners(shard: Shard) -> dict[bytes, str]:
    """Sender → the owner whose share it counts towards, if any."""
    owners: dict[bytes, str] = {}
    start = shard.keys.senders_of("")
    pattern = start.replace("[", r"\[") + "*"
    for key in translated(lambda: list(shard.client.scan_iter(match=pattern, count=READ_SENDERS))):
        owner = key.decode(errors="replace")[len(start) :]
        for name in translated(lambda: shard.client.zrange(key, 0, -1)):  # noqa: B023 (called at once)
            owners[name] = owner
    return owners
