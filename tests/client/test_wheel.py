"""The wheel: what is in it is enough, with httpx and what that needs, and nothing of the box."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.box import PROJECT

pytestmark = pytest.mark.slow

CODE = """
import sys, whimbrel_client
from whimbrel_client import BoxUnavailable, Client
with Client("http://127.0.0.1:9", retry_for_s=0) as client:
    try:
        client.send([{"device_id": "d"}])
    except BoxUnavailable as error:
        print(whimbrel_client.__version__, error.undelivered[0].records)
"""


def needed(name: str) -> set[str]:
    """A distribution and all that it needs here."""
    found = {name}
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= needed(requirement.name)
    return found


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    source = tmp_path / "client"
    shutil.copytree(PROJECT / "client", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    alone = tmp_path / "alone"
    with zipfile.ZipFile(tmp_path / built.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(alone)
    assert (alone / "whimbrel_client" / "py.typed").exists()
    [metadata] = alone.glob("*.dist-info/METADATA")
    assert re.findall(r"^Requires-Dist: ([\w-]+)[^;]*$", metadata.read_text(), re.M) == ["httpx"]
    for name in needed("httpx"):
        for file in importlib.metadata.files(name) or ():
            if file.parts[0] not in ("..", "__pycache__"):
                (alone / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), alone / file)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(alone)}
    command = [sys.executable, "-S", "-W", "error", "-c", CODE]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version = re.findall(r"^Version: (.+)$", metadata.read_text(), re.M)
    assert done.stdout == f"{version[0]} [{{'device_id': 'd'}}]\n"
