"""Sets up a hot store for an archive, and checks that the two belong together.

An empty Redis continues where the archive ends: its ids start above the archive's greatest id, and its `committed` is
the archive's commit number, so saving goes on.
"""

from __future__ import annotations

import logging
import secrets

import redis

from telemetry.archive.operations import layout_upgrade, log_maintenance
from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.function_library import LAYOUT
from telemetry.hot_store.operations.setup import setup, upgrade
from telemetry.hot_store.shard import Shard

log = logging.getLogger(__name__)

NO_ARCHIVE = "there is no archive, but Redis has saved records to one: it was deleted, moved or not mounted"


def set_up(client: redis.Redis, archive: Archive, shards: int) -> list[Shard]:
    """Set up the store of every shard that has none. Raises `ConfigError` if this release cannot use it.

    Before that it repairs the archive's log after a power cut, and upgrades data of an older release to the current
    layout: the archive first, so that a store never has records for which the table lacks a column.
    """
    log_maintenance.mend(archive)
    _require_known(client, archive, shards)
    if added := layout_upgrade.upgrade(archive):
        log.warning("the archive is of an older release; added columns: %s", ", ".join(added))
    for number in range(shards):
        if (layout := upgrade(client, number, secrets.token_hex(16))) is not None:
            log.warning("shard %d: upgraded the store from layout %d to %d", number, layout, LAYOUT)
    missing = [number for number in range(shards) if hot.shape(client, number) is None]
    if missing:
        table = archive.open()
        greatest = archive.greatest_id(table)
        for number in missing:
            next_id = greatest // shards + 1
            setup(client, number, secrets.token_hex(16), shards, archive.committed(table, number), next_id)
    return hot.attach(client, shards)


def _require_known(client: redis.Redis, archive: Archive, shards: int) -> None:
    """Raise `LayoutError` if a newer release wrote either of them, before any change."""
    archive.open_existing()
    for number in range(shards):
        if (shape := hot.shape(client, number)) is not None:
            hot.require_known(shape)


def apart(shard: Shard, archive: Archive) -> str | None:
    """Why a shard and the archive do not belong together, None if they do.

    The shard is read before and after the archive, because a save may end meanwhile.
    """
    before = shard.state()
    table = archive.open_existing()
    archived = archive.committed(table, shard.shard)
    if archived in before.commits | shard.state().commits:
        return None
    if table is None:
        return NO_ARCHIVE
    return (
        f"the archive's last commit is {archived}, Redis has {before.committed}: "
        "one of them was restored, emptied or swapped"
    )
