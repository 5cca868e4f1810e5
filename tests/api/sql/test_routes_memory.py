"""A question whose key is bound to devices and whose records need more memory than a question may have."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from api.sql.sandbox_process import COSTLY, LENGTH_BYTES, WRONG, Answer, Outcome, Question, answer
from telemetry.archive.schema import COLUMNS
from telemetry.config.settings import PROJECT

MEMORY_BYTES = 2**26
RECORDS, PADDING = 1_000, 30_000


def question(query: str) -> Question:
    return Question(query, "json", [], ["van-1"], "", 30, MEMORY_BYTES, 1_000, 2**20)


def records() -> pa.Table:
    row: dict[str, Any] = dict.fromkeys(COLUMNS.names)
    rows = [
        row | {"device_id": "van-1", "id": number, "transport": "http", "attributes": f"{number}" * PADDING}
        for number in range(1_000, 1_000 + RECORDS)
    ]
    fields = [pa.field(field.name, field.type) for field in COLUMNS]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def test_its_records_are_larger_than_memory() -> None:
    found = answer(question("SELECT count(*) FROM records"), records())
    assert (found.outcome.wrong, found.outcome.bytes) == (COSTLY, 0)


class Unreadable:
    """Records that find no memory while they are handed over."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise MemoryError


def test_there_is_no_memory_to_hand_its_records_over() -> None:
    """DuckDB calls that an invalid input."""
    assert answer(question("SELECT 1"), Unreadable()).outcome.wrong == COSTLY


def test_its_process_may_not_have_more_memory() -> None:
    """Wherever memory ends for it, the question is too costly, never wrong, and the process says so or dies of it."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, COLUMNS) as writer:
        writer.write_table(records())
    asked = msgspec.msgpack.encode(question("SELECT list(attributes) FROM records"))
    done = subprocess.run(
        [sys.executable, "-m", "api.sql.sandbox_process"],
        input=len(asked).to_bytes(LENGTH_BYTES, "big") + asked + stream.getvalue().to_pybytes(),
        capture_output=True,
        cwd=PROJECT,
        env={"MALLOC_ARENA_MAX": "2"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        timeout=60,
    )
    assert done.returncode < 0 or msgspec.json.decode(done.stdout, type=Outcome).wrong == COSTLY


@pytest.mark.parametrize(
    "query", ["SELECT 'out of memory", 'SELECT "MemoryError" FROM records', "SELECT bad_alloc() FROM records"]
)
def test_a_question_that_speaks_of_memory_is_wrong_all_the_same(query: str) -> None:
    found: Answer = answer(question(query), COLUMNS.empty_table())
    assert found.outcome.wrong == WRONG
