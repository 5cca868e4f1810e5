"""InfluxDB's line protocol, so that Telegraf's `influxdb` and `influxdb_v2` outputs write here unchanged.

    measurement[,tag=value…] field=value[,field=value…] [timestamp]

Tags and fields are one: where a name is a record's own (`lat`, `speed`, `heading` and so on) it fills that field, all
else is an attribute. The device is what the chosen tag says. A point is an instant: each line is a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from collector.framing.frame_decoder import Options
from collector.http_protocols.protocol import Gathered, NotOurs, Post, Told
from telemetry.codec.record_parser import Arrival, check_timestamp
from telemetry.codec.record_parser import read as read_fields
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "influx"
STORED = 204
DEVICE_TAGS = ("device_id", "device", "host")
"""Tags of which the first that a line has says which device it is of."""

MAX_SAID = 5
"""Refused lines that an answer describes."""

NS_OF_PRECISION = {"ns": 1, "us": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
NS_OF_PRECISION |= {"n": 1, "u": 1_000}

_KEY = re.compile(r"(?:\\.|[^,= \\]++)++")
_VALUE = re.compile(r'"(?:\\.|[^"\\]++)*+"|(?:\\.|[^,= \\"]++)++')
_ESCAPED = re.compile(r"\\([,= \\\"])")
_LINE = re.compile(r'(?:[^"\\\n]++|\\.|"(?:\\.|[^"\\]++)*+")++', re.DOTALL)
_CREATE = re.compile(r"\s*create\s+database\b", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
TRUE, FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")


class Point(NamedTuple):
    """A line. The timestamp is in the request's precision."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, object]
    timestamp: int | None


def ping(_post: Post, _options: Options, _arrival: Arrival) -> Told:
    """A client that looks whether there is an InfluxDB."""
    return Told([], status=STORED)


def query(post: Post, _options: Options, _arrival: Arrival) -> Told:
    """The one question that those who write ask, Telegraf at each start. Raises `NotOurs` for any other."""
    form = dict(parse_qsl(post.body.decode(errors="replace")))
    text = dict(post.query).get("q") or form.get("q", "")
    if not _CREATE.match(text):
        raise NotOurs("of InfluxDB's questions only CREATE DATABASE is known: records are asked for at /v1/records")
    return Told([], body=b'{"results":[{"statement_id":0}]}')


def read(post: Post, options: Options, arrival: Arrival) -> Told:
    """The good lines of a body are stored, the others set aside, and the answer says which. Raises `NotOurs`."""
    precision = dict(post.query).get("precision", "ns")
    if precision not in NS_OF_PRECISION:
        raise NotOurs(f"precision={precision} is not one of {', '.join(NS_OF_PRECISION)}")
    gathered, said = Gathered(post.max_records), list[str]()
    for number, line in _lines(post.body):
        try:
            record = _record(parse(line), NS_OF_PRECISION[precision], options, arrival)
        except RecordError as error:
            gathered.refuse("", f"line {number}: {error}", line.encode(errors="replace"))
            if len(said) < MAX_SAID:
                said.append(f"line {number}: {error}")
        else:
            gathered.add(record)
    if not gathered.refused:
        return gathered.told(STORED)
    lines = gathered.refused + len(gathered.records)
    message = f"partial write: {gathered.refused} of {lines} lines can't be taken: "
    answer = {"code": "invalid", "message": message + "; ".join(said)}
    return gathered.told(400, msgspec.json.encode(answer))


def _lines(body: bytes) -> Iterator[tuple[int, str]]:
    """Each line that says something, and its number. A line break inside quotes is text."""
    text = body.decode("utf-8", "replace")
    counted, number = 0, 1
    for match in _LINE.finditer(text):
        number += text.count("\n", counted, match.start())
        counted = match.start()
        line = match[0].strip()
        if line and not line.startswith("#"):
            yield number, line


def parse(line: str) -> Point:
    """A line's parts. Raises `RecordError`."""
    measurement, at = _key(line, 0, "measurement")
    tags: dict[str, str] = {}
    while line[at : at + 1] == ",":
        name, at = _key(line, at + 1, "tag")
        value, at = _key(line, _past(line, at, "=", name), name)
        tags[name] = value
    fields: dict[str, object] = {}
    at = _past(line, at, " ", "fields")
    while True:
        name, at = _key(line, at, "field")
        found = _VALUE.match(line, _past(line, at, "=", name))
        if found is None:
            raise RecordError(name, None, "has no value")
        fields[name], at = _value(name, found[0]), found.end()
        if line[at : at + 1] != ",":
            break
        at += 1
    return Point(measurement, tags, fields, _timestamp(line[at:].strip()))


def _key(line: str, at: int, what: str) -> tuple[str, int]:
    found = _KEY.match(line, at)
    if found is None:
        raise RecordError(what, line[at : at + 20], "is missing")
    return _ESCAPED.sub(r"\1", found[0]), found.end()


def _past(line: str, at: int, mark: str, what: str) -> int:
    end = at
    while line[end : end + 1] == mark:
        end += 1
    if end == at:
        raise RecordError(what, line[at : at + 20], f"needs {mark!r} before it" if mark == " " else f"needs {mark!r}")
    return end


def _value(name: str, text: str) -> object:
    if text.startswith('"'):
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if text in TRUE or text in FALSE:
        return text in TRUE
    digits = text[:-1] if text[-1] in "iu" else text
    if _NUMBER.fullmatch(digits):
        return int(digits) if digits is not text and digits.lstrip("+-").isdecimal() else float(digits)
    raise RecordError(name, text, "is no number, truth or text in quotes")


def _timestamp(text: str) -> int | None:
    if not text:
        return None
    if not text.lstrip("-").isdecimal() or len(text) > 20:
        raise RecordError("timestamp", text, "must be a whole number")
    return int(text)


def _record(point: Point, unit_ns: int, options: Options, arrival: Arrival) -> Sent:
    value: dict[str, object] = dict(point.tags)
    for name, found in point.fields.items():
        if name in value:
            raise RecordError(name, found, "is a tag and a field")
        value[name] = found
    tags = (options.device_tag,) if options.device_tag else DEVICE_TAGS
    written = {name if options.device_tag else name.lower(): name for name in point.tags}
    tag = next((written[name] for name in tags if name in written), "")
    if not tag:
        raise RecordError("device_id", None, f"no tag says it: {' or '.join(tags)}")
    value["device_id"] = value.pop(tag)
    value.setdefault("measurement", point.measurement)
    of_unit = arrival._replace(speed_unit=options.speed_unit) if options.speed_unit else arrival
    sent = read_fields(value, options.transport, SOURCE, of_unit)
    if point.timestamp is None:
        return sent
    at_us = check_timestamp(point.timestamp * unit_ns // 1_000, point.timestamp, arrival)
    return Sent(sent.device_id, msgspec.structs.replace(sent.record, timestamp_us=at_us), is_stored_once=True)
