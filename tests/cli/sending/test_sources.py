"""Files to records: NDJSON, CSV, names, times, and what can't be read."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from cli.sending.sources import MAX_LINE_BYTES, PLAIN, PRESETS, Naming, Row, Unreadable, read_csv, read_ndjson
from telemetry.codec.record_parser import Arrival, read
from telemetry.model.errors import SenderError

BUSES = Path(__file__).parents[2] / "data" / "liverpool_bus_route14.csv"
SHIPS = Path(__file__).parents[3].parent / "shared" / "data" / "suez_boats.csv"


def csv_rows(text: str, naming: Naming = PLAIN) -> list[Row | Unreadable]:
    return list(read_csv(io.BytesIO(text.encode()), "f.csv", naming))


def ndjson_rows(text: str, naming: Naming = PLAIN) -> list[Row | Unreadable]:
    return list(read_ndjson(io.BytesIO(text.encode()), "f.ndjson", naming))


def record(row: Row | Unreadable) -> dict[str, Any]:
    assert isinstance(row, Row), row
    fields: dict[str, Any] = json.loads(row.body)
    return fields


def test_buses_are_read_whole() -> None:
    with BUSES.open("rb") as file:
        rows = list(read_csv(file, BUSES.name, PRESETS["buses"]))
    records = [record(row) for row in rows]
    assert [row.line for row in rows] == list(range(2, 1535))
    assert sum("bearing" not in one for one in records) == 399
    assert records[0] == {
        "id": "23811684",
        "device_id": "4716",
        "trip_id": "1091",
        "timestamp": "2026-01-26 15:57:02",
        "latitude": "53.44451",
        "longitude": "-2.925173",
        "origin": "Queen_Square_Bus_Station",
        "destination": "Petherick_Road",
        "route_name": "14",
        "direction": "outbound",
        "operator": "AMSY",
    }


def test_the_collector_takes_every_bus() -> None:
    with BUSES.open("rb") as file:
        sent = [read(record(row), "http", "json", Arrival(0)) for row in read_csv(file, BUSES.name, PRESETS["buses"])]
    first = sent[0].record
    assert (first.timestamp_us, first.latitude, first.heading_deg) == (1769443022000000, 53.44451, None)
    assert json.loads(first.attributes or "")["id"] == "23811684"


def test_ships_have_iso_times() -> None:
    rows = csv_rows("ID,ais_pos_timestamp,longitude,latitude\n1,20/03/2021 00:22,32.32925,31.4386\n", PRESETS["ships"])
    time = "2021-03-20T00:22:00+00:00"
    assert [record(row) for row in rows] == [
        {"device_id": "1", "timestamp": time, "longitude": "32.32925", "latitude": "31.4386"}
    ]


def test_a_time_in_another_case_has_its_format_too() -> None:
    rows = csv_rows("device_id,Timestamp\n1,20/03/2021 00:22\n", Naming({}, "%d/%m/%Y %H:%M"))
    assert [record(row)["Timestamp"] for row in rows] == ["2021-03-20T00:22:00+00:00"]


@pytest.mark.skipif(not SHIPS.exists(), reason=f"{SHIPS.name} is not here")
def test_ships_are_read_whole() -> None:
    with SHIPS.open("rb") as file:
        records = [record(row) for row in read_csv(file, SHIPS.name, PRESETS["ships"])]
    assert len(records) == 22_287
    assert len({one["device_id"] for one in records}) == 256


class TestCsv:
    def test_a_column_with_a_field_s_name_needs_no_map(self) -> None:
        (row,) = csv_rows("device_id,LAT,fuel\nd,1.5,x\n")
        assert record(row) == {"device_id": "d", "LAT": "1.5", "fuel": "x"}

    def test_columns_of_both_cases_mean_one_field(self) -> None:
        with pytest.raises(SenderError, match="columns 'Latitude' and 'lat' both mean 'latitude'"):
            csv_rows("device_id,Latitude,lat\nd,x,1.5\n")

    def test_an_attribute_can_be_renamed(self) -> None:
        (row,) = csv_rows("device_id,F\nd,3\n", Naming({"fuel": "F"}))
        assert record(row) == {"device_id": "d", "fuel": "3"}

    def test_a_missing_column_is_named_with_its_line(self) -> None:
        with pytest.raises(SenderError, match=r"f\.csv, line 1: no column 'vehicle', which is mapped to 'device_id'"):
            csv_rows("id,lat\n", Naming({"device_id": "vehicle"}))

    @pytest.mark.parametrize("header", ["device_id,time,timestamp", "device_id,lat,latitude", "device_id,a,a"])
    def test_two_columns_for_one_field(self, header: str) -> None:
        with pytest.raises(SenderError, match=r"f\.csv, line 1: columns .* both mean"):
            csv_rows(f"{header}\n1,2,3\n")

    def test_a_mapped_column_beside_one_of_the_field_s_own_name(self) -> None:
        naming = Naming({"timestamp": "t"})
        with pytest.raises(
            SenderError, match="columns 't' and 'time' both mean 'timestamp'; try --map another_name=time"
        ):
            csv_rows("device_id,t,time\n", naming)
        (row,) = csv_rows("device_id,t,time\n1,2,3\n", Naming({"timestamp": "t", "sent_time": "time"}))
        assert record(row) == {"device_id": "1", "timestamp": "2", "sent_time": "3"}

    def test_one_column_for_two_fields(self) -> None:
        with pytest.raises(SenderError, match="cannot map column 'x' twice"):
            csv_rows("x\n", Naming({"device_id": "x", "location": "x"}))

    def test_a_row_of_the_wrong_length_costs_only_itself(self) -> None:
        rows = csv_rows("device_id,lat\na,1\nb\nc,2,3\nd,4\n")
        assert rows[1:3] == [
            Unreadable(3, "1 cells, the header has 2"),
            Unreadable(4, "3 cells, the header has 2"),
        ]
        assert [record(rows[0])["device_id"], record(rows[3])["device_id"]] == ["a", "d"]

    def test_bad_quoting_costs_only_its_row(self) -> None:
        first, second = csv_rows('device_id,lat\n"a"x,1\nb,2\n')
        assert isinstance(first, Unreadable)
        assert first.line == 2
        assert record(second)["device_id"] == "b"

    def test_lines_are_those_of_the_file_with_newlines_in_cells_and_blank_lines(self) -> None:
        rows = csv_rows('device_id,note\na,"one\ntwo"\n\nb,x\n')
        assert [row.line for row in rows] == [2, 5]
        assert record(rows[0])["note"] == "one\ntwo"

    def test_byte_order_mark_and_windows_line_ends(self) -> None:
        (row,) = csv_rows("\ufeffdevice_id,lat\r\ndü,1\r\n")
        assert record(row) == {"device_id": "dü", "lat": "1"}

    def test_a_time_that_is_written_otherwise(self) -> None:
        naming = Naming({"timestamp": "t"}, "%d.%m.%Y %H:%M %z")
        good, empty, bad = csv_rows("device_id,t\na,24.12.2026 12:00 +0100\nb,\nc,soon\n", naming)
        assert record(good)["timestamp"] == "2026-12-24T12:00:00+01:00"
        assert record(empty) == {"device_id": "b"}
        assert isinstance(bad, Unreadable)
        assert bad.reason.startswith("timestamp: time data 'soon' does not match")

    def test_a_time_format_without_a_time(self) -> None:
        with pytest.raises(SenderError, match="no column is the timestamp"):
            csv_rows("device_id,t\n", Naming({}, "%Y"))

    @pytest.mark.parametrize("text", ["", "\n", '"'])
    def test_no_header(self, text: str) -> None:
        with pytest.raises(SenderError, match=r"f\.csv, line 1: "):
            csv_rows(text)

    def test_not_utf8_ends_the_file_by_its_line(self) -> None:
        rows = read_csv(io.BytesIO(b"device_id\na\n\xff\nb\n"), "f.csv", PLAIN)
        assert record(next(rows)) == {"device_id": "a"}
        with pytest.raises(SenderError, match=r"f\.csv, line 3: not UTF-8"):
            next(rows)


class TestNdjson:
    def test_objects_are_sent_as_they_stand(self) -> None:
        text = '{"device_id": "a", "x": 12345678901234567890123.10, "x": 1}'
        assert ndjson_rows(f"\ufeff{text}\r\n\n {text} ") == [Row(1, text.encode()), Row(3, text.encode())]

    @pytest.mark.parametrize("line", [b"5", b"[{}]", b'{"a":1', b'{"a":NaN}', b'{"a":"\xff"}', b'{"\xff":1}', b"{} {}"])
    def test_an_unreadable_line_costs_only_itself(self, line: bytes) -> None:
        rows = list(read_ndjson(io.BytesIO(b"{}\n" + line + b"\n{}\n"), "f", PLAIN))
        assert isinstance(rows[1], Unreadable)
        assert rows[1].line == 2
        assert rows[1].reason.startswith("not a JSON object: ")
        assert [rows[0], rows[2]] == [Row(1, b"{}"), Row(3, b"{}")]

    def test_keys_can_be_mapped_where_they_are(self) -> None:
        first, second = ndjson_rows('{"v": 1.50, "a": [1]}\n{"a": 2}', Naming({"device_id": "v"}))
        assert first == Row(1, b'{"device_id":1.50,"a":[1]}')
        assert second == Row(2, b'{"a":2}')

    def test_a_mapped_key_that_no_line_has(self) -> None:
        rows = read_ndjson(io.BytesIO(b'{"a":1}\n'), "f.ndjson", Naming({"device_id": "v"}))
        next(rows)
        with pytest.raises(SenderError, match=r"f\.ndjson: no line has 'v', which is mapped to 'device_id'"):
            next(rows)

    def test_a_key_mapped_onto_another(self) -> None:
        (row,) = ndjson_rows('{"v": 1, "speed": 2}', Naming({"speed": "v"}))
        assert row == Unreadable(1, "speed: named twice, the second time by 'speed'")

    def test_times(self) -> None:
        naming = Naming({}, "%d/%m/%Y")
        good, none, number = ndjson_rows('{"time":"01/02/2026"}\n{"time":null}\n{"time":5}', naming)
        assert record(good) == {"time": "2026-02-01T00:00:00+00:00"}
        assert record(none) == {"time": None}
        assert isinstance(number, Unreadable)

    def test_an_endless_file_is_read_as_it_comes(self) -> None:
        class Endless(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                buffer[:3] = b"{}\n"
                return 3

        rows = read_ndjson(io.BufferedReader(Endless()), "-", PLAIN)
        assert list(itertools.islice(rows, 3)) == [Row(1, b"{}"), Row(2, b"{}"), Row(3, b"{}")]

    def test_a_line_without_end_is_not_read_to_its_end(self) -> None:
        file = io.BytesIO(b"{}\n" + b"x" * 3 * MAX_LINE_BYTES)
        rows = read_ndjson(file, "f", PLAIN)
        next(rows)
        with pytest.raises(SenderError, match="f, line 2: longer than"):
            next(rows)
        assert file.tell() < 2 * MAX_LINE_BYTES
