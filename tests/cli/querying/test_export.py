"""`whimbrel export`: the API's formats, in files."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from defusedxml.ElementTree import fromstring

from api.formats import FORMATS
from cli.querying.export import COMMAND
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import WhimbrelError
from telemetry.model.record import Sent
from telemetry.model.utc import DAY_US
from tests.api.conftest import record
from tests.api.records.test_export import READERS
from tests.api.stores import MIDNIGHT_US, Stores
from tests.cli.conftest import Run


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    """Three records of a day, of which one is not saved, and one of the day before."""
    found = Stores([shard], archive, connection)
    found.append(*(Sent(device, record(MIDNIGHT_US + n)) for n, device in enumerate("ba")))
    found.append(Sent("a", record(MIDNIGHT_US - DAY_US)))
    found.save()
    found.append(Sent("a", record(MIDNIGHT_US + 5)))
    return found


@pytest.mark.parametrize("kind", READERS)
def test_a_file_is_of_the_format_that_its_ending_says(
    stores: Stores, settings: Settings, call: Run, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / f"out.{FORMATS[kind].suffix}"
    done = call(COMMAND, settings, out, "--json", "--start", "2026-01-10")
    assert (done.status, done.json["records"], done.json["bytes"]) == (0, 3, out.stat().st_size)
    found = READERS[kind](out.read_bytes())
    assert [(row["device_id"], row["timestamp"][-5:]) for row in found] == [
        ("a", "0001Z"),
        ("a", "0005Z"),
        ("b", "0000Z"),
    ]
    assert [one.name for one in tmp_path.iterdir() if "out." in one.name] == [out.name]


@pytest.mark.parametrize("kind", sorted(FORMATS.keys() - READERS.keys()))
def test_tracks_for_maps(stores: Stores, settings: Settings, call: Run, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"out.{FORMATS[kind].suffix}"
    assert call(COMMAND, settings, out, "--json", "--start", "2026-01-10").json["bytes"] == out.stat().st_size
    assert fromstring(out.read_bytes()).tag.endswith(kind)


@pytest.mark.parametrize(("gap", "segments"), [("0.000003", 3), ("0.000004", 2)])
def test_where_segments_end_may_be_said(
    stores: Stores, settings: Settings, call: Run, tmp_path: Path, gap: str, segments: int
) -> None:
    """The device has a record of the day before, and two of the day, 4 µs apart."""
    out = tmp_path / "out.gpx"
    assert call(COMMAND, settings, out, "--device", "a", "--max-gap-s", gap).status == 0
    assert out.read_text().count("<trkseg>") == segments


def test_segments_of_what_has_none(stores: Stores, settings: Settings, call: Run, tmp_path: Path) -> None:
    with pytest.raises(WhimbrelError, match=r"cannot use --max-gap-s with \.csv"):
        call(COMMAND, settings, tmp_path / "out.csv", "--max-gap-s", "60")


def test_the_format_may_be_named(stores: Stores, settings: Settings, call: Run, tmp_path: Path) -> None:
    assert call(COMMAND, settings, tmp_path / "out.txt", "--format", "ndjson", "--device", "b").status == 0
    assert len(READERS["ndjson"]((tmp_path / "out.txt").read_bytes())) == 1


def test_an_ending_that_says_nothing_is_refused(stores: Stores, settings: Settings, call: Run, tmp_path: Path) -> None:
    with pytest.raises(WhimbrelError, match=r"let its name end in .*\.csv"):
        call(COMMAND, settings, tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("kind", READERS)
def test_standard_output(
    stores: Stores, settings: Settings, capfdbinary: pytest.CaptureFixture[bytes], kind: str
) -> None:
    """Also of formats that are no text; the last line goes to standard error."""
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    assert COMMAND.run(parser.parse_args(["-", "--format", kind, "--start", "2026-01-10"]), settings) == 0
    out, err = capfdbinary.readouterr()
    assert (len(READERS[kind](out)), err) == (3, b"3 records\n")


def test_standard_output_has_no_ending(stores: Stores, settings: Settings, call: Run) -> None:
    with pytest.raises(WhimbrelError, match="cannot export to standard output: say --format"):
        call(COMMAND, settings, "-")


def test_a_reader_of_standard_output_that_leaves(stores: Stores, settings: Settings) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environ = {"WHIMBREL__REDIS__URL": settings.redis.url, "WHIMBREL__DATA__DIR": str(settings.data_dir), **os.environ}
    command = [sys.executable, "-m", "cli.main", "export", "-", "--format", "ndjson"]
    try:
        done = subprocess.run(command, env=environ, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
