"""The linter of wording: the texts that it reads, and those that it ignores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / "scripts" / "prose"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("name", "text", "line", "words"),
    [
        ("page.md", "Good.\n\nThe shard keeps\nso many records.\n", 4, "so many"),
        ("page.md", "A file that stands\nbehind it.\n", 2, "behind"),
        ("module.py", '"""What is kept."""\n', 1, "What"),
        ("module.py", '"""Cache."""\n\nA = 1  # read anew\n', 3, "anew"),
        ("module.py", 'def f() -> str:\n    return f"it was told {1} of it"\n', 2, "told"),
        ("settings.toml", "[a]\n# Most records in one save.\nb = 1\n", 2, "Most records"),
    ],
)
def test_a_phrase_is_named_by_file_and_line(tmp_path: Path, name: str, text: str, line: int, words: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    done = lint(path)
    assert done.returncode == 1
    assert f"{name}:{line}: “{words}”: " in done.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "Plain.\n\n```sh\necho so many\n```\n\nand `told` in code, [a link](behind.md).\n"),
        ("page.md", "Behind a reverse proxy, set `limits.trusted_proxies`. What is a shard?\n"),
        ("module.py", '"""Caches records."""\n\nTOLD = {"told": 1}\nx = f"{told_by} of the box"\n'),
        ("settings.toml", "# Maximum records.\nso_many = 1\n"),
    ],
)
def test_code_questions_and_plain_words_are_left_alone(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    done = lint(path)
    assert (done.returncode, done.stdout) == (0, "")
