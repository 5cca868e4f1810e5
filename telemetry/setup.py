"""A hot store beside an archive: setting it up, and whether the two belong together.

An empty Redis beside an archive takes up where the archive ends: its ids start above the archive's
greatest, and its `committed` is the archive's commit number, so saving goes on.
"""

from __future__ import annotations

import secrets

import redis

from telemetry import hot
from telemetry.archive import Archive
from telemetry.hot import Shard

NO_ARCHIVE = "there is no archive, though Redis has saved records to one: it was deleted, moved or not mounted"


def set_up(client: redis.Redis, archive: Archive, shards: int) -> list[Shard]:
    """Make the store of every shard that has none. Raises `ConfigError` if this release can't use it.

    Before that the archive's log is mended, should a power cut have torn it.
    """
    archive.mend()
    missing = [number for number in range(shards) if hot.shape(client, number) is None]
    if missing:
        table = archive.open()
        greatest = archive.greatest_id(table)
        for number in missing:
            next_id = greatest // shards + 1
            hot.setup(client, number, secrets.token_hex(16), shards, archive.committed(table, number), next_id)
    return hot.attach(client, shards)


def apart(shard: Shard, archive: Archive) -> str | None:
    """Why a shard and the archive don't belong together, None if they do.

    The shard is looked at before and after, since a save may end meanwhile.
    """
    before = shard.state()
    table = archive.open_existing()
    archived = archive.committed(table, shard.shard)
    if archived in before.commits | shard.state().commits:
        return None
    if table is None:
        return NO_ARCHIVE
    return (
        f"the archive's last save is {archived}, Redis knows {before.committed}: "
        "one of them was restored, emptied or swapped"
    )
