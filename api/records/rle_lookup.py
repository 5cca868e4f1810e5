"""Where a device stands in a row group, by the runs of its column: 0.1 ms of CPU, where decoding all rows took 0.33.

Files are sorted by device, so the column says little more than how often each comes: a dictionary and some runs in each
page, a few hundred bytes together. They are looked through as they lie in the file, in whichever order they are
(apache/parquet-format, Encodings.md: RLE_DICTIONARY, Run Length Encoding / Bit-Packing Hybrid). A chunk that isn't as
expected is Arrow's to read (row_group_reader.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from api.records.page_skipping import FIELD, VALUES, NotRead, behind, number

MOST_BYTES = 2**17
"""Of a column chunk that are looked through, and of a page unpacked: more say that the rows are not sorted."""

_DATA_PAGE, _DICTIONARY_PAGE, _DICTIONARY = 0, 2, 0x4C
"""Kinds of pages; how the header of a dictionary begins."""

_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8
_ZSTD = pa.Codec("zstd")


def places(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData, levels: int, text: str) -> range:
    """The rows of a column chunk that hold a text, if they follow one another.

    `levels` is the column's greatest definition level: 1 where a value may be missing. Raises `NotRead`.
    """
    data = _data(file, chunk, levels)
    try:
        return _places(data, text.encode(), levels)
    except (IndexError, OSError, pa.ArrowException):
        raise NotRead from None


def texts(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData, levels: int) -> list[bytes]:
    """The texts of a column chunk's dictionary: each that its rows have, and maybe others. Raises `NotRead`."""
    data = _data(file, chunk, levels)
    try:
        dictionary = _dictionary(data)
        for _ in _data_pages(data, dictionary.end):
            pass  # none has a text that is not in the dictionary
        return list(_texts(_unpacked(data, dictionary), dictionary.values))
    except (IndexError, OSError, pa.ArrowException):
        raise NotRead from None


def _data(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData, levels: int) -> bytes:
    """The bytes of a column chunk that has a dictionary, and no value missing."""
    at, said = chunk.dictionary_page_offset, chunk.statistics
    if at is None or chunk.total_compressed_size > MOST_BYTES or chunk.compression != "ZSTD":
        raise NotRead
    if levels > 1 or said is None or not said.has_null_count or said.null_count > 0:
        raise NotRead
    try:
        return bytes(file.read_at(chunk.total_compressed_size, at))
    except (OSError, pa.ArrowException):
        raise NotRead from None


def _places(data: bytes, text: bytes, levels: int) -> range:
    dictionary = _dictionary(data)
    wanted = _place(_unpacked(data, dictionary), dictionary.values, text)
    row, found = 0, range(0)
    for page in _data_pages(data, dictionary.end):
        for value, count in _runs(_unpacked(data, page), page.values, levels) if wanted is not None else ():
            if value == wanted:
                found = _joined(found, range(row, row + count))
            row += count
    return found


def _joined(some: range, more: range) -> range:
    if some and some.stop != more.start:
        raise NotRead
    return range(some.start if some else more.start, more.stop)


class _Page(NamedTuple):
    """What a page's header says; where its bytes begin and end."""

    kind: int
    values: int
    encoding: int
    unpacked_bytes: int
    begin: int
    end: int


def _page(data: bytes, at: int) -> _Page:
    kind, at = number(data, at, FIELD)
    unpacked_bytes, at = number(data, at, FIELD)
    size, at = number(data, at, FIELD)
    if data[at] != (_DICTIONARY if kind == _DICTIONARY_PAGE else VALUES):
        raise NotRead
    values, at = number(data, at + 1, FIELD)
    encoding, at = number(data, at, FIELD)
    at = behind(data, at, depth=2)
    if unpacked_bytes > MOST_BYTES:
        raise NotRead
    return _Page(kind, values, encoding, unpacked_bytes, at, at + size)


def _dictionary(data: bytes) -> _Page:
    page = _page(data, 0)
    if page.kind != _DICTIONARY_PAGE or page.encoding not in (_PLAIN, _PLAIN_DICTIONARY):
        raise NotRead
    return page


def _data_pages(data: bytes, at: int) -> Iterator[_Page]:
    """The pages from `at` on, all of whose values are in the dictionary."""
    while at < len(data):
        page = _page(data, at)
        if page.kind != _DATA_PAGE or page.encoding not in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
            raise NotRead  # perhaps the dictionary was full, and this page has what is not in it
        yield page
        at = page.end


def _unpacked(data: bytes, page: _Page) -> bytes:
    return _ZSTD.decompress(data[page.begin : page.end], page.unpacked_bytes, asbytes=True)  # type: ignore[no-any-return]


def _place(data: bytes, count: int, text: bytes) -> int | None:
    """The place of a text in a dictionary."""
    return next((place for place, found in enumerate(_texts(data, count)) if found == text), None)


def _texts(data: bytes, count: int) -> Iterator[bytes]:
    """The texts of a dictionary: each is behind its length."""
    at = 0
    for _ in range(count):
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        if at > len(data):
            raise NotRead
        yield data[begin:at]


def _runs(data: bytes, count: int, levels: int) -> Iterator[tuple[int, int]]:
    """The values of a page, each with how often it follows itself; before them are the levels, which say that none is
    missing."""
    at = 4 + int.from_bytes(data[:4], "little") if levels else 0
    bits = data[at]
    value_bytes, at = (bits + 7) // 8, at + 1
    while count > 0:
        head, shift = data[at] & 127, 7
        while data[at] > 127:
            at += 1
            head |= (data[at] & 127) << shift
            shift += 7
        at += 1
        if head & 1:  # values side by side, in groups of eight, the last of which may be longer than the page
            packed = int.from_bytes(data[at : at + (head >> 1) * bits], "little")
            values = min((head >> 1) * 8, count)
            for _ in range(values):
                yield packed & ((1 << bits) - 1), 1
                packed >>= bits
            at, count = at + (head >> 1) * bits, count - values
        else:
            values = min(head >> 1, count)
            yield int.from_bytes(data[at : at + value_bytes], "little"), values
            at, count = at + value_bytes, count - values
        if at > len(data):
            raise NotRead
