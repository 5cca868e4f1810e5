"""JSON: one object a line, or one array of objects."""

from __future__ import annotations

from cli.imports.contract import PIECE_ROWS, Piece, Pieces, Pile
from cli.imports.judge import MAX_CONTAINERS, OWN, Judge
from cli.imports.source import Source
from telemetry.errors import RecordError, SenderError, SyntaxFault
from telemetry.fields import json_type
from telemetry.json_text import read as read_json
from telemetry.shapes import Shapes

MAX_SHOWN = 1_000
"""Bytes of a bad line that are shown."""


def read(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`. Blank lines count but hold nothing. Raises `SenderError` if no line has a mapped name."""
    never_seen = set(judge.naming.columns.values())
    shapes = Shapes()
    lines: list[tuple[int, bytes]] = []
    for number, content in enumerate(map(bytes.strip, source.lines()), 1):
        if content:
            lines.append((number, content))
        if len(lines) == PIECE_ROWS:
            yield _piece(lines, judge, shapes, never_seen)
            lines = []
    if lines:
        yield _piece(lines, judge, shapes, never_seen)
    if never_seen:
        raise SenderError(f"{source.name}: no line has {min(never_seen)!r}, which is mapped")


def _piece(lines: list[tuple[int, bytes]], judge: Judge, shapes: Shapes, never_seen: set[str]) -> Piece:
    if judge.is_plain and shapes.any:
        text = b"\n".join([content for _, content in lines])
        sent = shapes.json_lines(text, judge.transport, judge.source, judge.arrival)
        if sent is not None and len(sent) == len(lines) == text.count(b"}\n{") + 1:
            return Piece(len(lines), sent, [])
    pile, names = Pile(judge), dict[str, object]()
    for number, content in lines:
        value = _add(pile, number, content, judge)
        names.update(value)
        never_seen.difference_update(value)
    if not OWN.issubset(names):
        shapes.learn([names], len(lines))
    [piece] = pile.rest()
    return piece


def _add(pile: Pile, number: int, content: bytes, judge: Judge) -> dict[str, object]:
    """The object on a line, if there is one."""
    where = f"line {number}"
    try:
        value = read_json(content, MAX_CONTAINERS)
        if type(value) is not dict:
            raise RecordError(None, None, f"a record must be an object, not {json_type(value)}")
        pile.add(where, judge.rename(value), OWN.issubset(value))
        return value
    except (RecordError, SyntaxFault) as error:
        pile.refuse(where, str(error), content[:MAX_SHOWN].decode(errors="replace"))
        return {}
