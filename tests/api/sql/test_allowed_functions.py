"""The list of allowed SQL functions, compared with the DuckDB that is installed."""

from __future__ import annotations

import duckdb
import pytest

from api.sql.allowed_functions import ALLOWED, OPERATORS, TABLE_FUNCTIONS

SUSPECT = (
    "__",
    "collate_",
    "current_",
    "duckdb_",
    "enable_",
    "getenv",
    "has_",
    "inet_",
    "pg_",
    "pragma_",
    "read_",
    "st_",
)
HARMLESS = {"current_date", "current_localtime", "current_localtimestamp"}


@pytest.fixture(scope="module")
def types_of() -> dict[str, set[str]]:
    """Function name, in lower case, to the kinds of function that DuckDB has under it."""
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT DISTINCT function_name, function_type FROM duckdb_functions()").fetchall()
    found: dict[str, set[str]] = {}
    for name, kind in rows:
        found.setdefault(name.lower(), set()).add(kind)
    return found


def test_each_allowed_function_exists_and_computes_a_value(types_of: dict[str, set[str]]) -> None:
    unknown = ALLOWED - types_of.keys() - {"unnest"}
    assert not unknown
    for name in ALLOWED - {"unnest"}:
        assert types_of[name] & {"scalar", "aggregate", "window", "macro"}, name


def test_no_allowed_table_function_takes_the_name_of_a_table(types_of: dict[str, set[str]]) -> None:
    assert all("table_macro" not in types_of[name] for name in TABLE_FUNCTIONS)


def test_no_function_that_describes_the_machine_is_allowed() -> None:
    found = {name for name in ALLOWED - OPERATORS if name.startswith(SUSPECT)}
    assert found == HARMLESS
