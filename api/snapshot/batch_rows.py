"""Number of a snapshot's records that are read at once, so that their texts take bounded memory."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.snapshot.file_memory import FileMemory
from api.snapshot.snapshot import Snapshot
from telemetry.archive.parquet_writer import LONG_TEXT_BYTES, LONG_TEXTS_BYTES, has_dictionary
from telemetry.archive.schema import COLUMNS
from telemetry.archive.text_bytes import TEXTS, text_bytes

BATCH_BYTES = 2 * LONG_TEXTS_BYTES
"""Maximum of the texts of a batch, unless one record has more."""

REMEMBERED_BYTES, ENTRY_BYTES = 2**21, 200
"""Memory limit for what is known of files, and memory of one of them."""

_PLACES = [COLUMNS.get_field_index(name) for name in TEXTS]


class BatchRows:
    """Knows the files' footers, for any number of threads."""

    def __init__(self) -> None:
        self._known: FileMemory[str, float] = FileMemory(REMEMBERED_BYTES, lambda _: ENTRY_BYTES)

    def of(self, snapshot: Snapshot, most: int) -> int:
        """Number of records, at most `most`."""
        row_bytes = max((self._row_bytes(file.path) for file in snapshot.files), default=0.0)
        if snapshot.records.num_rows:
            row_bytes = max(row_bytes, pc.max(text_bytes(snapshot.records)).as_py())
        return max(1, min(most, int(BATCH_BYTES / max(row_bytes, 1.0))))

    def _row_bytes(self, path: str) -> float:
        found = self._known.get(path)
        if found is None:
            try:
                metadata = pq.read_metadata(path)
            except (OSError, pa.ArrowException):
                return 0.0  # the query says what is wrong with a file
            groups = (_row_bytes(metadata.row_group(number)) for number in range(metadata.num_row_groups))
            found = max(groups, default=0.0)
            self._known.put(path, found)
        return found


def _row_bytes(group: pq.RowGroupMetaData) -> float:
    """Bytes of the texts of a record at most, on average of a row group.

    A text of a dictionary may be that of all rows; but a group of long texts has few of them.
    """
    columns = [group.column(place) for place in _PLACES if place < group.num_columns]
    size: float = sum(column.total_uncompressed_size for column in columns)
    rows: int = max(group.num_rows, 1)
    if not any(map(has_dictionary, columns)):
        return size / rows
    return min(size, max(LONG_TEXTS_BYTES / rows, LONG_TEXT_BYTES, size / rows))
