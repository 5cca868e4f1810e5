"""Each command and program of the README works as printed, except for ports and the data folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import PROJECT, Box

README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)
STARTS = ("scripts/venv && .venv/bin/whimbrel demo", "scripts/up")
"""Commands that other tests run: tests/cli/demo/ and tests/cli/services/test_up.py."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box on ports of its own with the buses in its archive."""
    with Box(tmp_path_factory.mktemp("readme")) as found:
        found.json("send", "tests/data/liverpool_bus_route14.csv", "--preset", "buses")
        found.json("drain")
        yield found


def on(box: Box, text: str) -> str:
    """A block of the README as it must read for this box."""
    ports = {"8000": box.api_port, "8001": box.http_port, "9999": box.tcp_port}
    for written, real in ports.items():
        text = re.sub(rf"\b{written}\b", str(real), text)
    environment = str(Path(sys.executable).parent)
    return text.replace("data/archive", str(box.data / "archive")).replace(".venv/bin", environment)


def blocks(kind: str) -> list[str]:
    """Code of a language, without the commands that start a box or install packages of a registry."""
    return [
        text for found, text in BLOCKS if found == kind and text.strip() not in STARTS and "pip install" not in text
    ]


def run(box: Box, *command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd or PROJECT, env=box.environ, text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_starts_with_two_commands() -> None:
    assert [text.strip() for kind, text in BLOCKS if kind == "sh"][:2] == list(STARTS)
    assert all(os.access(PROJECT / name, os.X_OK) for name in ("scripts/venv", "scripts/up", "scripts/test"))
    assert "`scripts/test`" in README.partition("## Contributing")[2]


def test_the_shell_commands(box: Box, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    send, *rest = [on(box, text) for text in blocks("sh")]
    assert run(box, "bash", "-euc", send) == '{"accepted":1}'
    text = "\n".join(rest).replace("day.parquet", str(tmp_path / "day.parquet"))
    out = run(box, "bash", "-euc", text)
    assert "1533 accepted" in out
    assert out.count('"latitude":53.44,"longitude":-2.93') == 3, "latest and its position, and the range"
    assert (tmp_path / "day.parquet").stat().st_size > 0


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_programs(number: int, box: Box) -> None:
    out = run(box, sys.executable, "-W", "error", "-c", on(box, blocks("python")[number]))
    assert '"accepted": 1' in out or "4716" in out or "device_id" in out


def test_the_c_program(box: Box, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("cc is not installed")
    [text] = blocks("c")
    (tmp_path / "device.c").write_text(on(box, text), encoding="utf-8")
    run(box, compiler, "-Wall", "-Wextra", "-Werror", "device.c", "-o", "device", cwd=tmp_path)
    assert run(box, "./device", cwd=tmp_path) == '{"message": "Data received", "accepted": 1}\n'
