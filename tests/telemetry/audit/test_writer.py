"""The audit log's files: many writers, rotation, torn lines, a disk that is full, and reading them in order."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from telemetry.audit import refusals
from telemetry.audit.entry import ANONYMOUS, MAX_LINE_BYTES, Actor, Entry, line_of, moment
from telemetry.audit.reader import Wanted, entries
from telemetry.audit.settings_changes import record
from telemetry.audit.writer import Audit, AuditFile, closed
from telemetry.config.settings import PROJECT, Api, AuditSection, Auth, CourierSection, Data, Settings
from telemetry.model import problems
from telemetry.model.errors import AuditError

KEY = "wk_abcdefgh_" + "a" * 26


def of(folder: Path, **more: Any) -> Settings:
    return Settings(data=Data(dir=str(folder)), **more)


def read(folder: Path, **wanted: str) -> list[Entry]:
    return list(entries(folder / "audit", Wanted(**wanted)))


# One line --------------------------------------------------------------------------------------------


def entry(**more: Any) -> Entry:
    return Entry("2026-12-02T08:50:00.000000Z", "0123456789abcdef", "api", "sql", "begun", ANONYMOUS, **more)


@pytest.mark.parametrize("text", ["x" * 100_000, '\x1b[2J\n"\\' * 1_000, "\ud800" * 600, "☃" * 3_000, "\0" * 5_000])
def test_a_line_is_bounded_whatever_senders_choose(text: str) -> None:
    line = line_of(entry(device=text, target=text, address=text, details={"query": text, "more": text}))
    assert len(line) <= MAX_LINE_BYTES
    assert line.count(b"\n") == 1
    assert json.loads(line)["outcome"] == "begun"
    assert b"\x1b" not in line


def test_no_key_is_in_a_line() -> None:
    line = line_of(entry(target=f"GET /{KEY}", details={"query": f"SELECT '{KEY}'"}))
    assert b"aaaa" not in line
    assert b"wk_abcdefgh_***" in line


# Files -----------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from telemetry.audit.writer import AuditFile
from telemetry.audit.entry import ANONYMOUS, Entry, line_of, moment, new_id
import time
file = AuditFile(Path(sys.argv[1]), "api-changes", 20_000, 1_000)
for number in range(200):
    entry = Entry(moment(time.time()), new_id(), "api", f"{sys.argv[2]}.{number}", "done", ANONYMOUS)
    file.append(line_of(entry), False)
"""


def test_several_processes_append_and_rotate_without_a_loss(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), f"p{number}"], cwd=PROJECT) for number in range(3)
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    found = read(tmp_path)
    assert len(closed(folder, "api-changes")) > 1
    assert sorted(one.action for one in found) == sorted(f"p{n}.{m}" for n in range(3) for m in range(200))
    assert all(path.stat().st_size <= 20_000 for path in folder.iterdir())
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_the_oldest_closed_file_is_deleted(tmp_path: Path) -> None:
    file = AuditFile(tmp_path, "api-refusals", 100, 3)
    for number in range(20):
        file.append(f"{number:<60}\n".encode(), False)
    assert [path.read_text().split()[0] for path in closed(tmp_path, "api-refusals")] == ["16", "17", "18"]


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    audit = Audit.of(of(tmp_path), "api")
    audit.begin("a", ANONYMOUS)
    with (tmp_path / "audit" / "api-changes.ndjson").open("ab") as file:
        file.write(b'{"at":"2026-12-02T')
    audit.begin("b", ANONYMOUS)
    assert [one.action for one in read(tmp_path)] == ["a", "b"]


def test_a_full_disk_leaves_no_half_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit.of(of(tmp_path), "api")
    begun = audit.begin("a", ANONYMOUS)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: write(file, line[:10]))
        with pytest.raises(AuditError, match=r"cannot record b in the audit log: No space left on device"):
            audit.begin("b", ANONYMOUS)
        audit.end(begun, True)  # what was done is done
    audit.end(begun, False, status=500)
    text = (tmp_path / "audit" / "api-changes.ndjson").read_text()
    assert [json.loads(line)["outcome"] for line in text.splitlines()] == ["begun", "failed"]


