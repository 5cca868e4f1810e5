"""A process that answers one question in SQL and ends: what it reads from its input, it answers on its output.

It has no environment, may write no file, and its DuckDB reads the snapshot's files and no other, knows no extension and
lets no setting be changed. For a key that is bound to devices not even these: their records are copied into memory
beforehand, for a question's own conditions may be looked at before those of a view. Time and memory are the kernel's
to keep: whoever started it kills it, and what exceeds its memory fails in it alone.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Sequence
from typing import NamedTuple

from telemetry.startup import import_blocker

if __name__ == "__main__":
    import_blocker.refuse()  # before anything loads Arrow

import duckdb
import msgspec
import pyarrow as pa

from api.sql import statement_validator
from api.sql.result_encoders import BATCH_ROWS, FORMS
from telemetry.archive.schema import COLUMNS, nothing_sql, records_sql, sql_text
from telemetry.system.process import die_with_whoever_started

WRONG, COSTLY, FAILED = "wrong", "costly", "failed"
"""What was wrong: the question, what it takes, or the box."""

LENGTH_BYTES = 4
SPARE_BYTES = 128 * 2**20
"""Memory beside DuckDB's own: the answer, and what it allocates without counting."""

_OUT_OF_MEMORY = re.compile(r"out of memory|MemoryError|(failed to|could not) allocate|bad_alloc", re.IGNORECASE)

THREADS = 2
NICENESS = 10


class Question(msgspec.Struct, frozen=True):
    """What is asked; behind it on the input comes the tail as an Arrow stream. No device and no prefix mean all."""

    query: str
    form: str
    files: list[str]
    devices: list[str]
    prefix: str
    timeout_s: int
    memory_bytes: int
    max_rows: int
    max_bytes: int


class Outcome(msgspec.Struct, frozen=True):
    """The first line of the answer; behind it come so many bytes, or else `detail` says what was `wrong`."""

    wrong: str = ""
    detail: str = ""
    truncated: bool = False
    bytes: int = 0


class Answer(NamedTuple):
    outcome: Outcome
    data: bytes = b""


def locked(question: Question, tail: pa.Table) -> duckdb.DuckDBPyConnection:
    """A DuckDB that has the two views and can do no more than read them."""
    connection = duckdb.connect(
        config={
            "memory_limit": f"{question.memory_bytes}B",
            "threads": THREADS,
            "async_threads": 1,
            "temp_directory": "",
            "max_temp_directory_size": "0B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.register("tail", tail)
    records = all_sql(question.files, "tail")
    readable = question.files
    if question.devices or question.prefix:
        connection.execute("SET preserve_insertion_order = false")  # otherwise each file takes blocks of its own: 40 kB
        connection.execute(f"CREATE TABLE records AS SELECT * FROM ({records}) WHERE {_bound(question)}")
        connection.unregister("tail")
        readable = []
    else:
        connection.execute(f"CREATE VIEW records AS {records}")
    connection.execute(f"CREATE VIEW latest AS {latest_sql('records')}")
    connection.execute(f"SET allowed_paths = [{', '.join(map(sql_text, readable))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def all_sql(files: Sequence[str], tail: str) -> str:
    """SQL that selects all records: those of the archive's files, and those of the table `tail`.

    Besides the columns of the files it has `date`, the day of `timestamp` in UTC whatever the session's time zone.
    It is computed: from the paths DuckDB would also take columns that folders above happen to be named like.
    """
    columns = f"{', '.join(COLUMNS.names)}, (timestamp AT TIME ZONE 'UTC')::DATE AS date"
    archived = records_sql(files) if files else nothing_sql()
    return f"SELECT {columns} FROM {archived} UNION ALL SELECT {columns} FROM {tail}"


def latest_sql(records: str) -> str:
    """SQL that selects the newest record of each device."""
    newest = f"SELECT device_id, max(timestamp) AS timestamp FROM {records} GROUP BY device_id"
    return (
        f"SELECT r.* FROM {records} r JOIN ({newest}) n ON r.device_id = n.device_id AND r.timestamp = n.timestamp "
        "QUALIFY row_number() OVER (PARTITION BY r.device_id ORDER BY r.id DESC) = 1"
    )


def _bound(question: Question) -> str:
    if question.devices:
        return f"device_id IN ({', '.join(map(sql_text, question.devices))})"
    return f"starts_with(device_id, {sql_text(question.prefix)})"


def answer(question: Question, tail: pa.Table) -> Answer:
    """The answer, or what was wrong."""
    try:
        with locked(question, tail) as connection:
            return _answer(connection, question)
    except statement_validator.Refusal as refusal:
        return Answer(Outcome(WRONG, str(refusal)))
    except (duckdb.Error, pa.ArrowException, OSError, MemoryError, ValueError, OverflowError, RecursionError) as error:
        if _lacks_memory(error):
            return Answer(Outcome(COSTLY, "the question needs more memory than sql.memory_bytes"))
        is_ours = isinstance(error, duckdb.IOException | duckdb.InternalException | duckdb.FatalException | OSError)
        return Answer(Outcome(FAILED if is_ours else WRONG, str(error)))


def _answer(connection: duckdb.DuckDBPyConnection, question: Question) -> Answer:
    statement_validator.check(connection, question.query)
    found = connection.sql(question.query)
    kinds = [str(kind) for kind in found.types]
    with found.to_arrow_reader(BATCH_ROWS) as rows:
        data, is_truncated = FORMS[question.form](rows, kinds, question.max_rows, question.max_bytes)
    return Answer(Outcome(truncated=is_truncated, bytes=len(data)), data)


def _lacks_memory(error: Exception) -> bool:
    """Whether memory ran out, which DuckDB and Arrow report as various errors, depending on where it does.

    An error in the question's text quotes the question, so its words count for nothing.
    """
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError):
        return True
    if isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException):
        return False
    return _OUT_OF_MEMORY.search(str(error)) is not None


def confine(question: Question) -> None:
    """Give up what a question does not need, once and for all."""
    with open("/proc/self/status") as status:
        has_bytes = next(int(line.split()[1]) * 1_024 for line in status if line.startswith("VmData:"))
    most_bytes = has_bytes + 2 * question.memory_bytes + question.max_bytes + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    cpu_s = (question.timeout_s + 1) * THREADS
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))
    os.nice(NICENESS)
    with open("/proc/self/oom_score_adj", "w") as score:  # if memory runs out all the same, this goes first
        score.write("1000")


def run() -> None:
    """Read a question, answer it."""
    die_with_whoever_started()
    size = int.from_bytes(sys.stdin.buffer.read(LENGTH_BYTES), "big")
    question = msgspec.msgpack.decode(sys.stdin.buffer.read(size), type=Question)
    tail = pa.ipc.open_stream(sys.stdin.buffer).read_all()
    confine(question)
    outcome, data = answer(question, tail)
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    os._exit(0)  # what is left of a question needs no order


if __name__ == "__main__":
    run()
