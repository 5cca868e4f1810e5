"""Bodies of records: bytes in JSON, NDJSON or msgpack to values, one a record, with bounds on what they may cost.

A body that can't be taken apart raises `SyntaxFault`. Where it can be, but one of its records can't be read, an
`Unreadable` stands in that record's place. This file knows no socket and no clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgpack

from telemetry.codec.json_compat import json_like
from telemetry.codec.json_decoder import read as read_json
from telemetry.codec.msgpack_decoder import ARRAYS, Truncated, skip
from telemetry.codec.msgpack_decoder import read as read_msgpack
from telemetry.codec.record_parser import Arrival, read
from telemetry.codec.typed_decoder import Shapes
from telemetry.model.errors import RecordError, SyntaxFault, TooLarge
from telemetry.model.record import Sent

CONTAINERS_PER_RECORD = 8
"""Objects and arrays that a body may hold for each record that it may hold."""


class Unreadable(RecordError):
    """In a record's place are bytes that can't be read; `value` is their beginning, if it is text."""


class Item(NamedTuple):
    """What stands in one record's place: a value, or why it is none; and its line, from 1, where there are lines."""

    value: object
    line: int | None = None


class Form(NamedTuple):
    """One way to write records. `read` takes a body and the most containers that it may hold; `quick` a body whose
    records are of a known shape, and returns None for any other."""

    name: str
    read: Callable[[bytes, int], Iterator[Item]]
    quick: Callable[[bytes, Arrival], list[Sent] | None]
    shapes: Shapes


MAX_SHOWN_BYTES = 100
"""Of a line that is not JSON, so much is shown to its sender."""

# JSON ------------------------------------------------------------------------------------------------


def _json(body: bytes, max_containers: int) -> Iterator[Item]:
    """One object, or an array of them."""
    value = read_json(body, max_containers)
    return map(Item, value if isinstance(value, list) else [value])


_LINE = re.compile(rb"[^ \t\r\n][^\n]*")  # without the blank before it, of which blank lines are all


def _ndjson(body: bytes, max_containers: int) -> Iterator[Item]:
    """One value a line. Only one is held at a time: the bound on containers is that of one line."""
    number, counted = 1, 0
    for found in _LINE.finditer(body):
        number += body.count(b"\n", counted, found.start())
        counted = found.start()
        yield Item(_line(found[0], max_containers), number)


def _line(text: bytes, max_containers: int) -> object:
    try:
        return read_json(text, max_containers)
    except SyntaxFault as fault:
        return Unreadable(None, text[:MAX_SHOWN_BYTES].decode(errors="replace"), str(fault))


# msgpack ---------------------------------------------------------------------------------------------


def _msgpack(body: bytes, max_containers: int) -> Iterator[Item]:
    """Maps, or arrays of them, after one another. Only one record is held at a time."""
    unpacker = msgpack.Unpacker(read_size=len(body) + 1, max_buffer_size=len(body) + 1)
    unpacker.feed(body)
    start = 0
    while start < len(body):
        count = _array_header(unpacker) if body[start] in ARRAYS else 1
        for _ in range(count):
            start = unpacker.tell()
            _skip(unpacker)
            yield Item(_value(body[start : unpacker.tell()], start, max_containers))
        start = unpacker.tell()


def _array_header(unpacker: msgpack.Unpacker) -> int:
    try:
        return unpacker.read_array_header()  # type: ignore[no-any-return]
    except (msgpack.OutOfData, ValueError):  # ValueError: it announces more items than the body has bytes
        raise Truncated("cut short") from None


def _skip(unpacker: msgpack.Unpacker) -> None:
    try:
        skip(unpacker)
    except Truncated:
        raise
    except SyntaxFault as fault:
        raise SyntaxFault(f"{fault} at byte {unpacker.tell()}", unpacker.tell()) from None


def _value(data: bytes, start: int, max_containers: int) -> object:
    try:
        return json_like(read_msgpack(data, max_containers))
    except RecordError as error:
        return error
    except SyntaxFault as fault:
        return Unreadable(None, None, f"{fault}, in the record at byte {start}")


# All -------------------------------------------------------------------------------------------------


def _quick_json(body: bytes, arrival: Arrival) -> list[Sent] | None:
    return JSON.shapes.json(body, "http", "json", arrival)


def _quick_ndjson(body: bytes, arrival: Arrival) -> list[Sent] | None:
    """Only where each line is a record: what reads it quickly would take records that share a line, or span some."""
    records = NDJSON.shapes.json_lines(body, "http", "json", arrival)
    if records is None:
        return None
    ends = len(records) - 1
    are_lines = body.count(b"}\n{") == ends and body.count(b"\n") == ends + body.endswith(b"\n")
    return records if are_lines else None


def _quick_msgpack(body: bytes, arrival: Arrival) -> list[Sent] | None:
    return MSGPACK.shapes.msgpack(body, "http", "json", arrival)


JSON = Form("JSON", _json, _quick_json, Shapes())
NDJSON = Form("NDJSON", _ndjson, _quick_ndjson, Shapes())
MSGPACK = Form("msgpack", _msgpack, _quick_msgpack, Shapes())

FORMS: dict[str, Form] = {
    **dict.fromkeys(("", "application/json", "text/json", "text/plain", "application/octet-stream"), JSON),
    "application/x-www-form-urlencoded": JSON,  # what `curl -d` says of anything
    **dict.fromkeys(("application/x-ndjson", "application/ndjson"), NDJSON),
    **dict.fromkeys(("application/x-jsonlines", "application/jsonlines"), NDJSON),
    **dict.fromkeys(("application/x-jsonl", "application/jsonl"), NDJSON),
    **dict.fromkeys(("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"), MSGPACK),
}
"""The forms that are taken, by what a body may call itself."""


def form_of(content_type: str) -> Form | None:
    """The form of a Content-Type; None if it is not taken."""
    kind = content_type.partition(";")[0].strip().lower()
    return JSON if kind.endswith("+json") else FORMS.get(kind)


class Refused(NamedTuple):
    """A record that can't be taken, and where it stands."""

    place: int
    line: int | None
    error: RecordError


class Batch(NamedTuple):
    """The records of a body. `refused` are all places, `errors` the first of them with their reasons."""

    records: list[Sent]
    refused: list[int]
    errors: list[Refused]


def read_batch(form: Form, body: bytes, max_records: int, arrival: Arrival, max_errors: int) -> Batch:
    """The records of a body. With `max_errors` 0 the first that can't be taken ends it; else it is left out.

    Raises `SyntaxFault` if the body can't be taken apart, `TooLarge` if it holds too many records.
    """
    records = form.quick(body, arrival)
    if records is not None and len(records) <= max_records:
        return Batch(records, [], [])
    batch = Batch([], [], [])
    names: dict[str, object] = {}
    for index, (value, line) in enumerate(form.read(body, CONTAINERS_PER_RECORD * max_records)):
        if index == max_records:
            raise TooLarge(f"a request may hold {max_records} records")
        try:
            if isinstance(value, RecordError):
                raise value
            batch.records.append(read(value, "http", "json", arrival))
            names.update(value)  # type: ignore[call-overload]  # `read` takes nothing but a map
        except RecordError as error:
            batch.refused.append(index)
            if len(batch.errors) < max(max_errors, 1):
                batch.errors.append(Refused(index, line, error))
            if not max_errors:
                break
    form.shapes.learn([names], len(batch.records))
    return batch
