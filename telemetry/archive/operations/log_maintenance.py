"""Maintenance of the table's log: checkpoints, deletion of older entries, and repair after a power cut."""

from __future__ import annotations

import logging

from deltalake import DeltaTable

from telemetry.archive import commit_log
from telemetry.archive.log_retention import holds_entries
from telemetry.archive.table import CHECKPOINT_COMMITS, READ_ERRORS, Archive, in_one_line

log = logging.getLogger(__name__)

FEWEST_COMMITS = 20
"""Minimum number of commits between checkpoints. The interval increases with the size of the previous checkpoint."""

COMMIT_BYTES = 4_096
"""Size of the previous checkpoint per commit, from which the interval is computed. An entry takes about 1,000 bytes, so
checkpoints take at most four times its space. Programs that open the table read all entries since the checkpoint."""

LOG_KEPT_S = 86_400
"""Retention of the log, as in the table's properties."""


def shorten(archive: Archive, table: DeltaTable) -> None:
    """Make a checkpoint if it is due, and delete the entries that it replaces once it is on disk."""
    before = commit_log.newest_checkpoint(archive.log_folder)
    enough = max(FEWEST_COMMITS, commit_log.checkpoint_bytes(archive.log_folder, before) // COMMIT_BYTES)
    if table.version() + 1 - max(before, 0) >= min(enough, CHECKPOINT_COMMITS):
        checkpoint(archive)


def forget_past(archive: Archive, now_s: float) -> bool:
    """Shorten the log if its oldest entry has twice the age of its retention, whatever the number of commits since.

    This also deletes statistics of removed files, like their first and last device. Returns True if it did.
    """
    table = archive.open_existing()
    oldest = min(commit_log.entries(archive.log_folder), default=None)
    age_s = None if oldest is None else commit_log.entry_age_s(archive.log_folder, oldest, now_s)
    if table is None or age_s is None or age_s < 2 * LOG_KEPT_S or holds_entries(archive.log_folder, archive.held()):
        return False
    checkpoint(archive)
    return True


def checkpoint(archive: Archive) -> None:
    """Make a checkpoint, and delete the entries that it replaces unless a forward still needs them.

    Uses a separate handle: those returned to callers must stay at their version, or guard 3 would not work.
    """
    try:
        table = DeltaTable(str(archive.root))
        table.create_checkpoint()
        archive.make_last()
        if not holds_entries(archive.log_folder, archive.held()):
            table.cleanup_metadata()
    except READ_ERRORS as error:
        log.warning("cannot make a checkpoint, so the archive's log stays long: %s", in_one_line(error))


def mend(archive: Archive) -> None:
    """Remove commits torn by a power cut, which no program had relied on. The table may be in use."""
    try:
        torn = commit_log.mend(archive.log_folder)
    except FileNotFoundError:
        return  # no table yet
    except OSError as error:
        log.error("cannot check the archive's log: %s", error)  # opening the table reports it, too
        return
    for name in torn:
        log.error("a power cut damaged the archive's log; it is repaired, and the damaged file is %s", name)
