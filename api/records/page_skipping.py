"""A Parquet file without the pages before a row: Arrow, which reads a column from its first page on, decodes half.

A column's values lie in pages, each behind a header that says how long it is and how many rows it has. Arrow's reader
can't be told to begin at one of them. So it is given a file in which the others are not there: whoever reads a column's
first page finds the wanted one in its place, and all that follows moves up. A dictionary, which comes before, stays.

A header is a Thrift struct in the compact protocol (apache/parquet-format, parquet.thrift: PageHeader). A column whose
headers are not as expected is left as it is, and decoded from its first page on.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

HEADER_BYTES = 2**12
"""What is read to find a header; one has some 50 bytes, and two values of a text besides."""

BUFFER_BYTES = 2**16
"""What Arrow reads of a column at once."""

_DATA_PAGE, FIELD, VALUES = b"\x15\x00", 0x15, 0x2C
"""A header's first field, its page's type, with that of pages of values; how two numbers begin that follow, and how the
header of a page of values, whose first number they are."""

_END, _TRUE, _FALSE, _BINARY, _STRUCT = 0, 1, 2, 8, 12
_NUMBERS = (4, 5, 6)
"""Kinds of fields."""


class NotRead(Exception):
    """Bytes that are no header of a page with values, or more of them than were looked at."""


class _Gap(NamedTuple):
    """From `at` on a column's bytes come from `skipped` bytes further on, up to `end`."""

    at: int
    skipped: int
    end: int


class WantedPages(io.RawIOBase):
    """A file as Arrow shall see it, for one thread. `file` stays the caller's."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file
        self._gaps: list[_Gap] = []
        self._position = 0
        self._size = file.size()

    def begin(self, chunk: pq.ColumnChunkMetaData, row: int) -> int:
        """Leave out the pages of a column chunk before the one with this row. Returns the first row that is left.

        Chunks are named in the order of the file.
        """
        at, first = chunk.data_page_offset, 0
        end = (chunk.dictionary_page_offset or at) + chunk.total_compressed_size
        try:
            while True:
                size, rows = _page(self._file.read_at(min(HEADER_BYTES, end - at), at))
                if first + rows > row:
                    break
                at, first = at + size, first + rows
        except NotRead:
            return 0
        if first:
            self._gaps.append(_Gap(chunk.data_page_offset, at - chunk.data_page_offset, end))
        return first

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        found = self._read(self._position, size)
        self._position += len(found)
        return found

    def _read(self, at: int, size: int) -> bytes:
        number = bisect_right(self._gaps, at, key=lambda gap: gap.at)
        if number < len(self._gaps) and at + size > self._gaps[number].at:  # up to a gap, and on behind it
            before = self._gaps[number].at - at
            return bytes(self._file.read_at(before, at)) + self._read(at + before, size - before)
        gap = self._gaps[number - 1] if number else _Gap(0, 0, 0)
        if at >= gap.end:
            return self._file.read_at(size, at)  # type: ignore[no-any-return]
        at += gap.skipped
        return self._file.read_at(max(min(size, gap.end - at), 0), at)  # type: ignore[no-any-return]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """As of a file."""
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _page(data: bytes) -> tuple[int, int]:
    """Bytes of a page, its header among them, and its rows: as many as values, for none is nested.

    A device's day takes 25 of them, each 5 µs.
    """
    try:
        if not data.startswith(_DATA_PAGE):
            raise NotRead
        _, at = number(data, len(_DATA_PAGE), FIELD)
        size, at = number(data, at, FIELD)
        if data[at] != VALUES:
            raise NotRead
        rows, at = number(data, at + 1, FIELD)
        return behind(data, at, depth=2) + size, rows
    except IndexError:
        raise NotRead from None


def number(data: bytes, at: int, head: int) -> tuple[int, int]:
    """A number that isn't negative, of a field that must begin so, and where it ends."""
    if data[at] != head:
        raise NotRead
    value, shift = 0, -1  # the lowest bit is the sign's
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift if shift >= 0 else (byte & 127) >> 1
        shift += 7
        if byte < 128:
            return value, at + 1


def behind(data: bytes, at: int, depth: int) -> int:
    """Where the outermost of the structs ends that `at` is in."""
    while depth:
        head = data[at]
        kind = head & 15
        at += 1
        if head == _END:
            depth -= 1
        elif head < 16:
            raise NotRead  # an id that is far from the one before: a header has none
        elif kind == _STRUCT:
            depth += 1
        elif kind in _NUMBERS:
            while data[at] > 127:
                at += 1
            at += 1
        elif kind == _BINARY:
            size = data[at] & 127
            if data[at] > 127:
                at += 1
                size |= data[at] << 7  # a third byte would make it longer than what is looked at
            at += 1 + size
        elif kind not in (_TRUE, _FALSE):
            raise NotRead
    return at
