"""`whimbrel import`: files of each kind into the archive, once, whatever is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import redis

from cli.imports.command import COMMAND
from cli.querying.export import COMMAND as EXPORT
from telemetry.archive.table import Archive
from telemetry.codec import typed_decoder
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.entry_codec import decode_latest, pack
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import SenderError, StoreUnavailable
from telemetry.model.record import Record, Sent
from telemetry.startup.store_setup import apart, set_up
from telemetry.system import clock
from tests.cli.conftest import Run
from tests.cli.imports_files import GPX, dump
from tests.conftest import RedisServer, settings_of
from worker.saving.saver import Saver

CSV = """\
device_id,timestamp,lat,lon,speed,fuel
a,2026-03-01T00:00:00Z,41,29,50,5
b,2026-03-02 00:00:01,41.5,29.5,,
c,nonsense,1,2,3,4
a,2026-03-01T00:00:01Z,95,29,50,5
"""

MOMENT_US = 1_772_323_200_000_000
Stored = list[dict[str, Any]]


@pytest.fixture
def stored(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Any:
    """A function that reads all records of the archive, in the order of their ids."""

    def read() -> Stored:
        table = archive.open_existing()
        files = archive.files(table) if table is not None else []
        if not files:
            return []
        found = connection.execute(
            "SELECT * REPLACE (strftime(make_timestamp(epoch_us(timestamp)), '%Y-%m-%dT%H:%M:%S.%f') AS timestamp, "
            "epoch_us(received_at) AS received_at) FROM read_parquet($1, hive_partitioning = false) ORDER BY id",
            [files],
        )
        names = [column[0] for column in found.description or ()]
        return [
            {name: value for name, value in zip(names, row, strict=True) if value is not None}
            for row in found.fetchall()
        ]

    return read


def content(rows: Stored) -> Stored:
    """Without what a record gets on its arrival."""
    return [{name: value for name, value in row.items() if name not in ("id", "received_at")} for row in rows]


def write(folder: Path, text: str | bytes, name: str = "records.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_good_rows_come_in_and_bad_ones_are_named(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    done = call(COMMAND, settings, write(tmp_path, CSV), "--rejects", tmp_path / "bad.ndjson", "--json")
    assert (done.status, done.json["imported"], done.json["refused"], done.json["days"]) == (1, 2, 2, 2)
    assert content(stored()) == [
        {
            "device_id": "a",
            "timestamp": "2026-03-01T00:00:00.000000",
            "transport": "import",
            "source": "csv",
            "latitude": 41.0,
            "longitude": 29.0,
            "speed_kmh": 50.0,
            "attributes": '{"fuel":"5"}',
        },
        {
            "device_id": "b",
            "timestamp": "2026-03-02T00:00:01.000000",
            "transport": "import",
            "source": "csv",
            "latitude": 41.5,
            "longitude": 29.5,
        },
    ]
    assert "records.csv, line 4: timestamp: must be ISO 8601" in done.err
    assert "records.csv, line 5: latitude: must be between -90 and 90" in done.err
    bad = [json.loads(line) for line in (tmp_path / "bad.ndjson").read_text().splitlines()]
    assert [(one["where"], one["row"]["device_id"]) for one in bad] == [("line 4", "c"), ("line 5", "a")]


def test_a_second_time_adds_nothing_until_it_is_told_to(
    settings: Settings, call: Run, stored: Any, tmp_path: Path
) -> None:
    file = write(tmp_path, CSV)
    assert call(COMMAND, settings, file).out.startswith(
        "2 imported, 0 already there, 2 refused, 2 days from 2026-03-01"
    )
    again = call(COMMAND, settings, write(tmp_path, CSV, "another name.csv"))
    assert (again.status, again.out.partition(":")[0]) == (0, "nothing imported")
    assert call(COMMAND, settings, file, "--json").json["imported"] == 0
    assert len(stored()) == 2
    assert call(COMMAND, settings, file, "--again", "--json").json["imported"] == 2
    assert call(COMMAND, settings, file, "--json").json["imported"] == 0
    assert len(stored()) == 4


def test_other_options_are_refused(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    """The same rows would be there in two ways."""
    file = write(tmp_path, CSV)
    call(COMMAND, settings, file)
    with pytest.raises(SenderError, match=r"other options, as .*\.json says"):
        call(COMMAND, settings, file, "--speed-unit", "knots")
    assert call(COMMAND, settings, file, "--speed-unit", "knots", "--again", "--json").json["imported"] == 2
    assert [round(row["speed_kmh"], 1) for row in stored() if "speed_kmh" in row] == [50.0, 92.6]


def test_latest_is_the_newest(settings: Settings, shard: Shard, call: Run, tmp_path: Path) -> None:
    call(COMMAND, settings, write(tmp_path, CSV))
    older = "device_id,timestamp,lat,lon\nb,2026-03-01 00:00:00,1,2\n"
    call(COMMAND, settings, write(tmp_path, older, "older.csv"))
    [found] = shard.latest([b"b"])
    newest = decode_latest(found or b"").newest
    assert newest is not None
    assert newest.stored("b").record.latitude == 41.5


def test_whoever_watches_latest_hears_what_changed(settings: Settings, shard: Shard, call: Run, tmp_path: Path) -> None:
    with shard.client.pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(shared_state.CHANGED)
        listener.get_message(timeout=5)
        file = write(tmp_path, CSV)
        call(COMMAND, settings, file)
        heard = listener.get_message(timeout=5)
        assert sorted((heard or {})["data"].split(b"\0")) == [b"a", b"b"]
        call(COMMAND, settings, write(tmp_path, "device_id,time\na,2026-02-01\nb,2026-04-01\n", "more.csv"))
        heard = listener.get_message(timeout=5)
        assert (heard or {})["data"] == b"b", "what is older changes nothing"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (
            "imei;when;v\nx;01/03/2026 12:00;10\n",
            ("--map", "device_id=imei,timestamp=when,speed_knots=v", "--time-format", "%d/%m/%Y %H:%M"),
            {"device_id": "x", "timestamp": "2026-03-01T12:00:00.000000", "speed_kmh": 18.52},
        ),
        (
            "imei\twhen\tv\nx\t2026-03-01 12:00:00\t10\n",
            ("--map", "device_id=imei", "--map", "timestamp=when,speed_ms=v", "--timezone", "Europe/Istanbul"),
            {"device_id": "x", "timestamp": "2026-03-01T09:00:00.000000", "speed_kmh": 36.0},
        ),
        (
            "time,lat,lon,what\n2026-03-01T12:00:00+03:00,1,2,x\n",
            ("--device", "boat", "--timezone", "Asia/Tokyo", "--only-mapped"),
            {"device_id": "boat", "timestamp": "2026-03-01T09:00:00.000000", "latitude": 1.0, "longitude": 2.0},
        ),
        (
            "time|device_id\n1772366400123456789|x\n",
            ("--time-format", "epoch_ns"),
            {"device_id": "x", "timestamp": "2026-03-01T12:00:00.123457"},
        ),
        (
            'device_id,time,location,note\nx,1772366400,"Bay, 2\nPier","say ""hi"""\n',
            (),
            {
                "device_id": "x",
                "timestamp": "2026-03-01T12:00:00.000000",
                "location": "Bay, 2\nPier",
                "attributes": '{"note":"say \\"hi\\""}',
            },
        ),
        (
            "\ufeffdevice_id:time\nx:1772366400\n",
            ("--delimiter", ":"),
            {"device_id": "x", "timestamp": "2026-03-01T12:00:00.000000"},
        ),
        (
            'device_id,time,attributes\nx,1772366400,"{""n"": 12345678901234567890, ""deep"": {""a"": [1]}}"\n',
            (),
            {
                "device_id": "x",
                "timestamp": "2026-03-01T12:00:00.000000",
                "attributes": '{"n":12345678901234567890,"deep":{"a":[1]}}',
            },
        ),
    ],
    ids=["knots and a form of time", "a zone", "no device", "nanoseconds", "quotes", "a mark and colons", "attributes"],
)
def test_what_columns_mean(
    settings: Settings, call: Run, stored: Any, tmp_path: Path, text: str, options: tuple[str, ...], expected: object
) -> None:
    done = call(COMMAND, settings, write(tmp_path, text), *options)
    assert done.status == 0, done.err
    assert content(stored()) == [{**expected, "transport": "import", "source": "csv"}]  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("a,b\n1,2\n", ("--map", "device_id=imei"), "no column 'imei', which is mapped to 'device_id'"),
        ("lat,latitude\n1,2\n", (), "both mean 'latitude'"),
        ("speed,v\n1,2\n", ("--map", "speed_knots=v"), "both mean 'speed_kmh'"),
        ("", (), "no header"),
        ('"a,b\n', (), "line 1"),
        ("a,b\n" + "x" * 2**20 + "\n", (), "line 2: longer than"),
    ],
)
def test_a_file_that_can_not_be_read_says_why(
    settings: Settings, shard: Shard, call: Run, tmp_path: Path, text: str, options: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(SenderError, match=reason):
        call(COMMAND, settings, write(tmp_path, text), *options)


def test_bytes_that_are_no_text_cost_their_row_alone(
    settings: Settings, call: Run, stored: Any, tmp_path: Path
) -> None:
    file = write(tmp_path, b"device_id,time,note\nx,1772366400,caf\xe9\ny,1772366400,ok\n")
    done = call(COMMAND, settings, file, "--rejects", tmp_path / "bad", "--json")
    assert (done.json["imported"], done.json["refused"]) == (1, 1)
    assert json.loads((tmp_path / "bad").read_bytes())["where"] == "line 2"
    assert call(COMMAND, settings, file, "--again", "--encoding", "latin-1").status == 0
    assert [row["attributes"] for row in stored()] == ['{"note":"ok"}', '{"note":"café"}', '{"note":"ok"}']


def test_it_may_be_compressed(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    file = write(tmp_path, gzip.compress(CSV.encode()), "records.csv.gz")
    assert call(COMMAND, settings, file, "--json").json["imported"] == 2
    with pytest.raises(SenderError, match=r"cannot read .*short\.csv\.gz on"):
        call(COMMAND, settings, write(tmp_path, gzip.compress(CSV.encode())[:-9], "short.csv.gz"))


NDJSON = [
    b'{"device_id":"a","timestamp":"2026-03-01T00:00:00Z","lat":41,"lon":29,"ignition":true}',
    b"",
    b'{"device_id":"b","timestamp":1772366400,"speed":10,"n":12345678901234567890}',
    b'{"device_id":"b"}',
    b"[]",
    b"{",
    b'{"device_id":"\xff"}',
]


@pytest.mark.parametrize("repeated", [1, 1_500], ids=["few", "so many that their shape is known"])
def test_lines_of_json(settings: Settings, call: Run, stored: Any, tmp_path: Path, repeated: int) -> None:
    file = write(tmp_path, b"\n".join(NDJSON[:1] * repeated + NDJSON[1:] + NDJSON[:1] * repeated), "records.ndjson")
    done = call(COMMAND, settings, file, "--rejects", tmp_path / "bad", "--json")
    assert (done.json["imported"], done.json["refused"]) == (2 * repeated + 1, 4)
    lines = [json.loads(line)["where"] for line in (tmp_path / "bad").read_bytes().splitlines()]
    assert lines == [f"line {repeated + n}" for n in (3, 4, 5, 6)]
    found = content(stored())
    assert found[repeated]["attributes"] == '{"n":12345678901234567890}'
    assert found[repeated]["speed_kmh"] == 10
    assert found[0] == found[-1]
    assert found[0]["attributes"] == '{"ignition":true}'
    assert {row["transport"] for row in found} == {"import"}


def test_names_of_json_are_mapped_too(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    file = write(tmp_path, b'{"imei":"x","t":"2026-03-01","q":1}\n{"imei":"y","t":"2026-03-02"}\n', "a.jsonl")
    assert call(COMMAND, settings, file, "--map", "device_id=imei,timestamp=t", "--only-mapped").status == 0
    assert [(row["device_id"], "attributes" in row) for row in stored()] == [("x", False), ("y", False)]
    with pytest.raises(SenderError, match="no line has 'nowhere'"):
        call(COMMAND, settings, write(tmp_path, b"{}", "b.jsonl"), "--map", "device_id=nowhere")


def test_a_dry_run_shows_records_and_imports_nothing(
    settings: Settings, call: Run, stored: Any, tmp_path: Path
) -> None:
    done = call(COMMAND, settings, write(tmp_path, CSV), "--dry-run")
    assert done.status == 1
    assert json.loads(done.lines[0]) == {
        "device_id": "a",
        "timestamp": "2026-03-01T00:00:00.000000Z",
        "transport": "import",
        "source": "csv",
        "latitude": 41.0,
        "longitude": 29.0,
        "speed_kmh": 50.0,
        "attributes": {"fuel": "5"},
    }
    assert len(done.lines) == 2
    assert "line 5: latitude" in done.err
    assert stored() == []


def test_a_box_that_does_not_run_is_said(call: Run, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"the box does not run: .*`whimbrel up` starts it"):
        call(COMMAND, settings_of(f"unix://{tmp_path}/none", tmp_path), write(tmp_path, CSV))


def records() -> list[Sent]:
    """Of each kind of value one that is easily lost."""
    more = {"ignition": True, "big": 12345678901234567890, "deep": {"a": [1, None, "ü\n"]}, "half": 0.1}
    return [
        Sent(
            "a", Record(MOMENT_US + 1, "http", "json", 41.123456789012, -29.1, -0.0, 1e-7, 359.9, 5.5, 'Bay, 2\n"Pier"')
        ),
        Sent("a", Record(MOMENT_US, "tcp", "older", location=" 41.0, x ")),
        Sent("=b,;", Record(MOMENT_US + 86_400_000_000, "udp", "teltonika", 1 / 3, 2 / 3, attributes=json.dumps(more))),
        Sent("c", Record(MOMENT_US, "mqtt", "json", attributes='{"fix":false,"lat":"abc","id":7}')),
        Sent("d", Record(MOMENT_US, "import", "csv", altitude_m=1.7976931348623157e308)),
    ]


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_what_was_exported_comes_back_as_it_was(
    shard: Shard,
    archive: Archive,
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    call: Run,
    stored: Any,
    tmp_path: Path,
    kind: str,
) -> None:
    append_batches(shard, [Batch(pack(records()))], Limits())
    Saver(archive, connection, clock.now_ms).save(shard)
    before, file = stored(), tmp_path / f"out.{kind}"
    assert call(EXPORT, settings, file).status == 0
    done = call(COMMAND, settings, file, "--json")
    assert (done.json["imported"], done.status) == (len(records()), 0), done.err
    added = stored()[len(before) :]

    def plain(rows: Stored) -> Stored:
        for row in rows:
            row["attributes"] = json.loads(row.get("attributes", "null"))
        return sorted(content(rows), key=lambda row: (row["device_id"], row["timestamp"]))

    assert plain(added) == plain(before)


def test_a_dump_fills_both_sets(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    http = [(n, f"van {n % 3}", f"2026-03-01 00:00:{n:02}.500000", "Izmir", n + 0.25) for n in range(50)]
    file = write(tmp_path, gzip.compress(dump(http, http[:10]).encode()), "older.sql.gz")
    assert call(COMMAND, settings, file, "--json").json["imported"] == 60
    assert [row["transport"] for row in stored()] == ["http"] * 50 + ["tcp"] * 10
    assert call(COMMAND, settings, file, "--json").json["imported"] == 0


def test_gpx_of_a_named_device(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    done = call(COMMAND, settings, write(tmp_path, GPX, "trip.gpx"), "--device", "boat", "--json")
    assert (done.json["imported"], done.json["refused"]) == (3, 2)


def test_traccars_positions_are_known(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    text = (
        "id,protocol,deviceid,servertime,devicetime,fixtime,valid,latitude,longitude,altitude,speed,course,address,"
        "attributes,accuracy,network\n"
        "7,teltonika,3,2026-03-01 00:00:02,2026-03-01 00:00:01,2026-03-01 00:00:01,1,41,29,7,10,90,,"
        '"{""ignition"":true,""io239"":1}",0,null\n'
    )
    done = call(COMMAND, settings, write(tmp_path, text), "--preset", "traccar")
    assert done.status == 0, done.err
    [row] = content(stored())
    assert (row["device_id"], row["speed_kmh"], row["heading_deg"]) == ("3", 18.52, 90.0)
    assert json.loads(row["attributes"]) == {
        "ignition": True,
        "io239": 1,
        "protocol": "teltonika",
        "servertime": "2026-03-01 00:00:02",
        "devicetime": "2026-03-01 00:00:01",
        "valid": "1",
        "network": "null",
    }


def test_a_file_that_breaks_off_tells_what_came_in(
    settings: Settings, call: Run, stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.imports.batches.BATCH_ROWS", 1_000)
    monkeypatch.setattr("cli.imports.batches.DAY_ROWS", 0)
    lines = [f"a,{1772366400 + n}\n" for n in range(2_500)]
    file = write(tmp_path, "device_id,time\n" + "".join(lines) + "x" * 2**21)
    with pytest.raises(SenderError, match=r"line 2502: longer than .*; 2000 of its rows are imported"):
        call(COMMAND, settings, file)
    assert len(stored()) == 2_000


def test_each_shard_has_its_own_records(
    shared_redis: RedisServer, client: redis.Redis, call: Run, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    settings = settings_of(shared_redis.url, tmp_path, redis__shards="3")
    archive = Archive(settings.archive_dir)
    shards = set_up(client, archive, 3)
    file = write(tmp_path, "device_id,time\n" + "".join(f"d{n},{1772366400 + n}\n" for n in range(100)))
    assert call(COMMAND, settings, file, "--json").json["imported"] == 100
    assert call(COMMAND, settings, file, "--json").json["imported"] == 0
    ids = connection.execute(
        "SELECT id % 3, device_id FROM read_parquet($1)", [archive.files(archive.open())]
    ).fetchall()
    assert len(ids) == 100
    assert all(shard_of(device, 3) == number for number, device in ids)
    assert sum(shard.devices() for shard in shards) == 100
    assert [apart(shard, archive) for shard in shards] == [None] * 3


def test_an_ending_that_says_nothing_is_refused(settings: Settings, shard: Shard, call: Run, tmp_path: Path) -> None:
    with pytest.raises(SenderError, match=r"name it with --format"):
        call(COMMAND, settings, write(tmp_path, CSV, "records.txt"))
    assert call(COMMAND, settings, tmp_path / "records.txt", "--format", "csv", "--json").json["imported"] == 2


# What columns became ---------------------------------------------------------------------------------


def test_the_summary_says_what_columns_became(settings: Settings, call: Run, stored: Any, tmp_path: Path) -> None:
    text = "Device_ID,Timestamp,Latitude,Longitude,kn,Fuel,note\na,2026-03-01T00:00:00Z,41,29,10,5,x\n"
    file, options = write(tmp_path, text), ("--map", "speed_knots=kn")
    assert "Latitude -> latitude" in call(COMMAND, settings, file, "--dry-run", *options).err
    done = call(COMMAND, settings, file, *options)
    import_id = json.loads(call(COMMAND, settings, "--list", "--json").out)["id"]
    assert done.out.splitlines()[1:] == [
        "fields: Device_ID -> device_id, Timestamp -> timestamp, Latitude -> latitude, Longitude -> longitude, "
        "kn -> speed_kmh",
        "attributes: Fuel, note",
        f"to take it back: whimbrel import --undo {import_id}",
    ]
    assert "warning" not in done.err
    [row] = stored()
    assert (row["latitude"], row["longitude"], row["attributes"]) == (41, 29, '{"Fuel":"5","note":"x"}')


@pytest.mark.parametrize("name", ["records.ndjson", "records.json"])
def test_the_summary_of_json(
    settings: Settings, shard: Shard, call: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"device_id": "a", "Time": 1772323200 + n, "lat": 1, "lon": 2, f"x{n // 1500}": 1} for n in range(3_000)]
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    done = call(COMMAND, settings, write(tmp_path, text, name), "--only-mapped", "--json")
    fields = {"device_id": "device_id", "Time": "timestamp", "lat": "latitude", "lon": "longitude"}
    assert (done.json["columns"], done.json["attributes"], done.json["left_out"]) == (fields, [], ["x0", "x1"])
    monkeypatch.setattr(typed_decoder, "_known", {})  # another process knows none
    done = call(COMMAND, settings, tmp_path / name, "--again", "--json")
    assert (done.json["columns"], done.json["attributes"], done.json["warnings"]) == (fields, ["x0", "x1"], [])


def test_an_own_export_says_what_is_left_out(
    settings: Settings, shard: Shard, archive: Archive, call: Run, tmp_path: Path
) -> None:
    call(COMMAND, settings, write(tmp_path, CSV))
    table = archive.open_existing()
    assert table is not None
    done = call(COMMAND, settings, Path(archive.files(table)[0]), "--json")
    assert done.json["columns"].keys() >= {"device_id", "transport", "source", "latitude"}
    assert sorted(done.json["left_out"]) == ["id", "received_at"]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "device_id,time,y,lon\na,2026-03-01,1,2\n",
            "no record has a position: no column became latitude; name it with --map latitude=COLUMN",
        ),
        ("device_id,time,lat,lon\na,2026-03-01,,\n", "no record has a position"),
        (
            "device_id,when,lat,lon\na,2026-03-01,1,2\n",
            "no row has a time: no column became timestamp; name it with --map timestamp=COLUMN",
        ),
    ],
)
def test_an_import_warns_of_what_all_rows_lack(
    settings: Settings, shard: Shard, call: Run, tmp_path: Path, text: str, warning: str
) -> None:
    file = write(tmp_path, text)
    for options in (("--dry-run",), ("--quiet",)):
        assert f"warning: {warning}" in call(COMMAND, settings, file, *options).err
    assert call(COMMAND, settings, file, "--again", "--json").json["warnings"] == [warning]


# Taking one back -------------------------------------------------------------------------------------


def test_an_import_is_listed_and_taken_back(
    settings: Settings, shard: Shard, call: Run, stored: Any, tmp_path: Path
) -> None:
    file, other = write(tmp_path, CSV), write(tmp_path, "device_id,time,lat,lon\na,2026-02-01,1,2\n", "other.csv")
    call(COMMAND, settings, other)
    first = call(COMMAND, settings, file, "--json").json["id"]
    listed = [json.loads(line) for line in call(COMMAND, settings, "--list", "--json").out.splitlines()]
    assert [(one["records"], one["state"], Path(one["file"]).name) for one in listed] == [
        (1, "whole", "other.csv"),
        (2, "whole", "records.csv"),
    ]
    assert listed[1]["id"] == first
    assert f"{first}  {listed[1]['begun']}  2 records  whole  " in call(COMMAND, settings, "--list").out
    done = call(COMMAND, settings, "--undo", first)
    assert done.out == f"2 records of import {first} are gone, of 2 files; latest of 2 devices changed\n"
    assert [(row["device_id"], row["latitude"]) for row in stored()] == [("a", 1)]
    assert decode_latest(shard.latest([b"a"])[0] or b"").newest is not None
    assert shard.latest([b"b"]) == [None]
    listed = [json.loads(line) for line in call(COMMAND, settings, "--list", "--json").out.splitlines()]
    assert [one["state"] for one in listed] == ["whole", "undone"]
    assert call(COMMAND, settings, "--undo", first, "--json").json == {
        "id": first,
        "records": 0,
        "files": 0,
        "devices": 0,
    }


@pytest.mark.parametrize("rows", ["", "b,never,1,2\n"], ids=["no row", "a bad row"])
def test_an_import_of_no_record_is_not_listed_as_whole(
    settings: Settings, shard: Shard, call: Run, tmp_path: Path, rows: str
) -> None:
    done = call(COMMAND, settings, write(tmp_path, f"device_id,time,lat,lon\n{rows}"))
    assert "0 imported" in done.out
    assert "--undo" not in done.out
    listed = call(COMMAND, settings, "--list", "--json").json
    assert (listed["records"], listed["state"]) == (0, "nothing imported")
    assert "  0 records  nothing imported  " in call(COMMAND, settings, "--list").out


def test_a_file_that_was_taken_back_is_imported_again(
    settings: Settings, call: Run, stored: Any, tmp_path: Path
) -> None:
    file = write(tmp_path, CSV)
    first = call(COMMAND, settings, file, "--json").json["id"]
    call(COMMAND, settings, file, "--undo")
    assert stored() == []
    again = call(COMMAND, settings, file, "--speed-unit", "knots", "--json").json
    assert (again["imported"], again["id"]) == (2, first.replace("-0", "-1")), "with whatever options"
    assert call(COMMAND, settings, file, "--speed-unit", "knots", "--json").json["imported"] == 0
    call(COMMAND, settings, "--undo", first)
    assert len(stored()) == 2, "the first one has gone already"
    call(COMMAND, settings, "--undo", again["id"])
    assert stored() == []


def test_an_import_that_is_not_known_is_not_taken_back(
    settings: Settings, shard: Shard, call: Run, tmp_path: Path
) -> None:
    with pytest.raises(SenderError, match="there is no import 'nosuch'; `whimbrel import --list` lists them"):
        call(COMMAND, settings, "--undo", "nosuch")
    with pytest.raises(SenderError, match="there is no import"):
        call(COMMAND, settings, write(tmp_path, CSV), "--undo")
    with pytest.raises(SenderError, match="cannot undo: no import is named"):
        call(COMMAND, settings, "--undo")
    with pytest.raises(SenderError, match="no FILE is named"):
        call(COMMAND, settings)
    assert call(COMMAND, settings, "--list").out == ""
