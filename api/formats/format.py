"""Interface of an output format."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import duckdb

from api.positions.plausibility import Limits
from api.tracks.trip_detection import Rules

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


class Segments(NamedTuple):
    """Limits of the segments of a track: a new segment begins after a longer gap between two records, and at a jump."""

    max_gap_s: float = Rules().max_gap_s
    """The default is the gap that also ends trips and stops."""
    jumps: Limits = Limits()


class Format(NamedTuple):
    """An output format: its media types (the preferred one first), the suffix of file names, and the writer."""

    media_types: tuple[str, ...]
    suffix: str
    write: Write
    parameters: str = ""
    """Parameters in `Content-Type` after the media type."""
    write_tracks: Callable[[Segments], Write] | None = None
    """Only for formats of tracks, which need the records ordered by device: returns a writer."""
    is_map: bool = False
    """True for formats that are drawn on maps, by default without implausible positions."""

    @property
    def content_type(self) -> str:
        return self.media_types[0] + self.parameters

    @property
    def has_tracks(self) -> bool:
        """True for formats of tracks, which need the records ordered by device."""
        return self.write_tracks is not None

    def with_segments(self, segments: Segments) -> Format:
        """The format with these limits of a segment. Formats without tracks are unchanged."""
        return self if self.write_tracks is None else self._replace(write=self.write_tracks(segments))
