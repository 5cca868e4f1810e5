"""Exports as GPX and KML: what a reader of XML finds in them are the records that say where a device was, in segments
that end at gaps; and both are valid by their schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from api.formats import FORMATS, kml
from api.formats.format import BATCH_ROWS
from telemetry.archive.schema import COLUMNS, open_duckdb
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.api.records.test_range_query import MIDNIGHT_US
from tests.conftest import RedisServer
from tests.third_party import invalid, needs_third_party

DAY_US = 86_400_000_000
GAP_US = 600_000_000
"""The longest time between two records of a segment."""

GPX, TPX = "{http://www.topografix.com/GPX/1/1}", "{http://www.garmin.com/xmlschemas/TrackPointExtension/v2}"
KML, GX = "{http://www.opengis.net/kml/2.2}", "{http://www.google.com/kml/ext/2.2}"

ODD = '<a & "b"> \x0b\ufffeü'
SENT = [
    Sent("van", record(MIDNIGHT_US + 1, latitude=-0.5, longitude=179.999999, speed_kmh=36.0, heading_deg=None)),
    Sent("van", record(MIDNIGHT_US + 2_500_000, altitude_m=None, speed_kmh=None, heading_deg=90.5)),
    Sent("van", record(MIDNIGHT_US + 3, fix=False)),
    Sent("van", record(MIDNIGHT_US + 4, attributes='{"fix":false,"satellites":0}')),
    Sent("van", record(MIDNIGHT_US + 5, attributes='{"satellites":9}', speed_kmh=None, heading_deg=None)),
    Sent(ODD, record(MIDNIGHT_US + 6)),
    Sent("van", record(MIDNIGHT_US + DAY_US)),
    Sent("bus", record(MIDNIGHT_US + DAY_US + 1)),
    Sent("bus", record(MIDNIGHT_US + DAY_US - 30_000_000, latitude=-90.0, longitude=180.0)),
    Sent("bus", record(MIDNIGHT_US + DAY_US + 1 + GAP_US, latitude=90.0, longitude=-180.0, altitude_m=-1.5e-5)),
    Sent("bus", record(MIDNIGHT_US + DAY_US + 2 + 2 * GAP_US, latitude=1e-5, longitude=-2.5e-7, heading_deg=1e-5)),
    Sent("bus", record(MIDNIGHT_US + 21 * DAY_US, latitude=5e-324, speed_kmh=1e-9)),
]


ALL = ("plausible", "false")


class Point(NamedTuple):
    """A place of a track."""

    at: datetime
    latitude: float
    longitude: float
    altitude_m: float | None
    speed_kmh: float | None = None
    heading_deg: float | None = None


Segment = list[Point]
Tracks = list[tuple[str, list[Segment]]]


def number(text: str | None) -> float | None:
    return None if text is None else float(text)


def of_gpx(data: bytes) -> Tracks:
    root = fromstring(data)
    assert (root.tag, root.attrib["version"]) == (f"{GPX}gpx", "1.1")
    return [(track.findtext(f"{GPX}name", ""), gpx_segments(track)) for track in root]


def gpx_segments(track: Element) -> list[Segment]:
    return [[gpx_point(point) for point in segment] for segment in track.iter(f"{GPX}trkseg")]


def gpx_point(found: Element) -> Point:
    assert [child.tag for child in found] == sorted(
        (child.tag for child in found), key=[f"{GPX}ele", f"{GPX}time", f"{GPX}extensions"].index
    )
    speed_ms = number(found.findtext(f".//{TPX}speed"))
    speed_kmh = None if speed_ms is None else round(speed_ms * 3.6, 9)
    return Point(
        datetime.fromisoformat(found.findtext(f"{GPX}time", "")),
        float(found.attrib["lat"]),
        float(found.attrib["lon"]),
        number(found.findtext(f"{GPX}ele")),
        speed_kmh,
        number(found.findtext(f".//{TPX}course")),
    )


def of_kml(data: bytes) -> Tracks:
    root = fromstring(data)
    assert root.tag == f"{KML}kml"
    found = []
    for place in root.iter(f"{KML}Placemark"):
        tracks = place.find(f"{GX}MultiTrack")
        assert tracks is not None
        found.append((place.findtext(f"{KML}name", ""), [kml_segment(track) for track in tracks]))
    return found


def kml_segment(track: Element) -> Segment:
    times = [datetime.fromisoformat(when.text or "") for when in track.iter(f"{KML}when")]
    places = [[float(part) for part in (coord.text or "").split()] for coord in track.iter(f"{GX}coord")]
    return [Point(at, lat, lon, alt) for at, (lon, lat, alt) in zip(times, places, strict=True)]


READERS: dict[str, Callable[[bytes], Tracks]] = {"gpx": of_gpx, "kml": of_kml}
MEDIA_TYPES = {"gpx": "application/gpx+xml", "kml": "application/vnd.google-earth.kml+xml"}


@pytest.fixture(scope="module", params=["tail", "both", "archive"])
def box(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("tracks")) as found:
        half = {"tail": 0, "both": len(SENT) // 2, "archive": len(SENT)}[request.param]
        for sent in SENT[:half]:
            found.append(sent)
        if half:
            found.save()
        for sent in SENT[half:]:
            found.append(sent)
        yield found


def expected(box: Box, kind: str, *query: tuple[str, str]) -> Tracks:
    """The tracks that `/v1/records` tells of, a device each, in segments without a gap."""
    gap_s = float(dict(query).get("max_gap_s", GAP_US / 1e6))
    rows: list[dict[str, Any]] = json.loads(box.get("/v1/records", *query).content)["records"]
    placed = [row for row in rows if row["latitude"] is not None and (row["attributes"] or {}).get("fix") is not False]
    placed.sort(key=lambda row: (row["device_id"].encode(), datetime.fromisoformat(row["timestamp"])))
    return [
        (
            name.replace("\x0b", "\ufffd").replace("\ufffe", "\ufffd"),
            segments([point_of(kind, row) for row in group], gap_s),
        )
        for name, group in groupby(placed, key=lambda row: str(row["device_id"]))
    ]


def segments(points: list[Point], gap_s: float) -> list[Segment]:
    found = [points[:1]]
    for before, point in pairwise(points):
        if (point.at - before.at).total_seconds() > gap_s:
            found.append([])
        found[-1].append(point)
    return found


def point_of(kind: str, row: dict[str, Any]) -> Point:
    """A record as a format has it: near 0 with 12 digits of fraction; GPX knows the longitude 180 as -180 alone."""
    at, altitude_m = datetime.fromisoformat(row["timestamp"]), rounded(row["altitude_m"])
    latitude, longitude = round(row["latitude"], 12), round(row["longitude"], 12)
    if kind == "kml":
        return Point(at, latitude, longitude, altitude_m or 0.0)
    longitude = -180.0 if longitude == 180 else longitude
    speed_kmh = None if row["speed_kmh"] is None else round(row["speed_kmh"], 9)
    return Point(at, latitude, longitude, altitude_m, speed_kmh, rounded(row["heading_deg"]))


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 12)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "query",
    [
        (),
        (("device_id", "van"),),
        (("device_id", "bus"),),
        (("device_id", ODD),),
        (("start", "2200-01-01"),),
        (("max_gap_s", "0"),),
        (("max_gap_s", "2678400"),),
    ],
)
def test_the_tracks_are_the_records_with_a_fix(box: Box, kind: str, query: tuple[tuple[str, str], ...]) -> None:
    answer = box.get("/v1/export", ("format", kind), ALL, *query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPES[kind])
    assert READERS[kind](answer.content) == expected(box, kind, *query)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("path", ["/v1/export", "/v1/records"])
def test_a_device_s_segments_end_at_gaps_whatever_else_is_in_the_file(box: Box, kind: str, path: str) -> None:
    """Not at midnight, where another device's records may lie between, and not where a record has no fix."""
    tracks = dict(READERS[kind](box.get(path, ("format", kind), ALL).content))
    assert [len(segment) for segment in tracks["bus"]] == [3, 1, 1]
    assert [len(segment) for segment in tracks["van"]] == [3, 1]
    for device in ("bus", "van"):
        alone = READERS[kind](box.get(path, ("format", kind), ALL, ("device_id", device)).content)
        assert alone == [(device, tracks[device])]


