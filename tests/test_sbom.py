"""The bill of materials: complete, and the same bytes from the same commit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.box import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)", re.M)


def made(folder: Path) -> dict[str, Any]:
    done = subprocess.run(["scripts/sbom", str(folder)], cwd=PROJECT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "python.cdx.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bill")
    made(folder)
    return folder


def test_each_locked_package_is_in_it_with_its_hashes(bill: Path) -> None:
    locked = set(LOCKED.findall((PROJECT / "requirements.lock").read_text(encoding="utf-8")))
    components = json.loads((bill / "python.cdx.json").read_bytes())["components"]
    assert {(one["name"], one["version"]) for one in components} == locked
    assert all(reference["hashes"] for one in components for reference in one["externalReferences"])


def test_it_is_reproducible(bill: Path, tmp_path: Path) -> None:
    made(tmp_path)
    assert (tmp_path / "python.cdx.json").read_bytes() == (bill / "python.cdx.json").read_bytes()


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_what_pages_load_is_in_it(bill: Path) -> None:
    wanted = json.loads((PROJECT / "package.json").read_bytes())["dependencies"]
    found = {one["name"]: one["version"] for one in json.loads((bill / "page.cdx.json").read_bytes())["components"]}
    assert wanted.items() <= found.items()
