"""The commands of docs/tutorial/first-tracker.md work as printed, except for ports and waits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.box import PROJECT, Box, free_ports

PAGE = (PROJECT / "docs" / "tutorial" / "first-tracker.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
SETTINGS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)

pytestmark = pytest.mark.slow


def test_a_tracker_reaches_the_map(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    append, start, sniff, send, latest, drive, track = COMMANDS
    assert start.strip() == "scripts/up"
    assert sniff.strip() == ".venv/bin/whimbrel sniff 5000"
    [port] = free_ports(1)
    subprocess.run(["bash", "-euc", append], cwd=tmp_path, check=True)
    entries = [{**entry, "port": port} for entry in listeners((tmp_path / "config.toml").read_text(encoding="utf-8"))]
    with Box(tmp_path / "box", collector__listen=json.dumps(entries)) as box:
        ports = {"5000": port, "8000": box.api_port}
        script = "".join([send, drive.replace("sleep 1", "sleep 0.05"), latest, track])
        script = re.sub(r"\b(5000|8000)\b", lambda match: str(ports[match[0]]), script)
        script = script.replace(".venv/bin", str(Path(sys.executable).parent))
        done = subprocess.run(
            ["bash", "-euc", script], cwd=PROJECT, env=box.environ, text=True, capture_output=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    reply, _, row, *points = done.stdout.splitlines()
    assert re.fullmatch(r"\*HQ,4106012736,V4,V1,\d{14}#", reply)
    assert row.split()[:1] == ["4106012736"]
    assert len(json.loads("".join(points))["features"]) == 51


def listeners(settings: str) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = tomllib.loads(settings)["collector"]["listen"]
    return entries


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_box_starts_with_the_ports_for_real_devices(settings: str, tmp_path: Path) -> None:
    [port] = free_ports(1)
    entries = [{**entry, "port": port} for entry in listeners(settings)]
    with Box(tmp_path, collector__listen=json.dumps(entries)) as box:
        assert box.http.get("/readyz").status_code == 200
