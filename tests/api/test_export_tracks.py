"""Exports as GPX and KML: what a reader of XML finds in them are the records that say where a device was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from telemetry.record import Sent
from tests.api.conftest import Box, box_on, record
from tests.api.test_history import MIDNIGHT_US
from tests.conftest import RedisServer

DAY_US = 86_400_000_000
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
]


class Point(NamedTuple):
    """A place of a track."""

    at: datetime
    latitude: float
    longitude: float
    altitude_m: float | None
    speed_kmh: float | None = None
    heading_deg: float | None = None


Tracks = list[tuple[str, list[Point]]]


def number(text: str | None) -> float | None:
    return None if text is None else float(text)


def of_gpx(data: bytes) -> Tracks:
    root = fromstring(data)
    assert (root.tag, root.attrib["version"]) == (f"{GPX}gpx", "1.1")
    return [(track.findtext(f"{GPX}name", ""), list(map(gpx_point, track.iter(f"{GPX}trkpt")))) for track in root]


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
        track = place.find(f"{GX}Track")
        assert track is not None
        times = [datetime.fromisoformat(when.text or "") for when in track.iter(f"{KML}when")]
        places = [[float(part) for part in (coord.text or "").split()] for coord in track.iter(f"{GX}coord")]
        points = [Point(at, lat, lon, alt) for at, (lon, lat, alt) in zip(times, places, strict=True)]
        found.append((place.findtext(f"{KML}name", ""), points))
    return found


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
    """The tracks that `/v1/records` tells of, in the order of exports."""
    rows: list[dict[str, Any]] = json.loads(box.get("/v1/records", *query).content)["records"]
    placed = [row for row in rows if row["latitude"] is not None and (row["attributes"] or {}).get("fix") is not False]
    placed.sort(key=lambda row: (row["timestamp"][:10], row["device_id"].encode(), row["timestamp"]))
    return [
        (name.replace("\x0b", "\ufffd").replace("\ufffe", "\ufffd"), [point_of(kind, row) for row in group])
        for name, group in groupby(placed, key=lambda row: str(row["device_id"]))
    ]


def point_of(kind: str, row: dict[str, Any]) -> Point:
    at = datetime.fromisoformat(row["timestamp"])
    if kind == "kml":
        return Point(at, row["latitude"], row["longitude"], row["altitude_m"] or 0.0)
    return Point(at, row["latitude"], row["longitude"], row["altitude_m"], row["speed_kmh"], row["heading_deg"])


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("query", [(), (("device_id", "van"),), (("device_id", ODD),), (("start", "2200-01-01"),)])
def test_the_tracks_are_the_records_with_a_fix(box: Box, kind: str, query: tuple[tuple[str, str], ...]) -> None:
    answer = box.get("/v1/export", ("format", kind), *query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPES[kind])
    assert READERS[kind](answer.content) == expected(box, kind, *query)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_accepted_and_the_file_s_name(box: Box, kind: str) -> None:
    answer = box.http.get("/v1/export?device_id=van", headers={"Accept": MEDIA_TYPES[kind]})
    assert answer.headers["content-disposition"] == f'attachment; filename="whimbrel-van.{kind}"'
    assert READERS[kind](answer.content)
