"""Questions in threads: what one leaves behind."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from api.execution.query_pool import RELATIONS, Queries
from api.execution.slots import Terms

ROWS = 1_000_000


@pytest.mark.parametrize("name", RELATIONS)
def test_records_of_a_question_go_with_it(name: str) -> None:
    def ask(connection: duckdb.DuckDBPyConnection) -> None:
        connection.register(name, pa.table({"number": pa.array(range(ROWS))}))
        connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        raise duckdb.OutOfMemoryException

    async def test() -> None:
        queries = Queries(connection, Terms(1, 1, 30, 100), 30)
        with pytest.raises(Exception, match="ask for less"):
            await queries.run(ask)
        await queries.close()

    before = pa.total_allocated_bytes()
    with duckdb.connect() as connection:
        asyncio.run(test())
        assert pa.total_allocated_bytes() - before < ROWS


def test_a_result_that_was_not_read_to_its_end_is_dropped() -> None:
    def half(connection: duckdb.DuckDBPyConnection) -> None:
        connection.register("tail", pa.table({"number": pa.array(range(ROWS))}))
        connection.execute("SELECT * FROM tail").fetchmany(1)

    async def test() -> None:
        queries = Queries(connection, Terms(1, 1, 30, 100), 30)
        for _ in range(3):
            await queries.run(half)
        assert pa.total_allocated_bytes() - before < ROWS
        await queries.close()

    before = pa.total_allocated_bytes()
    with duckdb.connect() as connection:
        asyncio.run(test())


def test_all_relations_of_questions_are_named() -> None:
    sources = Path("api").rglob("*.py")
    found = {name for source in sources for name in re.findall(r'\.register\("(\w+)"', source.read_text())}
    assert found == set(RELATIONS)
