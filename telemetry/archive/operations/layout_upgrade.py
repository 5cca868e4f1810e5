"""Upgrade of a table of an older release to the current layout."""

from __future__ import annotations

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from telemetry.archive.operations.commits import NO_HOOKS
from telemetry.archive.schema import LAYOUT
from telemetry.archive.table import DELTA_SCHEMA, Archive, layout_of_table, layout_property


def upgrade(archive: Archive) -> list[str]:
    """Add the columns that the table lacks, which are null in existing files, and record the layout.

    No file is changed. Synced on return. Returns the columns.
    """
    added: list[str] = []
    while (table := archive.open_existing()) is not None and layout_of_table(table, unwritten=0) < LAYOUT:
        has = {field.name for field in table.schema().fields}
        lacking = [field for field in DELTA_SCHEMA.fields if field.name not in has]
        try:
            if lacking:
                table.alter.add_columns(lacking, post_commithook_properties=NO_HOOKS)
                table = DeltaTable(str(archive.root))
            table.alter.set_table_properties(
                layout_property(), raise_if_not_exists=False, post_commithook_properties=NO_HOOKS
            )
        except CommitFailedError:  # another program upgrades it, too: check again
            continue
        added += [field.name for field in lacking]
        archive.make_last()
    return added
