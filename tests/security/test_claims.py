"""Each claim of SECURITY.md names tests that exist, and each file of attacks is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from telemetry.config.settings import PROJECT

TEXT = (PROJECT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_what_a_claim_names_is_there(file: str, test: str) -> None:
    source = (PROJECT / file).read_text()
    assert re.search(rf"^ *(async )?def {test or 'test_'}", source, re.MULTILINE)


def test_each_class_of_attacks_has_a_claim() -> None:
    files = {path.relative_to(PROJECT).as_posix() for path in Path(__file__).parent.glob("test_*.py")}
    assert files == {file for file, _ in NAMED if file.startswith("tests/security/")}


def test_each_row_names_a_test() -> None:
    tables = re.findall(r"^\| (?:claim|connection) \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) > 25
    assert [row for row in rows if "`tests/" not in row.rpartition(" | ")[2]] == []
