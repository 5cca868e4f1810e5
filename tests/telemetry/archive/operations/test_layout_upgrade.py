"""Upgrades of a table of an older release: cut off, and by two programs at once."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable, Schema

from telemetry.archive import table as archive_module
from telemetry.archive.operations import layout_upgrade
from telemetry.archive.schema import COLUMNS
from telemetry.archive.table import Archive, layout_of_table


def older_table(archive: Archive) -> None:
    """One without the last two columns, and without the property."""
    fields = [field for field in archive_module.DELTA_SCHEMA.fields if field.name not in ("location", "attributes")]
    archive.root.mkdir(parents=True)
    DeltaTable.create(str(archive.root), Schema(fields), partition_by=["date"])


def test_an_upgrade_that_was_cut_off_is_ended(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the columns, and not yet the property."""
    older_table(archive)
    with monkeypatch.context() as patched:
        patched.setattr(archive_module, "LAYOUT_KEY", "whimbrel.other")
        assert layout_upgrade.upgrade(archive) == ["location", "attributes"]
    assert layout_upgrade.upgrade(archive) == []
    assert layout_of_table(archive.open(), unwritten=0) == 1


def test_two_that_upgrade_at_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    older_table(archive)
    other, is_first = Archive(archive.root), True
    open_existing = Archive.open_existing

    def and_then_another(self: Archive) -> DeltaTable | None:
        nonlocal is_first
        found = open_existing(self)
        if is_first:
            is_first = False
            layout_upgrade.upgrade(other)
        return found

    monkeypatch.setattr(Archive, "open_existing", and_then_another)
    layout_upgrade.upgrade(archive)
    names = [field.name for field in DeltaTable(str(archive.root)).schema().fields]
    assert sorted(names) == sorted({*COLUMNS.names, "date"})
