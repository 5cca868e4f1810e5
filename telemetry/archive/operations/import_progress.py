"""Progress of imports and ids of their records, in transactions of the table (table.py has their names)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deltalake import DeltaTable, Transaction

from telemetry.archive.table import IMPORTED, Archive, import_kind

UNDONE_ROWS = 2**61
"""Rows in the progress of an undone import: more than any source has, so that the import cannot continue."""


class Progress(NamedTuple):
    """Progress of an import in one shard: the number of processed rows, valid or not, and whether these are all.

    For an undone import: `UNDONE_ROWS`, and whether all of its records are deleted.
    """

    rows: int = 0
    is_whole: bool = False

    @property
    def is_undone(self) -> bool:
        """True if an undo of the import has begun."""
        return self.rows >= UNDONE_ROWS

    @property
    def version(self) -> int:
        """The version of its transaction: it increases, also when the last row turns out to be the last."""
        return 2 * self.rows + self.is_whole


class Imported(NamedTuple):
    """An import's part of a commit: its name, its progress, the ids of the records, and whether some of them have
    another transport than `import`.
    """

    name: str
    progress: Progress
    ids: range
    has_other_transports: bool = False


def progress(table: DeltaTable | None, name: str, shard: int) -> Progress | None:
    """Progress of the import in a shard; None if it has not begun there."""
    version = table.transaction_version(_import_id(name, shard)) if table is not None else None
    return None if version is None else Progress(version // 2, version % 2 == 1)


def imported_ids(table: DeltaTable, name: str, shard: int, shards: int) -> list[range] | None:
    """Ids of an import's records in a shard; None if a release imported them that did not record ids."""
    batches = _id_batches(table, name, shard)
    if batches is None:
        return None if progress(table, name, shard) is not None else []
    key = f"{_import_id(name, shard)}-batch"
    bounds = [
        [table.transaction_version(f"{key}-{n}-{end}") or 0 for end in ("first", "after")] for n in range(batches)
    ]
    return [range(first, after, shards) for first, after in bounds]


def imported_otherwise(table: DeltaTable | None, shard: int, shards: int, known: Sequence[range] = ()) -> list[range]:
    """Ids of a shard's imported records whose files named another transport than `import`; without imports by releases
    that did not record them.

    A range takes about a millisecond to read. Ranges `known` from an older version are not read again, except the last,
    which may have grown.
    """
    if table is None:
        return []
    key, ranges = _otherwise_id(shard), list(known[:-1])
    for n in range(len(ranges), table.transaction_version(key) or 0):
        first, after = (table.transaction_version(f"{key}-{n}-{end}") or 0 for end in ("first", "after"))
        ranges.append(range(first, after, shards))
    return ranges


def imported_files(archive: Archive, table: DeltaTable, commit: str) -> list[str]:
    """Absolute paths of the files of an import's commit that still exist."""
    kind = import_kind(int(commit) % 2**32)
    return [path for path in archive.files(table) if Path(path).name.startswith(f"{kind}-")]


# Transactions ----------------------------------------------------------------------------------------


def batch_transactions(table: DeltaTable, shard: int, imported: Imported) -> list[Transaction]:
    """Transactions that record a batch of an import."""
    transactions = [Transaction(_import_id(imported.name, shard), imported.progress.version)]
    transactions += _noting_ids(table, imported.name, shard, imported.ids)
    if imported.has_other_transports:
        transactions += _noting_otherwise(table, shard, imported.ids)
    return transactions


def progress_transactions(table: DeltaTable, name: str, shard: int, reached: Progress) -> list[Transaction]:
    """Transactions that record progress without records."""
    return [Transaction(_import_id(name, shard), reached.version), *_noting_ids(table, name, shard)]


def _noting_ids(table: DeltaTable, name: str, shard: int, ids: range | None = None) -> list[Transaction]:
    """Transactions that record the ids of a batch; none for an import begun by a release without them."""
    batches = _id_batches(table, name, shard)
    if batches is None and progress(table, name, shard) is not None:
        return []
    key, number = f"{_import_id(name, shard)}-batch", batches or 0
    if ids is None:
        return [Transaction(f"{key}es", 0)] if batches is None else []
    first, after = Transaction(f"{key}-{number}-first", ids.start), Transaction(f"{key}-{number}-after", ids.stop)
    return [Transaction(f"{key}es", number + 1), first, after]


def _noting_otherwise(table: DeltaTable, shard: int, ids: range) -> list[Transaction]:
    """Transactions that record these ids for `imported_otherwise`; the last range is extended if they follow it."""
    key = _otherwise_id(shard)
    ranges = table.transaction_version(key) or 0
    last_after = f"{key}-{ranges - 1}-after"
    if ranges and table.transaction_version(last_after) == ids.start:
        return [Transaction(last_after, ids.stop)]
    first, after = Transaction(f"{key}-{ranges}-first", ids.start), Transaction(f"{key}-{ranges}-after", ids.stop)
    return [Transaction(key, ranges + 1), first, after]


def _id_batches(table: DeltaTable, name: str, shard: int) -> int | None:
    """Number of batches with recorded ids; None if there are no records of ids."""
    return table.transaction_version(f"{_import_id(name, shard)}-batches")


def _import_id(name: str, shard: int) -> str:
    """Name of the transaction with an import's progress in a shard."""
    return f"{IMPORTED}-{name}-{shard}"


def _otherwise_id(shard: int) -> str:
    """Name of the transaction with the number of a shard's ranges for `imported_otherwise`."""
    return f"{IMPORTED}-otherwise-{shard}"
