"""This release with the data folder of an earlier one: tests/data/old_box."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cli.redis_server.command import find
from telemetry.archive.schema import LAYOUT
from telemetry.archive.table import Archive, layout_of_table
from telemetry.config.loader import load
from telemetry.model.errors import ConfigError
from tests.box import PROJECT, Box
from tests.senders import post, reasons

STORED = PROJECT / "tests" / "data" / "old_box"
SAVED, WAITING = range(1, 21), range(21, 31)


def altitudes(box: Box) -> list[int]:
    """The values that identify its records, of both devices."""
    found = [
        record
        for device in ("van 0", "van 1")
        for record in box.http.get("/v1/records", params={"device_id": device}).json()["records"]
    ]
    assert len({record["id"] for record in found}) == len(found)
    assert {record["attributes"]["fuel"] for record in found if record["altitude_m"] < 31} == {'half "full"'}
    return sorted(int(record["altitude_m"]) for record in found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_all_that_an_old_box_had_is_there_once_and_new_records_are_saved(kind: str, tmp_path: Path) -> None:
    never = "1000000000"  # is anything merged
    box = Box(tmp_path, persist__flush_seconds="3600", data__min_free_bytes="0", archive__quiet_seconds=never)
    box.data.mkdir()
    subprocess.run(["tar", "-xJf", STORED / f"{kind}.tar.xz", "-C", box.data], check=True)
    box.environ.pop("WHIMBREL__REDIS__SERVER", None)
    try:
        find(load(environ={"WHIMBREL__DATA__DIR": str(box.data)}))
    except ConfigError as error:
        pytest.skip(str(error))
    archive = Archive(box.data / "archive")
    before = archive.files(archive.open())
    with box:
        assert reasons(box) == []
        assert layout_of_table(archive.open(), unwritten=0) == LAYOUT
        assert archive.files(archive.open()) == before, "no file was rewritten"
        assert altitudes(box) == [*SAVED, *WAITING]
        assert box.json("status")["unsaved_records"] == len(WAITING)
        assert box.http.get("/v1/devices/van 0/latest").json()["altitude_m"] == 26
        assert post(box, 31, device="van 0").status_code == 202
        assert box.json("drain") == {"saved": len(WAITING) + 1}
        assert altitudes(box) == [*SAVED, *WAITING, 31]
        box.json("compact", "--all")
        assert altitudes(box) == [*SAVED, *WAITING, 31]
        made = box.json("backup", str(tmp_path / "backups"))
        assert (made["saved_records"], made["unsaved_records"]) == (31, 0)
        assert box.stop() == 0
