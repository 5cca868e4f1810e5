"""Parquet, GPX and dumps of MySQL's, row by row."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.imports.readers.formats import READERS
from cli.imports.readers.gpx import MAX_DEPTH
from cli.imports.rows import source as sources
from cli.imports.rows.reader import Refused
from cli.imports.rows.row_parser import Judge, Naming
from cli.imports.rows.source import opened
from telemetry.codec.record_parser import Arrival
from telemetry.model.errors import SenderError
from telemetry.model.record import LATEST_US, Sent
from tests.cli.imports_files import GPX, HEAD, TABLE, Value, dump, escaped, insert

MOMENT_US = 1_772_323_200_000_000
"""2026-03-01 00:00:00 UTC."""


def read(
    file: Path, kind: str, naming: Naming | None = None, encoding: str = "utf-8"
) -> tuple[list[Sent], list[Refused]]:
    judge = Judge(naming or Naming(), Arrival(0, LATEST_US), kind)
    with opened(file, encoding) as source:
        pieces = list(READERS[kind](source, judge))
    assert all(len(piece.sent) + len(piece.refused) == piece.rows for piece in pieces)
    return [one for piece in pieces for one in piece.sent], [one for piece in pieces for one in piece.refused]


def written(folder: Path, text: str | bytes, name: str = "file") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


# Names in another case -------------------------------------------------------------------------------

ROW = {"Device_ID": "a", "Timestamp": "01/03/2026 00:00", "LAT": 41.5, "Longitude": 29.5, "Speed": 10, "Fuel": 5}


@pytest.mark.parametrize("kind", ["csv", "ndjson", "json", "parquet", "mysqldump"])
@pytest.mark.parametrize("is_plain", [True, False])
def test_columns_in_another_case(tmp_path: Path, kind: str, is_plain: bool) -> None:
    row = ROW | {"Timestamp": "2026-03-01T00:00:00Z"} if is_plain else ROW
    naming = Naming() if is_plain else Naming(time_format="%d/%m/%Y %H:%M", device="none")
    sent, refused = read(_file_of(tmp_path, kind, row), kind, naming)
    assert refused == []
    [one] = sent
    record = one.record
    assert (one.device_id, record.timestamp_us, record.latitude, record.longitude) == ("a", MOMENT_US, 41.5, 29.5)
    assert (record.speed_kmh, json.loads(record.attributes or "").keys()) == (10, {"Fuel"})


def _file_of(folder: Path, kind: str, row: dict[str, Any]) -> Path:
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), folder / "file")
        return folder / "file"
    names, cells = ",".join(row), ",".join(map(str, row.values()))
    columns = ", ".join(f"`{name}` text" for name in row).replace(", ", ",\n ")
    values = ", ".join(f"'{value}'" for value in row.values())
    texts = {
        "csv": f"{names}\n{cells}\n",
        "ndjson": json.dumps(row),
        "json": json.dumps([row]),
        "mysqldump": f"CREATE TABLE `p` (\n {columns}\n);\nINSERT INTO `p` VALUES ({values});\n",
    }
    return written(folder, texts[kind])


def test_a_plain_speed_in_another_case_is_in_the_unit_that_was_named(tmp_path: Path) -> None:
    judge = Judge(Naming(), Arrival(0, LATEST_US, "knots"), "csv")
    with opened(written(tmp_path, "device_id,time,Speed\na,2026-03-01,10\n"), "utf-8") as source:
        [piece] = READERS["csv"](source, judge)
    assert piece.sent[0].record.speed_kmh == 18.52


def test_columns_of_both_cases_mean_one_field(tmp_path: Path) -> None:
    with pytest.raises(SenderError, match=r"columns 'lat' and 'Lat' both mean 'latitude'; try --map another_name=Lat"):
        read(written(tmp_path, "device_id,time,lat,Lat\na,2026-03-01,1,2\n"), "csv")
    _, [bad] = read(written(tmp_path, '{"device_id":"a","time":1772323200,"lat":1,"Lat":2}'), "ndjson")
    assert bad.reason == "latitude: sent twice, the second time as 'Lat'"


def test_elements_of_gpx_in_another_case(tmp_path: Path) -> None:
    text = GPX.replace(":speed>", ":Speed>").replace(":course>", ":COURSE>")
    assert text != GPX
    naming = Naming(device="d")
    expected = read(written(tmp_path, GPX), "gpx", naming)
    assert read(written(tmp_path, text), "gpx", naming) == expected


# JSON ------------------------------------------------------------------------------------------------

ARRAY = """ [ {"device_id":"a]\\"","time":1772323200, "deep":{"n":[1,2,{}]}} ,
{"device_id":
"b,","time":1772323201},7,{"device_id":"c"},[],{"device_id":"ü","time":1772323202}]\n """


@pytest.mark.parametrize("block_bytes", [1, 3, 50, 10_000])
def test_an_array_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    sent, refused = read(written(tmp_path, ARRAY), "json")
    assert [one.device_id for one in sent] == ['a]"', "b,", "ü"]
    assert [one.where for one in refused] == ["item 3", "item 4", "item 5"]
    assert sent[0].record.attributes == '{"deep":{"n":[1,2,{}]}}'
    assert read(written(tmp_path, " [ ] "), "json") == ([], [])


@pytest.mark.parametrize("text", ["", "{}", "[", '[{"device_id":"a"}', "[] []", "[]x", '["a', "[{}", "]"])
def test_what_is_no_array_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SenderError, match=r"cannot read .*file"):
        read(written(tmp_path, text), "json")


def test_an_array_of_many(tmp_path: Path) -> None:
    rows = [{"device_id": f"d{n}", "time": 1772323200 + n, "n": n} for n in range(2_500)]
    sent, refused = read(written(tmp_path, json.dumps(rows, indent=1)), "json")
    assert [json.loads(one.record.attributes or "") for one in sent] == [{"n": n} for n in range(2_500)]
    assert refused == []
    with pytest.raises(SenderError, match="an item has more than"):
        read(written(tmp_path, '["' + "x" * 2**22), "json")


# Parquet ---------------------------------------------------------------------------------------------


def table(**columns: Any) -> pa.Table:
    return pa.table({"device_id": ["a", "b"], **columns})


MOMENTS = [datetime(2026, 3, 1, 0, 0, 0, 250, UTC), datetime(2026, 3, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    "times",
    [
        pa.array(MOMENTS, pa.timestamp("us", "UTC")),
        pa.array(MOMENTS, pa.timestamp("ns", "Europe/Istanbul")),
        pa.array([one.replace(tzinfo=None) for one in MOMENTS], pa.timestamp("us")),
        pa.array([one.isoformat() for one in MOMENTS]),
        pa.array([one.timestamp() for one in MOMENTS]),
    ],
    ids=["us", "ns of a zone", "no zone", "text", "epoch"],
)
def test_times_of_parquet(tmp_path: Path, times: pa.Array) -> None:
    pq.write_table(table(timestamp=times), tmp_path / "a.parquet")
    sent, refused = read(tmp_path / "a.parquet", "parquet")
    assert [one.record.timestamp_us - MOMENT_US for one in sent] == [250, 3_600_000_000]
    assert refused == []


def test_columns_of_parquet(tmp_path: Path) -> None:
    pq.write_table(
        table(
            when=pa.array([one.replace(tzinfo=None) for one in MOMENTS], pa.timestamp("us")),
            lat=pa.array([41, float("nan")], pa.float32()),
            lon=[29.5, None],
            speed=pa.array([Decimal("50.50"), Decimal("1")]),
            fuel=[float("nan"), 7.5],
            state=pa.array(["on", "off"]).dictionary_encode(),
            inputs=[{"a": [1, None]}, None],
            seen=pa.array(MOMENTS, pa.timestamp("us", "UTC")),
            big=pa.array([2**63 - 1, -1]),
        ),
        tmp_path / "a.parquet",
    )
    sent, refused = read(tmp_path / "a.parquet", "parquet", Naming({"timestamp": "when"}))
    assert refused == []
    [one, other] = [one.record for one in sent]
    assert (one.latitude, one.longitude, one.speed_kmh, other.latitude) == (41.0, 29.5, 50.5, None)
    assert json.loads(one.attributes or "") == {
        "state": "on",
        "inputs": {"a": [1, None]},
        "seen": "2026-03-01T00:00:00.000250Z",
        "big": 2**63 - 1,
    }
    assert json.loads(other.attributes or "")["fuel"] == 7.5


def test_bad_rows_of_parquet_are_named(tmp_path: Path) -> None:
    rows = 20_000
    times = pa.array([MOMENT_US + n for n in range(rows)], pa.int64()).cast(pa.timestamp("us", "UTC"))
    latitudes = [91.0 if n == 15_000 else 1.0 for n in range(rows)]
    pq.write_table(pa.table({"device_id": ["a"] * rows, "timestamp": times, "lat": latitudes}), tmp_path / "a")
    sent, [refused] = read(tmp_path / "a", "parquet")
    assert (len(sent), refused.where, refused.place) == (rows - 1, "row 15001", 0)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"\x1f\x8b" + b"0" * 20])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SenderError, match=r"cannot read .*file"):
        read(written(tmp_path, content), "parquet")


# GPX -------------------------------------------------------------------------------------------------


def test_points_of_gpx(tmp_path: Path) -> None:
    sent, refused = read(written(tmp_path, GPX), "gpx")
    assert [(one.device_id, one.record.latitude) for one in sent] == [("boat 1", 41.1), ("boat 2", 41.3)]
    record = sent[0].record
    assert (record.altitude_m, record.speed_kmh, record.heading_deg) == (12.5, 36.0, 90.0)
    assert record.timestamp_us == MOMENT_US + 1_250_000
    assert record.attributes == '{"hr":"80"}'
    assert [(one.where, one.reason.partition(":")[0]) for one in refused] == [
        ("point 1", "device_id"),
        ("point 3", "timestamp"),
        ("point 4", "latitude"),
    ]


def test_a_device_that_was_named_has_all_points(tmp_path: Path) -> None:
    sent, _ = read(written(tmp_path, GPX), "gpx", Naming(device="mine"))
    assert [one.device_id for one in sent] == ["mine", "boat 1", "boat 2"]
    assert (sent[0].record.location, sent[0].record.attributes) == ("Pier", '{"sym":"Flag"}')


def test_gpx_1_0_has_no_extensions(tmp_path: Path) -> None:
    text = (
        '<gpx version="1.0" xmlns="http://www.topografix.com/GPX/1/0"><trk><name>a</name><trkseg>'
        '<trkpt lat="1" lon="2"><time>2026-03-01T00:00:00Z</time><course>45</course><speed>2.5</speed></trkpt>'
        '<trkpt lat="1" lon="2"><time>2026-03-01T00:00:00Z</time><speed>fast</speed></trkpt>'
        "</trkseg></trk></gpx>"
    )
    [one], [refused] = read(written(tmp_path, text), "gpx")
    assert (one.record.speed_kmh, one.record.heading_deg) == (9.0, 45.0)
    assert "speed_kmh: must be a finite number" in refused.reason


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<gpx><trk>",
        GPX[:-40],
        '<!DOCTYPE gpx [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><gpx><trk><name>&b;</name></trk></gpx>',
        '<!DOCTYPE gpx [<!ENTITY a SYSTEM "file:///etc/passwd">]><gpx>&a;</gpx>',
    ],
    ids=["empty", "cut off", "cut off behind points", "entities", "files"],
)
def test_what_is_no_gpx_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SenderError, match=r"cannot read .*file as GPX"):
        read(written(tmp_path, text), "gpx")


LARGE = "x" * (3 * sources.MAX_LINE_BYTES)
A_POINT = '<trkpt lat="1" lon="2"><time>2026-03-01T00:00:00Z</time>%s</trkpt>'


@pytest.mark.parametrize(
    "inside",
    [
        A_POINT % f"<cmt>{LARGE}</cmt>",
        A_POINT % ("<e>1</e>" * (len(LARGE) // 8)),
        A_POINT % f'<e a="{LARGE}"/>',
        f"<name>{LARGE}</name>",
        f"<!--{LARGE}-->",
    ],
    ids=["text of a point", "elements of a point", "attribute", "text of a track", "comment"],
)
def test_memory_of_gpx_is_bounded(tmp_path: Path, inside: str) -> None:
    """A compressed file of a MB could inflate to a text of a GB."""
    text = f"<gpx><trk><trkseg>{A_POINT % ''}{inside}{A_POINT % ''}</trkseg></trk></gpx>"
    with pytest.raises(SenderError, match=r"an element has more than 1048576 bytes"):
        read(written(tmp_path, text), "gpx", Naming(device="a"))


def test_elements_of_gpx_are_nested_so_deep_at_most(tmp_path: Path) -> None:
    deep = MAX_DEPTH - 4
    text = "<gpx><trk><trkseg>" + A_POINT % f"{'<e>' * deep}{'</e>' * deep}" + "</trkseg></trk></gpx>"
    assert len(read(written(tmp_path, text), "gpx", Naming(device="a"))[0]) == 1
    with pytest.raises(SenderError, match=f"elements are nested more than {MAX_DEPTH} deep"):
        read(written(tmp_path, "<e>" * 1_000_000), "gpx", Naming(device="a"))


def test_a_file_of_gpx_may_be_larger_than_an_element(tmp_path: Path) -> None:
    points = 2 * sources.MAX_LINE_BYTES // len(A_POINT)
    text = f"<gpx><trk><trkseg>{(A_POINT % '') * points}</trkseg></trk></gpx>"
    sent, refused = read(written(tmp_path, text), "gpx", Naming(device="a"))
    assert (len(sent), refused) == (points, [])


# Dumps -----------------------------------------------------------------------------------------------

HTTP = [
    (1, "123", "2026-03-01 00:00:00.000250", "Antalya", 60.00),
    (2, "it's; (a) \"\\'", "2026-03-01 00:00:01", "41.0,29.0\nline\0", -5.25),
    (3, "b", "2026-03-01 00:00:02", None, 1),
    (4, "b", "0000-00-00 00:00:00", "x", 1),
]
TCP = [(1, "device123", "2026-03-01 00:00:03.500000", "Ünye 🚢", 7.0)]


@pytest.mark.parametrize("per_statement", [1, 100])
@pytest.mark.parametrize("kind", HEAD)
def test_the_older_services_dump(tmp_path: Path, kind: str, per_statement: int) -> None:
    sent, refused = read(written(tmp_path, dump(HTTP, TCP, kind, per_statement)), "mysqldump")
    assert [(one.device_id, one.record.transport, one.record.source, one.record.speed_kmh) for one in sent] == [
        ("123", "http", "older", 60.0),
        ("b", "http", "older", 1.0),
        ("device123", "tcp", "older", 7.0),
    ]
    assert [one.record.location for one in sent] == ["Antalya", None, "Ünye 🚢"]
    assert sent[0].record.timestamp_us == MOMENT_US + 250
    assert {one.record.attributes for one in sent} == {None}
    assert [one.where for one in refused] == ["`tracking_data`, row 2", "`tracking_data`, row 4"]
    assert refused[0].reason == "location: must not hold a NUL character"


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 1_000])
def test_wherever_a_dump_is_cut_into_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    file = written(tmp_path, dump(HTTP, TCP))
    expected = read(file, "mysqldump")
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    assert read(file, "mysqldump") == expected


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "');",
        "'",
        "\\",
        "\\'",
        "''",
        "--",
        "/*",
        "*/",
        "`",
        "(",
        "),(",
        "\x1a",
        "NULL",
        "0x41",
        "INSERT INTO `t` VALUES (1",
    ]
)
VALUES = TEXTS | st.none() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=200)
@given(rows=st.lists(st.tuples(TEXTS, VALUES, VALUES), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_any_values_come_back_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Value, Value]], seed: int
) -> None:
    draw = random.Random(seed)
    full = [("d" + a.replace("\0", ""), "2026-03-01 00:00:00", b, c) for a, b, c in rows]
    create = "CREATE TABLE `t` (\n  `device_id` text,\n  `timestamp` datetime,\n  `b` text,\n  `c` text\n);\n"
    text = HEAD["mysqldump"] + create + insert("t", full, draw.randint(1, 3)) + "\n-- end"
    file = written(tmp_path_factory.mktemp("dump"), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", draw.choice([1, 5, 100, 10_000]))
        sent, refused = read(file, "mysqldump", Naming(device="d"))
    assert [one.device_id for one in sent] == [row[0] for row in full]
    assert refused == []
    for one, row in zip(sent, full, strict=True):
        expected = {
            n: v if isinstance(v, str) else escaped(v) for n, v in zip("bc", row[2:], strict=True) if v is not None
        }
        assert json.loads(one.record.attributes or "{}") == expected


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, 4_000), junk=st.binary(max_size=8))
def test_a_damaged_dump_is_refused_or_its_rows_are(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    """Never anything else than an error of the sender's, and never an end."""
    whole = dump(HTTP, TCP).encode()
    file = written(tmp_path_factory.mktemp("dump"), whole[:at] + junk + whole[at + len(junk) :])
    try:
        read(file, "mysqldump")
    except SenderError as error:
        assert "cannot read" in str(error) or "no table" in str(error)  # noqa: PT017 (most files are not refused)


def test_columns_may_be_mapped_and_named_by_the_insert(tmp_path: Path) -> None:
    rows = insert("gps", [("x", 1772323200, 50)], columns="(`imei`, `at`, `v`) ")
    naming = Naming({"device_id": "imei", "timestamp": "at", "speed_knots": "v"})
    [one], refused = read(written(tmp_path, rows), "mysqldump", naming)
    assert (one.device_id, round(one.record.speed_kmh or 0, 9), one.record.transport) == ("x", 92.6, "import")
    assert refused == []


def test_rows_of_a_table_that_is_not_described_are_not_lost_silently(tmp_path: Path) -> None:
    text = TABLE.format(name="tracking", rows=insert("tracking", HTTP[:1])) + insert("more", HTTP)
    sent, [refused] = read(written(tmp_path, text), "mysqldump")
    assert len(sent) == 1
    assert (refused.where, "CREATE TABLE" in refused.reason) == ("`more`", True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no table has columns for device_id and timestamp; it has no CREATE TABLE"),
        ("CREATE TABLE `a` (\n  `id` int\n);\n", "its tables are a"),
        (TABLE.format(name="a", rows="INSERT INTO `a` VALUES (1,'x','2026-03-01'"), "cannot read .* in a row of `a`"),
        (TABLE.format(name="a", rows="INSERT INTO `a` VALUES (1,'x" + "y" * 2**20), "cannot read .* in a row of `a`"),
    ],
)
def test_a_dump_that_can_not_be_used_says_why(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SenderError, match=reason):
        read(written(tmp_path, text), "mysqldump")
