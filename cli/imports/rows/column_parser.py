"""The quick way from rows of the same columns to records: a column at a time, a third of the time of one row at a time.

Whatever it does not take, wrong or only unusual, makes it return None, and the rows go the plain way (row_parser.py),
which alone says what is wrong. So both give the same records; tests/cli/test_imports_quick.py holds them against each
other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import repeat

import msgspec

from cli.imports.rows.reader import PIECE_ROWS, Piece, Pieces, Pile
from cli.imports.rows.row_parser import Judge
from telemetry.codec.record_parser import (
    NAMES,
    NUMBERS,
    Arrival,
    iso_us,
    read_device_id,
    read_location,
    read_pair,
    read_timestamp,
)
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, Record, Sent

MAX_KEPT_IDS = 32_768
GREATEST = 1.7976931348623157e308
"""The greatest finite number."""

SECONDS_LENGTH = len("2026-11-24T10:25:00")

_EPOCH, _NAIVE_EPOCH = datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)

_BOUNDS = {"latitude": 90.0, "longitude": 180.0, **dict.fromkeys(NUMBERS, GREATEST)}
_PLAIN_NUMBERS = re.compile(r"[0-9.eE+\-\n]*+", re.ASCII)
_SCALARS = frozenset((str, int, float, bool, type(None)))
_NUMERIC = frozenset((int, float, type(None)))
_ERRORS = (RecordError, ValueError, TypeError, OverflowError)

_device_id = lru_cache(MAX_KEPT_IDS)(read_device_id)
_json = msgspec.json.Encoder()

Column = Sequence[object]


class Rows:
    """Rows of the same columns, as they come, to pieces. `names` are the columns', None where one is left out.

    A cell that is `blank` is no value. `where` says where a row of that number stands. Rows of an own export say
    themselves how they came; of others `came` may: transport and source.
    """

    def __init__(
        self,
        judge: Judge,
        names: Sequence[str | None],
        blank: str | None,
        where: Callable[[int], str],
        is_own: bool = False,
        came: tuple[str, str] | None = None,
    ) -> None:
        self._judge = judge
        self._names = names
        self._blank = blank
        self._where = where
        self._is_own = is_own
        self._came = came
        self._rows: list[tuple[int, Sequence[object]]] = []
        self._refused: list[tuple[int, int, str, object]] = []
        self._is_quick = not is_own and judge.is_quick([name for name in names if name is not None])

    def add(self, number: int, cells: Sequence[object]) -> None:
        """A row with a cell for each column."""
        self._rows.append((number, cells))

    def refuse(self, number: int, reason: str, row: object) -> None:
        """A row that has not."""
        self._refused.append((len(self._rows), number, reason, row))

    def full(self) -> Pieces:
        """The piece, if it has all the rows that one may have."""
        if len(self._rows) + len(self._refused) >= PIECE_ROWS:
            yield from self.rest()

    def rest(self) -> Pieces:
        """The piece, if it has any row."""
        rows, refused = self._rows, self._refused
        self._rows, self._refused = [], []
        if rows and not refused and self._is_quick:
            columns = list(zip(*[cells for _, cells in rows], strict=True))
            kept = [(name, column) for name, column in zip(self._names, columns, strict=True) if name is not None]
            sent = records(kept, self._blank, self._judge.arrival, *self._came_by())
            if sent is not None:
                yield Piece(len(rows), sent, [])
                return
        yield from self._one_by_one(rows, refused)

    def _came_by(self) -> tuple[str, str]:
        transport, source = self._came or (self._judge.transport, self._judge.source)
        return (self._judge.transport if self._judge.is_transport_named else transport), source

    def _one_by_one(
        self, rows: list[tuple[int, Sequence[object]]], refused: list[tuple[int, int, str, object]]
    ) -> Pieces:
        pile = Pile(self._judge)
        for place, (number, cells) in enumerate(rows):
            while refused and refused[0][0] <= place:
                _, bad, reason, row = refused.pop(0)
                pile.refuse(self._where(bad), reason, row)
            self._add(pile, number, cells)
        for _, bad, reason, row in refused:
            pile.refuse(self._where(bad), reason, row)
        yield from pile.rest()

    def _add(self, pile: Pile, number: int, cells: Sequence[object]) -> None:
        row = {
            name: cell
            for name, cell in zip(self._names, cells, strict=True)
            if name is not None and cell is not None and cell != self._blank
        }
        if self._came is not None:
            transport, source = self._came
            pile.add(self._where(number), {"transport": transport, "source": source, **row}, is_own=True)
        else:
            pile.add(self._where(number), row, self._is_own)


def records(
    columns: Sequence[tuple[str, Column]], blank: str | None, arrival: Arrival, transport: str, source: str
) -> list[Sent] | None:
    """The records of some columns of the same length, at most one for a field; None if they must go the plain way."""
    fields = {NAMES[name]: column for name, column in columns if name in NAMES}
    others = [(name, column) for name, column in columns if name not in NAMES]
    rows = len(columns[0][1])
    try:
        devices = list(map(_device_id, fields["device_id"]))
        times = _times(fields["timestamp"], arrival)
        numbers = {name: _numbers(fields.get(name), bound, blank, rows) for name, bound in _BOUNDS.items()}
        places = _places(fields.get("location"), numbers, blank, rows, arrival)
        attributes = _attributes(others, blank, rows, arrival)
    except _ERRORS:
        return None
    found = map(Record, times, repeat(transport), repeat(source), *numbers.values(), places, attributes)
    return list(map(Sent, devices, found))


def _times(column: Column, arrival: Arrival) -> list[int]:
    is_text = all(type(at) is str for at in column)
    found = [_moment_us(at) if is_text else read_timestamp(at, arrival) for at in column]  # type: ignore[arg-type]
    if not (min(found) >= EARLIEST_US and max(found) <= arrival.latest_us):
        raise ValueError("a time out of bounds")
    return found


def _moment_us(text: str) -> int:
    """As `iso_us`, in less time for the forms of databases: 2026-11-24 10:25:00+00, or without a zone."""
    if len(text) < SECONDS_LENGTH or text[10] not in "T ":
        return iso_us(text)
    moment = datetime.fromisoformat(text)
    return (moment - (_NAIVE_EPOCH if moment.tzinfo is None else _EPOCH)) // _MICROSECOND


def _numbers(column: Column | None, bound: float, blank: str | None, rows: int) -> list[float | None]:
    if column is None:
        return [None] * rows
    kinds = set(map(type, column))
    if str in kinds:
        said = [cell for cell in column if cell is not None and cell != blank]
        if not _PLAIN_NUMBERS.fullmatch("\n".join(said)):  # type: ignore[arg-type]  # another raises
            raise ValueError("no plain numbers")
    elif not kinds <= _NUMERIC:
        raise ValueError("no numbers")
    found = [None if cell is None or cell == blank else float(cell) for cell in column]  # type: ignore[arg-type]
    known = [number for number in found if number is not None]
    if known and not (-bound <= min(known) and max(known) <= bound):
        raise ValueError("a number out of bounds")
    return found


def _places(
    column: Column | None, numbers: dict[str, list[float | None]], blank: str | None, rows: int, arrival: Arrival
) -> list[str | None]:
    """Locations; those that are a pair of coordinates fill these where there are none."""
    if column is None:
        return [None] * rows
    latitudes, longitudes = numbers["latitude"], numbers["longitude"]
    found = [read_location(None if cell == blank else cell, arrival.max_record_bytes) for cell in column]
    for row, location in enumerate(found):
        if location is not None and latitudes[row] is None and longitudes[row] is None:
            latitudes[row], longitudes[row] = read_pair(location)
    return found


def _attributes(
    columns: Sequence[tuple[str, Column]], blank: str | None, rows: int, arrival: Arrival
) -> list[str | None]:
    """All else as JSON, of which an empty object is none."""
    if not columns:
        return [None] * rows
    if not all(_SCALARS.issuperset(map(type, column)) for _, column in columns):
        raise ValueError("values of other kinds")
    names = [name for name, _ in columns]
    kept = [
        {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None and cell != blank}
        for cells in zip(*[column for _, column in columns], strict=True)
    ]
    encoded = _json.encode_lines(kept)
    if len(encoded) > arrival.max_record_bytes:
        raise ValueError("perhaps too long")
    return [None if text == "{}" else text for text in encoded.decode().split("\n")[:rows]]
