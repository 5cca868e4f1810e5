"""What a format is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import duckdb

BATCH_ROWS = 8_192
"""Maximum of rows at once on their way out of DuckDB: about 3 MB of JSON."""


class Write(Protocol):
    """Writes records as a format has them."""

    def __call__(
        self, connection: duckdb.DuckDBPyConnection, records: str, file: int, batch_rows: int = BATCH_ROWS
    ) -> int:
        """Write what the SQL `records` selects, which has the archive's columns, to a file descriptor in its order.

        `batch_rows` rows leave DuckDB at once. Returns how many records there were. What says that a file is whole is
        written last.
        """
        ...


class Format(NamedTuple):
    """One way to write records: its media types, the usual one first, the ending of a file's name, what writes it."""

    media_types: tuple[str, ...]
    suffix: str
    write: Write
    parameters: str = ""
    """What `Content-Type` says behind the media type."""
    write_tracks: Callable[[float], Write] | None = None
    """Of a format of tracks, which needs the records device by device: what writes them with a new segment wherever
    more than so many seconds lie between two records of a device."""

    @property
    def content_type(self) -> str:
        return self.media_types[0] + self.parameters

    @property
    def has_tracks(self) -> bool:
        """Whether it needs the records device by device."""
        return self.write_tracks is not None

    def with_gap(self, max_gap_s: float) -> Format:
        """The same format with other segments, if it has tracks."""
        return self if self.write_tracks is None else self._replace(write=self.write_tracks(max_gap_s))
