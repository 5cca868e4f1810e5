"""Set up a hot store beside an archive: the one thing that needs both before records can come.

An empty Redis beside an archive takes up where the archive ends: its ids start above the archive's
greatest, and its `committed` is the archive's commit number, so saving goes on.
"""

from __future__ import annotations

import secrets

import redis

from telemetry import hot
from telemetry.archive import Archive
from telemetry.hot import Shard


def set_up(client: redis.Redis, archive: Archive, shards: int) -> list[Shard]:
    """Make the store of every shard that has none. Raises `ConfigError` if this release can't use it."""
    table = archive.open()
    missing = [number for number in range(shards) if hot.shape(client, number) is None]
    if missing:
        greatest = archive.greatest_id(table)
        for number in missing:
            next_id = greatest // shards + 1
            hot.setup(client, number, secrets.token_hex(16), shards, archive.committed(table, number), next_id)
    return hot.attach(client, shards)
