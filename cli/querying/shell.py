"""`whimbrel shell`: DuckDB with all records, on this machine: `records`, and each device's newest, `latest`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from api.snapshot.snapshot import Snapshots, Wanted
from api.sql.sandbox_process import all_sql, latest_sql
from cli.command import FAILED, OK, Command
from cli.querying.files import find
from cli.stdout import output
from telemetry.archive.schema import COLUMNS, open_duckdb, sql_text
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store import shard
from telemetry.hot_store.client import connect
from telemetry.model.errors import ConfigError, StoreError
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.terminal_text import printable

DESCRIPTION = """\
Ask in SQL. Two views are there: `records`, every record, and `latest`, the newest of each device. They are those of the
moment when this begins; what waits in Redis to be saved is among them if Redis answers, else a line says so.

  whimbrel shell -c "SELECT device_id, count(*) FROM records GROUP BY ALL"

Without -c it is DuckDB's own program if that is installed (`duckdb`), else a prompt: end a statement with `;`,
leave with Ctrl-D. docs/analysts.md has questions to begin with.
"""

ALL = Wanted((), EARLIEST_US, LATEST_US)
PROMPT, MORE = "whimbrel> ", "      ... "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-c", "--command", metavar="SQL", dest="sql", help="answer this and end")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Ask one statement, or many; 1 if the one failed."""
    files, tail = _records(settings)
    program = shutil.which("duckdb")
    if args.sql is None and program is not None:
        return _run_program(program, files, tail)
    with open_duckdb() as connection:
        connection.register("tail", tail)
        connection.execute(views_sql(files, "tail"))
        if args.sql is not None:
            return OK if _answer(connection, args.sql) else FAILED
        return _prompt(connection, input)


def views_sql(files: list[str], tail: str) -> str:
    """Statements that make both views of files and of a table of the tail."""
    return f"CREATE VIEW records AS {all_sql(files, tail)};\nCREATE VIEW latest AS {latest_sql('records')};\n"


def _records(settings: Settings) -> tuple[list[str], pa.Table]:
    """The files, and what is in none yet: nothing if Redis does not answer."""
    archive = Archive(settings.archive_dir)
    try:
        with connect(settings) as client:
            shards = settings.redis.shards
            snapshot = Snapshots(lambda: shard.pinned(client, shards), archive).take(ALL)
            return [file.path for file in snapshot.files], snapshot.records
    except (StoreError, ConfigError) as error:
        print(printable(f"whimbrel shell: without what waits to be saved: {error}"), file=sys.stderr)
        return [file.path for file in find(archive, ALL)], COLUMNS.empty_table()


def _run_program(program: str, files: list[str], tail: pa.Table) -> int:
    """DuckDB's own program, which begins with the views."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        path, begin = Path(folder) / "tail.parquet", Path(folder) / "begin.sql"
        with open_duckdb() as connection:
            connection.register("tail", tail)
            connection.execute(f"COPY tail TO {sql_text(str(path))} (FORMAT parquet)")
        begin.write_text("SET TimeZone = 'UTC';\n" + views_sql(files, f"read_parquet({sql_text(str(path))})"))
        return subprocess.run([program, "-init", str(begin)], check=False).returncode


def _answer(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Print a statement's rows, or on standard error what DuckDB says against it."""
    try:
        with output():
            for statement in connection.extract_statements(sql):
                found = connection.sql(statement.query)
                if found is not None:
                    print(printable(str(found), keeps_lines=True))
        return True
    except duckdb.Error as error:
        print(printable(f"whimbrel shell: {error}", keeps_lines=True), file=sys.stderr)
        return False


def _prompt(connection: duckdb.DuckDBPyConnection, read: Callable[[str], str]) -> int:
    """Answer statement after statement until the input ends."""
    text = ""
    while True:
        try:
            text += read(MORE if text else PROMPT) + "\n"
        except EOFError:
            return OK
        except KeyboardInterrupt:
            print()
            text = ""
            continue
        if text.rstrip().endswith(";"):
            _answer(connection, text)
            text = ""
        elif not text.strip():
            text = ""


COMMAND = Command("Ask in SQL, with DuckDB, on this machine.", add_arguments, run)
