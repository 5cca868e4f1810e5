"""GPX 1.0 and 1.1: points of tracks and routes, and waypoints, each with its time; speeds in m/s, as GPX has them.

A point's device is the one that was named, else the name of its track or route. Speed and course are taken where
GPX 1.0 has them and where extensions do (Garmin's TrackPointExtension); other extensions become attributes.
"""

from __future__ import annotations

from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from cli.imports.rows.column_meanings import Meanings
from cli.imports.rows.reader import Pieces, Pile
from cli.imports.rows.row_parser import Judge
from cli.imports.rows.source import MAX_LINE_BYTES, Source
from telemetry.codec.record_parser import KMH
from telemetry.model.errors import SenderError

POINTS = {"trkpt", "rtept", "wpt"}
PATHS = {"trk", "rte"}
FIELDS = {"time": "timestamp", "ele": "altitude_m", "speed": "speed_kmh", "course": "heading_deg"}
BOUNDED = 200
"""Elements that are kept of a point; GPX knows some thirty."""

MAX_DEPTH = 100
"""Maximum nesting of elements; a point of GPX with extensions has about eight."""


def read(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`. Raises `SenderError` where the file is no XML, or dangerous."""
    try:
        yield from _points(source, judge)
    except (ParseError, DefusedXmlException) as error:
        raise SenderError(f"cannot read {source.name} as GPX: {error}") from None


class _BoundedFile:
    """A file for a parser of XML that keeps in memory what it has read of a point, or of a text outside of points.

    Raises `SenderError` when that is more than `MAX_LINE_BYTES`.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._kept_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        if self._kept_bytes > MAX_LINE_BYTES:
            raise SenderError(f"cannot read {self._name} on: an element has more than {MAX_LINE_BYTES} bytes")
        data = self._file.read(size)
        self._kept_bytes += len(data)
        return data

    def let_go(self) -> None:
        """Note that the parser keeps nothing of what it has read."""
        self._kept_bytes = 0


def _points(source: Source, judge: Judge) -> Pieces:
    """Every element is emptied once it was looked at, so that the tree of a large file never stands whole."""
    pile, count, path = Pile(judge), 0, ""
    open_elements: list[Element] = []
    open_points = 0
    file = _BoundedFile(source.file, source.name)
    with source.faults():
        for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
            name = _name(element)
            if open_points == 0:
                file.let_go()
            if event == "start":
                open_elements.append(element)
                if len(open_elements) > MAX_DEPTH:
                    raise SenderError(f"cannot read {source.name} on: elements are nested more than {MAX_DEPTH} deep")
                open_points += name in POINTS
                path = "" if name in PATHS else path
                continue
            open_elements.pop()
            open_points -= name in POINTS
            parent = open_elements[-1] if open_elements else None
            if name == "name" and parent is not None and _name(parent) in PATHS:
                path = (element.text or "").strip()
            if name in POINTS:
                count += 1
                pile.add(f"point {count}", _row(element, name, path, judge.meanings))
                yield from pile.full()
            if parent is not None and open_points == 0:
                parent.remove(element)
    yield from pile.rest()


def _row(point: Element, kind: str, path: str, meanings: Meanings) -> dict[str, object]:
    row: dict[str, object] = {"latitude": point.get("lat"), "longitude": point.get("lon")}
    meanings.fields |= {"lat": "latitude", "lon": "longitude"}
    if path and kind != "wpt":
        row["device_id"] = path
    attributes: dict[str, object] = {}
    for element in point.iter():
        name, text = _name(element), (element.text or "").strip()
        if element is point or not text or len(element):
            continue
        if (field := FIELDS.get(name.lower())) is not None:
            meanings.note(name, field)
            row.setdefault(field, _kmh(text) if field == "speed_kmh" else text)
        elif len(attributes) < BOUNDED:
            attributes.setdefault(name, text)
    if kind == "wpt" and "name" in attributes:
        row["location"] = attributes.pop("name")
        meanings.note("name", "location")
    for name in attributes:
        meanings.note(name, None)
    return row | {"attributes": attributes} if attributes else row


def _kmh(text: str) -> object:
    """Of m/s; what is no number stays, to be refused."""
    try:
        return float(text) * KMH["ms"]
    except ValueError:
        return text


def _name(element: Element) -> str:
    """Without its namespace."""
    return str(element.tag).rpartition("}")[2]
