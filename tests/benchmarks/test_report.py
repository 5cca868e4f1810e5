"""What benchmarks say: the file's form, what could not be measured, and that each figure is explained."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as suite
from benchmarks import merge, report
from benchmarks.__main__ import PARTS, Part
from benchmarks.report import Finding, Missing, Result
from tests.box import PROJECT

WANTED = (
    *("cpu_msgpack", "cpu_json", "sustained", "append_ratio", "single_http", "single_tcp", "latest_idle"),
    *("latest_busy", "day_10m", "day_100m", "fleet_hour", "export_parquet", "export_csv", "bytes", "compact"),
    *("idle_memory", "scale_devices", "scale_days", "two_cores", "slow_disk"),
)


def test_every_figure_with_an_aim_is_some_parts_and_explained() -> None:
    ids = [name for part in PARTS.values() for name in part.ids]
    assert len(ids) == len(set(ids))
    assert set(WANTED) <= set(ids)
    page = (PROJECT / "docs/performance.md").read_text(encoding="utf-8")
    listed = {name for line in page.splitlines() for name in re.findall(r"^\| `(\w+)`", line)}
    assert set(ids) <= listed
    assert all(f"python -m benchmarks.{name}" in page for name in PARTS)


def test_the_file_has_machine_results_and_what_is_missing(tmp_path: Path) -> None:
    findings: list[Finding] = [
        Result("a", 3, "ms", 2),
        Result("b", 3, "/s", 2, is_floor=True),
        Result("c", 1, "s"),
        Missing("d", "why"),
    ]
    report.write(findings, tmp_path / "found.json", quick=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"] == report.machine()
    assert found["machine"].keys() == {"processor", "cores", "memory_bytes", "system", "python"}
    assert found["quick"] is True
    assert found["results"] == [
        {"id": "a", "value": 3, "unit": "ms", "target": 2, "holds": False},
        {"id": "b", "value": 3, "unit": "/s", "target": 2, "holds": True},
        {"id": "c", "value": 1, "unit": "s"},
    ]
    assert found["missing"] == [{"id": "d", "why": "why"}]


def test_a_part_that_fails_keeps_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(quick: bool) -> Iterator[Finding]:
        yield Result("a", 1, "ms")
        raise TimeoutError(f"quick: {quick}")

    found, is_fine = suite.run(Part(fails, ("a", "b")), True)
    assert found == [Result("a", 1, "ms"), Missing("b", "TimeoutError: quick: True")]
    assert not is_fine
    assert "not measured: b: TimeoutError: quick: True" in capsys.readouterr().out


def test_one_part_of_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "QUICK", merge.Size(4, 3, 2, 3, 1))
    file = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--only", "merge", "--json", str(file)])
    assert suite.main() == 0
    found = json.loads(file.read_text())
    values = {one["id"]: one["value"] for one in found["results"]}
    assert len(values) == len(found["results"])
    assert values["compact_records"] == 3 * 4 * 1_000
    assert 0 < values["bytes"] < values["bytes_as_saved"]
    assert values["compact"] > 0
    assert values["compact_memory"] > 10
    assert [one["target"] for one in found["results"] if one["id"] == "bytes"] == [16]
