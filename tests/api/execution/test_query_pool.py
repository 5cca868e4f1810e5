"""Queries in threads: results and relations are dropped after each query."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from api.execution.query_pool import RELATIONS, Queries
from api.execution.slots import SlotLimits

ROWS = 1_000_000


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_are_unregistered_after_a_query(name: str) -> None:
    def query(connection: duckdb.DuckDBPyConnection) -> None:
        connection.register(name, pa.table({"number": pa.array(range(ROWS))}))
        connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        raise duckdb.OutOfMemoryException

    async def test() -> None:
        queries = Queries(connection, SlotLimits(1, 1, 30, 100), 30)
        with pytest.raises(Exception, match="request less data"):
            await queries.run(query)
        await queries.close()

    before = pa.total_allocated_bytes()
    with duckdb.connect() as connection:
        asyncio.run(test())
        assert pa.total_allocated_bytes() - before < ROWS


def test_an_unread_result_is_dropped() -> None:
    def read_one_row(connection: duckdb.DuckDBPyConnection) -> None:
        connection.register("tail", pa.table({"number": pa.array(range(ROWS))}))
        connection.execute("SELECT * FROM tail").fetchmany(1)

    async def test() -> None:
        queries = Queries(connection, SlotLimits(1, 1, 30, 100), 30)
        for _ in range(3):
            await queries.run(read_one_row)
        assert pa.total_allocated_bytes() - before < ROWS
        await queries.close()

    before = pa.total_allocated_bytes()
    with duckdb.connect() as connection:
        asyncio.run(test())


def test_all_relations_of_queries_are_listed() -> None:
    sources = Path("api").rglob("*.py")
    found = {name for source in sources for name in re.findall(r'\.register\("(\w+)"', source.read_text())}
    assert found == set(RELATIONS)
