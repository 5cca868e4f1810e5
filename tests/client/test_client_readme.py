"""Each program of the client's README works as it stands, but for the port."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.box import PROJECT, Box

README = (PROJECT / "client" / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", [None], scope="module")  # one box is enough: they make their own clients
def test_the_programs(box: Box, tmp_path: Path) -> None:
    said = []
    for program in PROGRAMS:
        code = program.replace("8000", str(box.api_port))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{program}\n{done.stderr}"
        said.append(done.stdout)
    assert said[0] == "1\n"
    assert said[1] == "2000\n"
    assert said[2] == "1 on the box, 0 in the spool \n"
    assert said[3].startswith("53.44\n")
    assert "'fuel': 61" in said[3]
    assert re.search(r"van-8 +51.0", said[4])
    assert said[5].startswith("van-")
    assert said[6] == "van-6 53.43\n"
