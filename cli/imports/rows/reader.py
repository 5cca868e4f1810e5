"""What a reader of files gives, and what it is told: rows in pieces, some of them refused.

A reader is a function of an open source and a `Judge`. It reads a file from its beginning to its end and yields
pieces; the same file and options always give the same rows in the same order, which is what lets an import that was
cut off go on by their number.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

from cli.imports.rows.row_parser import Judge
from cli.imports.rows.source import Source
from telemetry.model.record import Sent

PIECE_ROWS = 1_000
"""Rows of a piece, or fewer."""


class Refused(NamedTuple):
    """A row that can't be taken: its place in its piece, where it stands in the file, why, and what it says."""

    place: int
    where: str
    reason: str
    row: object


class Piece(NamedTuple):
    """Rows that follow one another: the good ones as records, the others with their reasons; both in order."""

    rows: int
    sent: list[Sent]
    refused: list[Refused]

    def behind(self, rows: int) -> Piece:
        """What is left behind its first `rows`."""
        if rows <= 0:
            return self
        bad = sum(one.place < rows for one in self.refused)
        left = [one._replace(place=one.place - rows) for one in self.refused[bad:]]
        return Piece(max(self.rows - rows, 0), self.sent[min(rows, self.rows) - bad :], left)


Pieces = Generator[Piece, None, None]
Reader = Callable[[Source, Judge], Pieces]


class Pile:
    """Makes pieces of rows as they come."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._rows = 0
        self._sent: list[Sent] = []
        self._refused: list[Refused] = []

    def add(self, where: str, row: dict[str, object], is_own: bool = False) -> None:
        """Judge a row."""
        found = self._judge.look(row, is_own)
        if isinstance(found, str):
            self._refused.append(Refused(self._rows, where, found, row))
        else:
            self._sent.append(found)
        self._rows += 1

    def refuse(self, where: str, reason: str, row: object) -> None:
        """Note a row that can't be read at all."""
        self._refused.append(Refused(self._rows, where, reason, row))
        self._rows += 1

    def full(self) -> Pieces:
        """The piece, if it has all the rows that one may have."""
        if self._rows >= PIECE_ROWS:
            yield from self.rest()

    def rest(self) -> Pieces:
        """The piece, if it has any row."""
        if self._rows:
            piece = Piece(self._rows, self._sent, self._refused)
            self._rows, self._sent, self._refused = 0, [], []
            yield piece
