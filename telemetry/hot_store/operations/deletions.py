"""Deleting a device: what is asked, how far it is, and what it removed. worker/device_erasure.py carries it out.

A deletion has a moment: the call of `forget` (lua/deletion.lua), in which the device goes from Redis whole: its stream,
its latest, its name. What was accepted before has a lower id than every record that comes after, since ids are allotted
by the calls that accept records; so what is to go from the archive is exactly the device's rows below the next id of
that moment (`Mark.before_id`), wherever they are by then and whoever still writes them.

Until its end the device stands in `deleting`, as one line:

    <name> <next id> <last entry of the quarantine> <generation>

Asked for again meanwhile, the deletion keeps its name and its moment moves on; the generation tells.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import redis

from telemetry.hot_store.entry_codec import behind, entry_id, entry_text
from telemetry.hot_store.response_errors import translated
from telemetry.hot_store.shard import READ_ENTRIES, Shard

log = logging.getLogger(__name__)

KEPT_S = 30 * 86_400
"""How long a deletion that is done can be asked after."""

SWEPT_WITHIN_S = 1_200
"""Two looks of the sweep: it sees that a file is unlisted, and `archive.grace_seconds` later it deletes it."""

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"

_NAME = re.compile(r"(\d{1,9})-[0-9a-f]{32}")


class Mark(NamedTuple):
    """What stands in `deleting` of a device."""

    device_id: str
    text: str

    @property
    def name(self) -> str:
        """The deletion's name."""
        return self.text.split()[0]

    @property
    def before_id(self) -> int:
        """Records of the device with a lower id go, all others stay."""
        return int(self.text.split()[1])


class Deletion(NamedTuple):
    """How far a deletion is. Times are ms since epoch, None for not yet; `days` are ISO dates.

    `waiting_records` were in Redis alone, `archived_records` in the archive, in `files` that were written anew or given
    up. `version` is the archive's up to which that is counted, None if it has not begun. `to_look_at` is how many files
    may still hold records. `left` are files, as paths from the archive's root, that may have held records when it was
    done and were no longer in the table.
    """

    name: str
    state: str
    asked_ms: int
    done_ms: int | None
    waiting_records: int
    archived_records: int
    quarantined: int
    files: int
    days: tuple[str, ...]
    to_look_at: int | None
    version: int | None
    trouble: str
    left: tuple[str, ...]


def ask(shard: Shard, device_id: str) -> str | None:
    """Delete a device, from now on. Returns the deletion's name; None if there is no such device.

    On disk when it returns. Raises as `Shard` does.
    """
    k = shard.keys
    while True:
        pending = translated(lambda: shard.client.hget(k.deleting, device_id))
        name = Mark(device_id, pending.decode()).name if pending else f"{shard.shard}-{secrets.token_hex(16)}"
        keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id, k.allotted, k.quarantine]
        keys += [k.deleting, k.stream(device_id), k.deletion(name), k.recent]
        answer = shard.call("forget", keys, [shard.store_id, device_id, name])
        if answer >= 0:
            return name if answer else None


def shard_named(name: str) -> int | None:
    """The shard of a deletion, None if none can be called so."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def pending(shard: Shard) -> list[Mark]:
    """All deletions of a shard that are not done."""
    found = translated(lambda: shard.client.hgetall(shard.keys.deleting))
    return [Mark(device.decode(), text.decode()) for device, text in sorted(found.items())]


def count_pending(shard: Shard) -> int:
    """How many they are."""
    return int(translated(lambda: shard.client.hlen(shard.keys.deleting)))


def read(shard: Shard, name: str) -> Deletion | None:
    """How far a deletion is; None if there is none of that name, or not any more."""
    pipe = shard.client.pipeline(transaction=True)
    pipe.hgetall(shard.keys.deletion(name))
    pipe.smembers(shard.keys.left(name))
    raw, left = translated(pipe.execute)
    if not raw:
        return None
    found = {field.decode(): text.decode() for field, text in raw.items()}

    def number(field: str) -> int | None:
        return int(found[field]) if found.get(field) else None

    return Deletion(
        name,
        found["state"],
        int(found["asked_ms"]),
        number("done_ms"),
        number("waiting_records") or 0,
        number("archived_records") or 0,
        number("quarantined") or 0,
        number("files") or 0,
        tuple(found.get("days", "").split()),
        number("to_look_at"),
        number("version"),
        found.get("trouble", ""),
        tuple(sorted(path.decode() for path in left)),
    )


def note(shard: Shard, name: str, version: int | None, fields: Mapping[str, str | int]) -> bool:
    """Note how far a deletion is; False, and nothing is, if the version noted of it is not `version` any more."""
    args: list[str | bytes | int] = [shard.store_id, "" if version is None else version]
    for field, value in fields.items():
        args += (field, value)
    return bool(shard.call("note_deletion", [shard.keys.store, shard.keys.deletion(name)], args))


def cleanse(shard: Shard, mark: Mark) -> int:
    """Take what is of the device out of the quarantine. Returns how many entries that were.

    The stream is made anew for that, which keeps Redis from others for some 20 ms a MiB, so only where one is there.
    """
    k, start = shard.keys, "-"
    while page := translated(lambda: shard.client.xrange(k.quarantine, start, "+", READ_ENTRIES)):  # noqa: B023
        if any(fields[1] == mark.device_id.encode() for _, fields in page):
            keys = [k.store, k.quarantine, k.quarantine_state, k.replayed, k.deleting]
            return int(shard.call("cleanse", keys, [shard.store_id, mark.device_id]))
        start = entry_text(behind(entry_id(page[-1][0])))
    return 0


def rewrite_log(shards: Sequence[Shard]) -> bool:
    """Have Redis write its append-only file anew if a device was deleted since: it holds all that ever was.

    Returns whether it was begun. While another one is under way, or where that may not be asked, it is not.
    """
    client, stores = shards[0].client, [shard.keys.store for shard in shards]
    found = [translated(lambda: client.hmget(store, "deleted", "rewritten")) for store in stores]  # noqa: B023
    if all((deleted or b"0") == (rewritten or b"0") for deleted, rewritten in found):
        return False
    if (why := translated(lambda: _refusal(client))) is not None:
        log.info("Redis does not write its append-only file anew now: %s", why)
        return False
    for store, (deleted, _) in zip(stores, found, strict=True):
        translated(lambda: client.hset(store, "rewritten", deleted or b"0"))  # noqa: B023
    return True


def _refusal(client: redis.Redis) -> str | None:
    try:
        client.bgrewriteaof()
    except redis.ResponseError as error:
        return str(error)
    return None


def complete(shard: Shard, mark: Mark, left: Sequence[str]) -> bool:
    """End a deletion: nothing in Redis names the device any more. False if it was asked for again meanwhile."""
    k = shard.keys
    keys = [k.store, k.deleting, k.deletion(mark.name), k.left(mark.name)]
    return bool(shard.call("complete", keys, [shard.store_id, mark.device_id, mark.text, KEPT_S, *left]))
