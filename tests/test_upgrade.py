"""Upgrades on the same data: to a next release, made by adding a column to this one's source, and back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from telemetry.archive.table import LAYOUT_KEY, Archive
from tests.box import PROJECT, Box
from tests.senders import post

SOURCES = ("api", "cli", "collector", "compactor", "telemetry", "worker")

NEXT = {
    "telemetry/archive/schema.py": [
        ("LAYOUT = 1\n", "LAYOUT = 2\n"),
        ('("attributes", pa.string()),', '("attributes", pa.string()),\n        ("satellites", pa.int64()),'),
    ],
    "telemetry/hot_store/function_library.py": [("LAYOUT = 1\n", "LAYOUT = 2\n")],
    "telemetry/model/record.py": [
        ("    attributes: str | None = None\n", "    attributes: str | None = None\n    satellites: int | None = 9\n")
    ],
    "api/responses/record_schema.py": [("    raw = None if row[-1]", "    row = row[:-1]\n    raw = None if row[-1]")],
    "api/responses/json_columns.py": [
        ("*others, attributes = records.columns", "*others, attributes, _ = records.columns")
    ],
}
"""Changes of the next release: records have one more value, default 9; it is not in JSON."""


def next_release(folder: Path) -> Path:
    """Its source."""
    for name in SOURCES:
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Procfile", "config.toml"):
        shutil.copy(PROJECT / name, folder / name)
    for name, changes in NEXT.items():
        text = (folder / name).read_text()
        for old, new in changes:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (folder / name).write_text(text)
    return folder


class Releases:
    """A box that both releases run on."""

    def __init__(self, folder: Path) -> None:
        self.source = next_release(folder / "next")
        self.now = Box(folder, persist__flush_seconds="3600", data__min_free_bytes="0")
        self.next = Box(folder, cwd=self.source)
        self.next.http.close()
        self.next.environ, self.next.http = self.now.environ, self.now.http
        self.next.http_port = self.now.http_port


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    found = Releases(tmp_path)
    yield found
    found.now.http.close()
    found.now.kill()
    found.next.kill()


def altitudes(box: Box) -> list[int]:
    answer = box.http.get("/v1/records", params={"device_id": "a"})
    assert answer.status_code == 200, (answer.text, box.output[-30:])
    found = answer.json()["records"]
    return sorted(int(record["altitude_m"]) for record in found)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_next_release_adds_a_column_and_this_one_refuses_to_start_after_it(releases: Releases) -> None:
    now, archive = releases.now, Archive(releases.now.data / "archive")
    now.start()
    assert post(now, 1).status_code == 202
    now.json("drain")
    assert post(now, 2).status_code == 202
    now.stop()
    table = archive.open()
    before, version = archive.files(table), table.version()

    releases.next.start()
    assert altitudes(releases.next) == [1, 2]
    assert post(releases.next, 3).status_code == 202
    releases.next.json("drain")
    assert altitudes(releases.next) == [1, 2, 3]
    upgraded = DeltaTable(str(archive.root))
    assert upgraded.metadata().configuration[LAYOUT_KEY] == "2"
    assert set(before) < set(archive.files(upgraded)), "no file was rewritten"
    connection = duckdb.connect()
    rows = "SELECT altitude_m, satellites FROM {} ORDER BY 1"
    listed = releases.next.whimbrel("files", "--sql").stdout
    assert connection.execute(rows.format(listed)).fetchall() == [(1, None), (2, 9), (3, 9)]
    releases.next.json("compact", "--all")
    merged = DeltaTable(str(archive.root)).file_uris()
    assert len(merged) == 1
    assert connection.execute(rows.format(f"'{merged[0]}'")).fetchall() == [(1, None), (2, 9), (3, 9)]
    assert upgraded.version() > version + 1
    assert any("added columns: satellites" in line for line in releases.next.output)
    releases.next.stop()

    start = len(now.output)
    with pytest.raises(AssertionError, match="layout"):
        now.start()
    said = "".join(now.output[start:])
    assert "whimbrel up: cannot start: the " in said
    assert " has layout 2, and this release of Whimbrel, 0.1.0, knows layouts up to 1; a newer release wrote " in said
    done = now.whimbrel("compact")
    assert (done.returncode, "cannot start: the archive" in done.stderr) == (1, True)
    assert DeltaTable(str(archive.root)).file_uris() == merged
    releases.next.start()
    assert altitudes(releases.next) == [1, 2, 3]
