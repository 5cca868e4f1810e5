"""JSON: one object a line, or one array of objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cli.imports.rows.reader import PIECE_ROWS, Piece, Pieces, Pile
from cli.imports.rows.row_parser import MAX_CONTAINERS, OWN, Judge
from cli.imports.rows.source import MAX_LINE_BYTES, Source
from telemetry.codec.json_decoder import read as read_json
from telemetry.codec.record_parser import json_type
from telemetry.codec.typed_decoder import Shapes
from telemetry.model.errors import RecordError, SenderError, SyntaxFault

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)

MAX_SHOWN = 1_000
"""Bytes of a bad line that are shown."""


def read_lines(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`: an object a line. Blank lines count but hold nothing.

    Raises `SenderError` if no line has a mapped name.
    """
    numbered = enumerate(map(bytes.strip, source.lines()), 1)
    yield from _read(((number, content) for number, content in numbered if content), "line", source, judge)


def read_array(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`: one array of objects, of which one is in memory at a time. Raises as `read_lines`."""
    yield from _read(enumerate(items(source), 1), "item", source, judge)


def _read(found: Iterable[tuple[int, bytes]], what: str, source: Source, judge: Judge) -> Pieces:
    never_seen = set(judge.naming.columns.values())
    shapes = Shapes()
    texts: list[tuple[int, bytes]] = []
    for one in found:
        texts.append(one)
        if len(texts) == PIECE_ROWS:
            yield _piece(texts, what, judge, shapes, never_seen)
            texts = []
    if texts:
        yield _piece(texts, what, judge, shapes, never_seen)
    if never_seen:
        raise SenderError(f"{source.name}: no {what} has {min(never_seen)!r}, which is mapped")


def items(source: Source) -> Iterator[bytes]:
    """The text of each item of the array that a file is. Raises `SenderError` where it is none, or not whole."""
    data, start, at, depth, is_over = b"", 0, 0, 0, False
    for block in source.blocks():
        data, at, start = data[start:] + block, at - start, 0
        for found in _TOKEN.finditer(data, at):
            token = found[0]
            if token == b'"':
                break  # a text that goes on in the next block
            at = found.end()
            if is_over or (depth == 0 and token != b"["):
                raise SenderError(f"cannot read {source.name}: it is not one JSON array")
            if depth == 1 and token in b",]" and (text := data[start : found.start()].strip()):
                yield text
            depth += 1 if token in b"[{" else -1 if token in b"]}" else 0
            is_over = depth == 0
            if depth <= 1:
                start = at if depth == 0 or token in b"[," else start
        if len(data) - start > MAX_LINE_BYTES + len(block):
            raise SenderError(f"cannot read {source.name} on: an item has more than {MAX_LINE_BYTES} bytes")
    if not is_over or data[start:].strip():
        raise SenderError(f"cannot read {source.name}: its JSON array does not end, or something follows it")


def _piece(lines: list[tuple[int, bytes]], what: str, judge: Judge, shapes: Shapes, never_seen: set[str]) -> Piece:
    if judge.is_plain and shapes.any and judge.meanings.fields:
        text = b"\n".join([content for _, content in lines])
        sent = shapes.json_lines(text, judge.transport, judge.source, judge.arrival)
        if sent is not None and len(sent) == len(lines) == text.count(b"}\n{") + 1:
            return Piece(len(lines), sent, [])
    pile, names = Pile(judge), dict[str, object]()
    for number, content in lines:
        value = _add(pile, f"{what} {number}", content, judge)
        names.update(value)
        never_seen.difference_update(value)
    is_own = OWN.issubset(names)
    judge.note(names, is_own)
    if not is_own:
        shapes.learn([names], len(lines))
    [piece] = pile.rest()
    return piece


def _add(pile: Pile, where: str, content: bytes, judge: Judge) -> dict[str, object]:
    """The object in a text, if there is one."""
    try:
        value = read_json(content, MAX_CONTAINERS)
        if type(value) is not dict:
            raise RecordError(None, None, f"a record must be an object, not {json_type(value)}")
        pile.add(where, judge.rename(value), OWN.issubset(value))
        return value
    except (RecordError, SyntaxFault) as error:
        pile.refuse(where, str(error), content[:MAX_SHOWN].decode(errors="replace"))
        return {}