def test_nothing_is_written_where_it_is_off(tmp_path: Path) -> None:
    settings = of(tmp_path, audit=AuditSection(enabled=False))
    audit = Audit.of(settings, "api")
    audit.end(audit.begin("a", ANONYMOUS), True)
    record(audit, settings)
    assert list(tmp_path.iterdir()) == []


# Reading ---------------------------------------------------------------------------------------------


def test_entries_of_all_programs_come_in_the_order_of_time(tmp_path: Path) -> None:
    clock = iter(range(1_800_000_000, 1_900_000_000))
    audits = []
    for program in ("api", "local"):
        audit = Audit.of(of(tmp_path), program)
        audit._now_s = lambda: float(next(clock))
        audits.append(audit)
    for number in range(6):
        audits[number % 2].begin(f"keys.{number}", Actor("key", f"key{number}"), device=f"van-{number % 3}")
    found = read(tmp_path)
    assert [one.action for one in found] == [f"keys.{number}" for number in range(6)]
    assert read(tmp_path, after=found[2].place) == found[3:]
    assert read(tmp_path, since=found[1].at, until=found[4].at) == found[1:4]
    assert read(tmp_path, device="van-1") == [found[1], found[4]]
    assert read(tmp_path, key="key5") == [found[5]]
    assert read(tmp_path, action="keys") == found
    assert read(tmp_path, action="keys.3") == [found[3]]
    assert read(tmp_path, outcome="done") == []
    assert read(tmp_path / "none") == []


def test_closed_files_that_are_too_old_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AuditFile(tmp_path / "audit", "api-changes", 1_000, 100)
    for number in range(20):
        file.append(
            line_of(Entry(moment(1_700_000_000 + number), f"{number:016x}", "api", "a", "done", ANONYMOUS)), False
        )
    opened: list[Path] = []
    path_open = Path.open

    def noted(path: Path, mode: str) -> Any:
        opened.append(path)
        return path_open(path, mode)

    monkeypatch.setattr(Path, "open", noted)
    read(tmp_path, since=moment(4_000_000_000))
    assert [path.name for path in opened] == ["api-changes.ndjson"]


# Refusals --------------------------------------------------------------------------------------------


def test_many_refusals_become_few_lines(tmp_path: Path) -> None:
    audit = Audit.of(of(tmp_path), "collector")
    refusals._open.clear()

    async def attack() -> None:
        async with refusals.recorded(audit):
            for number in range(20_000):
                refusals.note(problems.WRONG_KEY, "192.0.2.1", "POST /v1/records")
                refusals.note(problems.NO_KEY, f"2001:db8::{number:x}", "POST /v1/records")
            refusals.note(problems.BUSY, "192.0.2.1", "no refusal of access")

    asyncio.run(attack())
    found = read(tmp_path, action="access")
    assert len(found) <= refusals.MAX_KNOWN + 2
    assert sum(one.count for one in found) == 40_000
    [one] = [one for one in found if one.address == "192.0.2.1"]
    assert (one.count, one.status, one.details) == (20_000, 401, {"reason": "wrong-key"})
    assert one.since <= one.until <= one.at
    assert [one.count for one in found if one.address == refusals.OTHERS] == [40_000 - 20_000 - 999]


# Settings --------------------------------------------------------------------------------------------


def test_a_start_names_what_changed_and_no_secret(tmp_path: Path) -> None:
    audit = Audit.of(of(tmp_path), "api")
    first = of(tmp_path, courier=CourierSection(key="hunter2"))
    for settings in (first, first, of(tmp_path, courier=CourierSection(key="hunter3"), auth=Auth(required=True))):
        record(audit, settings)
    record(audit, of(tmp_path, api=Api(port=1)))
    details = [one.details for one in read(tmp_path, action="box.start")]
    assert [one["changed_settings"] for one in details][1:] == [0, 1, 3]
    assert details[2]["auth.required ="] == "true"
    assert details[0]["settings_sha256"] == details[1]["settings_sha256"] != details[2]["settings_sha256"]
    assert b"hunter" not in b"".join(path.read_bytes() for path in (tmp_path / "audit").iterdir())
