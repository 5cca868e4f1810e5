"""What a program leaves alone, shown by what Arrow loads into a Python of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from telemetry.startup.import_blocker import UNNEEDED

MAKE_COLUMNS = """
import sys
from telemetry.archive.schema import COLUMNS, open_duckdb
import pyarrow as pa
table = pa.table([pa.array([None], type=field.type) for field in COLUMNS], schema=COLUMNS)
with open_duckdb() as connection:
    connection.register("t", table)
    assert len(connection.execute("SELECT * FROM t").fetchall()) == 1
print(*(name for name in ("numpy", "pandas") if name in sys.modules))
"""


RUN_COMMAND = """
import contextlib
import sys
from cli.main import main

sys.argv[1:] = ["export", "--help"]
with contextlib.suppress(SystemExit):
    main()
assert "pyarrow" in sys.modules
print(*(name for name in ("numpy", "pandas") if name in sys.modules), file=sys.stderr, end="")
"""


def test_a_command_loads_neither() -> None:
    done = subprocess.run([sys.executable, "-c", RUN_COMMAND], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("before", "loaded"),
    [
        ("", UNNEEDED),  # if this fails, telemetry/startup/import_blocker.py may go
        ("from telemetry.startup import import_blocker as unneeded; unneeded.refuse()", frozenset()),
    ],
    ids=["by-itself", "refused"],
)
def test_columns_without_numpy_and_pandas(before: str, loaded: frozenset[str]) -> None:
    done = subprocess.run([sys.executable, "-c", before + MAKE_COLUMNS], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert set(done.stdout.split()) == loaded
