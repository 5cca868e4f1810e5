"""Interface of an output format."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import duckdb

BATCH_ROWS = 8_192
"""Maximum rows of a batch that DuckDB returns; limits memory."""


class Write(Protocol):
    """Function that writes records in a format."""

    def __call__(
        self, connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS
    ) -> int:
        """Write the records that the SQL `records` selects, in its order, to a file descriptor.

        `records` has the archive's columns. DuckDB returns batches of `batch_rows` rows. Returns the number of records.
        The mark that the file is complete is written last.
        """
        ...


class Format(NamedTuple):
    """An output format: its media types (the preferred one first), the suffix of file names, and the writer."""

    media_types: tuple[str, ...]
    suffix: str
    write: Write
    parameters: str = ""
    """Parameters in `Content-Type` after the media type."""
    write_tracks: Callable[[float], Write] | None = None
    """Only for formats of tracks, which need the records ordered by device. Takes a maximum gap in seconds. Returns
    a writer that begins a new segment after each longer gap between two records of a device."""

    @property
    def content_type(self) -> str:
        return self.media_types[0] + self.parameters

    @property
    def has_tracks(self) -> bool:
        """True for formats of tracks, which need the records ordered by device."""
        return self.write_tracks is not None

    def with_gap(self, max_gap_s: float) -> Format:
        """The format with this maximum gap within a segment. Formats without tracks are unchanged."""
        return self if self.write_tracks is None else self._replace(write=self.write_tracks(max_gap_s))