@pytest.mark.parametrize("gap", ["-1", "x", "2678401"])
@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/export", "gpx"), ("/v1/export", "ndjson"), ("/v1/records", "gpx"), ("/v1/records", "json")]
)
def test_a_gap_that_is_refused(box: Box, path: str, kind: str, gap: str) -> None:
    assert_problem(box.get(path, ("format", kind), ("max_gap_s", gap)), 400, "invalid-parameter")


@needs_third_party
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("path", ["/v1/export", "/v1/records", "/v1/latest"])
def test_files_are_valid(box: Box, kind: str, path: str, tmp_path: Path) -> None:
    """By the schemas: KML with Google's extensions, GPX 1.1."""
    queries = [(), (("device_id", "nobody"),)] if path == "/v1/latest" else [(), (("start", "2200-01-01"),)]
    files = []
    for number, query in enumerate(queries):
        files.append(tmp_path / f"{number}.{kind}")
        files[-1].write_bytes(box.get(path, ("format", kind), *query).content)
    assert invalid(kind, *files) == ""


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("max_buffer_bytes", [1, kml.MAX_BUFFER_BYTES])
def test_long_segments(kind: str, max_buffer_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of several batches, with positions buffered in memory and in a file."""
    monkeypatch.setattr(kml, "MAX_BUFFER_BYTES", max_buffer_bytes)
    lengths = [1, 3 * BATCH_ROWS, 20, BATCH_ROWS - 21, 2]
    rows, out = sum(lengths), tmp_path / f"long.{kind}"
    columns = dict.fromkeys(COLUMNS.names, "NULL::DOUBLE") | {
        "device_id": "'a'",
        "attributes": "NULL",
        "timestamp": f"make_timestamptz({MIDNIGHT_US} + id * 1000000 + gaps * {GAP_US})",
        "latitude": "id / 1000",
        "longitude": "-id / 1000",
    }
    firsts = list(accumulate(lengths[:-1]))
    gaps = f"SELECT id, len(list_filter({firsts}, lambda first: first <= id)) AS gaps FROM range({rows}) AS r(id)"
    records = f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in columns.items())} FROM ({gaps})"
    with open_duckdb(tmp_path / "duckdb") as connection, out.open("wb") as file:
        assert FORMATS[kind].write(connection, records, file.fileno()) == rows
    [(name, segments)] = READERS[kind](out.read_bytes())
    assert (name, list(map(len, segments))) == ("a", lengths)
    assert [point.latitude * 1000 for segment in segments for point in segment] == pytest.approx(range(rows))


@pytest.mark.parametrize("kind", READERS)
def test_what_is_accepted_and_the_file_s_name(box: Box, kind: str) -> None:
    answer = box.http.get("/v1/export?device_id=van", headers={"Accept": MEDIA_TYPES[kind]})
    assert answer.headers["content-disposition"] == f'attachment; filename="whimbrel-van.{kind}"'
    assert READERS[kind](answer.content)
