"""Deletions of devices: request, progress, and result. worker/device_erasure.py carries them out.

A deletion takes effect at one moment: the call of `forget` (lua/deletion.lua), which removes the whole device from
Redis: its stream, its latest, its name. Records accepted before have lower ids than all later ones, because the calls
that accept records assign the ids. The archive must therefore delete exactly the device's rows with ids below the next
id at that moment (`Mark.before_id`), wherever they are by then and whatever process still writes them.

Until its end the device has a line in `deleting`:

    <name> <next id> <last entry of the quarantine> <generation>

If the device is deleted again meanwhile, the deletion keeps its name and its moment moves on; the generation shows it.
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
"""Time for which the status of a finished deletion is available, s."""

SWEPT_WITHIN_S = 1_200
"""Duration of two cleanup runs, s: one detects an unlisted file, a later one deletes it after
`archive.grace_seconds`."""

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"

_NAME = re.compile(r"(\d{1,9})-[0-9a-f]{32}")


class Mark(NamedTuple):
    """A device's line in `deleting`."""

    device_id: str
    text: str

    @property
    def name(self) -> str:
        """The deletion's name."""
        return self.text.split()[0]

    @property
    def before_id(self) -> int:
        """Records of the device with lower ids are deleted, all others stay."""
        return int(self.text.split()[1])


class Deletion(NamedTuple):
    """Status of a deletion. Times are ms since epoch, None = not yet; `days` are ISO dates.

    `waiting_records` were unsaved, in Redis only; `archived_records` were in the archive, in `files` that were
    rewritten or removed. `version` is the archive's version up to which they are counted, None if it has not begun.
    `to_look_at` is the number of files that may still have records. `left` are files, as paths from the archive's root,
    that may have had records at the end and were no longer in the table.
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
    """Delete a device from now on. Returns the deletion's name; None for an unknown device.

    Synced on return. Raises as `Shard` does.
    """
    k = shard.keys
    while True:
        pending = translated(lambda: shard.client.hget(k.deleting, device_id))
        name = Mark(device_id, pending.decode()).name if pending else f"{shard.shard}-{secrets.token_hex(16)}"
        keys = [k.store, k.latest, k.devices, k.dirty, k.unsaved, k.next_id, k.allotted, k.quarantine]
        owner = (translated(lambda: shard.client.hget(k.added_by, device_id)) or b"").decode()
        keys += [k.deleting, k.stream(device_id), k.deletion(name), k.recent, k.added_by, k.devices_of(owner)]
        answer = shard.call("forget", keys, [shard.store_id, device_id, name, owner])
        if answer >= 0:
            return name if answer else None


def shard_named(name: str) -> int | None:
    """The shard of a deletion, None if the name is not valid."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def pending(shard: Shard) -> list[Mark]:
    """All unfinished deletions of a shard."""
    lines = translated(lambda: shard.client.hgetall(shard.keys.deleting))
    return [Mark(device.decode(), text.decode()) for device, text in sorted(lines.items())]


def count_pending(shard: Shard) -> int:
    """Number of unfinished deletions."""
    return int(translated(lambda: shard.client.hlen(shard.keys.deleting)))


def read(shard: Shard, name: str) -> Deletion | None:
    """Status of a deletion; None if it is unknown or expired."""
    pipe = shard.client.pipeline(transaction=True)
    pipe.hgetall(shard.keys.deletion(name))
    pipe.smembers(shard.keys.left(name))
    raw, left = translated(pipe.execute)
    if not raw:
        return None
    fields = {field.decode(): text.decode() for field, text in raw.items()}

    def number(field: str) -> int | None:
        return int(fields[field]) if fields.get(field) else None

    return Deletion(
        name,
        fields["state"],
        int(fields["asked_ms"]),
        number("done_ms"),
        number("waiting_records") or 0,
        number("archived_records") or 0,
        number("quarantined") or 0,
        number("files") or 0,
        tuple(fields.get("days", "").split()),
        number("to_look_at"),
        number("version"),
        fields.get("trouble", ""),
        tuple(sorted(path.decode() for path in left)),
    )


def note(shard: Shard, name: str, version: int | None, fields: Mapping[str, str | int]) -> bool:
    """Record progress; False, without a change, if the recorded version is no longer `version`."""
    args: list[str | bytes | int] = [shard.store_id, "" if version is None else version]
    for field, value in fields.items():
        args += (field, value)
    return bool(shard.call("note_deletion", [shard.keys.store, shard.keys.deletion(name)], args))


def cleanse(shard: Shard, mark: Mark) -> int:
    """Remove the device's entries from the quarantine. Returns their number.

    This rewrites the stream, which blocks Redis for some time, so it is done only if there is such an entry.
    """
    k, start = shard.keys, "-"
    while page := translated(lambda: shard.client.xrange(k.quarantine, start, "+", READ_ENTRIES)):  # noqa: B023
        if any(fields[1] == mark.device_id.encode() for _, fields in page):
            keys = [k.store, k.quarantine, k.quarantine_state, k.replayed, k.deleting]
            return int(shard.call("cleanse", keys, [shard.store_id, mark.device_id]))
        start = entry_text(behind(entry_id(page[-1][0])))
    return 0


def rewrite_log(shards: Sequence[Shard]) -> bool:
    """Make Redis rewrite its append-only file if a device was deleted since the last rewrite, because the file has all
    past writes.

    Returns False if another rewrite is running, or the user lacks the permission.
    """
    client, stores = shards[0].client, [shard.keys.store for shard in shards]
    counts = [translated(lambda: client.hmget(store, "deleted", "rewritten")) for store in stores]  # noqa: B023
    if all((deleted or b"0") == (rewritten or b"0") for deleted, rewritten in counts):
        return False
    if (why := translated(lambda: _refusal(client))) is not None:
        log.info("cannot start a rewrite of Redis's append-only file now: %s", why)
        return False
    for store, (deleted, _) in zip(stores, counts, strict=True):
        translated(lambda: client.hset(store, "rewritten", deleted or b"0"))  # noqa: B023
    return True


def _refusal(client: redis.Redis) -> str | None:
    try:
        client.bgrewriteaof()
    except redis.ResponseError as error:
        return str(error)
    return None


def complete(shard: Shard, mark: Mark, left: Sequence[str]) -> bool:
    """Finish a deletion: nothing in Redis names the device any more. False if it was requested again meanwhile."""
    k = shard.keys
    keys = [k.store, k.deleting, k.deletion(mark.name), k.left(mark.name)]
    return bool(shard.call("complete", keys, [shard.store_id, mark.device_id, mark.text, KEPT_S, *left]))
