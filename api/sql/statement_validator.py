"""What may be asked in SQL: one SELECT over `records` and `latest`, judged by what DuckDB's own parser makes of it.

The question's tree is walked, never its text, so that comments, quotes and odd letters deceive nobody. Allowed are
tables by these two names and by those of its own WITH, and the functions that `allowed_functions.py` lists. What reads
files, describes the machine or runs SQL from a text is refused here; the process that asks (sandbox_process.py) has
nothing to give to it either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from api.sql.allowed_functions import ALLOWED, TABLE_FUNCTIONS

VIEWS = frozenset({"records", "latest"})

TABLES = frozenset({"BASE_TABLE", "COLUMN_DATA", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY"})
"""Kinds of what stands behind FROM, besides functions."""

_NAME = re.compile(r"[^\W\d]\w{0,62}")
"""A name of WITH. One with a dot or a slash could mean a file where the WITH does not reach."""

ONE_SELECT = "only one SELECT may be asked, and nothing else"


class Refusal(Exception):
    """The question may not be asked; the text says why."""


def check(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raises `Refusal` for what may not be asked. `connection` only parses."""
    [(text,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError:
        raise Refusal("the question is nested too deeply") from None
    if tree["error"]:
        is_other = tree["error_type"] == "not implemented"
        raise Refusal(ONE_SELECT if is_other else tree["error_message"])
    if len(tree["statements"]) != 1:
        raise Refusal(ONE_SELECT)
    nodes = list(_nodes(tree))
    names = VIEWS | _own_names(connection, nodes)
    for node in nodes:
        _check(node, names)


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """All objects of a tree, without recursion."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _own_names(connection: duckdb.DuckDBPyConnection, nodes: list[dict[str, Any]]) -> frozenset[str]:
    """The names that the question's WITHs give. Where they don't reach, none of them may mean a table of DuckDB."""
    found = {entry["key"].lower() for node in nodes if "cte_map" in node for entry in node["cte_map"]["map"]}
    found |= {node["cte_name"].lower() for node in nodes if node.get("cte_name")}
    taken = {name.lower() for (name,) in connection.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    taken |= {name.lower() for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    for name in found - VIEWS:
        if name in taken or not _NAME.fullmatch(name):
            raise Refusal(f"WITH may not give the name {name!r}")
    return frozenset(found)


def _check(node: dict[str, Any], names: frozenset[str]) -> None:
    kind = node.get("type")
    if node.get("class") == "FUNCTION" or "function_name" in node:
        _check_function(str(node.get("function_name", "")).lower())
    elif kind == "TABLE_FUNCTION":
        called = node["function"]
        name = str(called.get("function_name", "")).lower()
        if called.get("class") != "FUNCTION" or name not in TABLE_FUNCTIONS:
            raise Refusal(f"{name or 'this'} may not be used as a table")
    elif "sample" in node and "class" not in node and not str(kind).endswith("_NODE"):
        if kind not in TABLES:
            raise Refusal("this may not stand behind FROM")
        if "table_name" in node:
            _check_table(node, names)


def _check_function(name: str) -> None:
    if name not in ALLOWED:
        raise Refusal(f"the function {name[:100]} may not be used")


def _check_table(node: dict[str, Any], names: frozenset[str]) -> None:
    if node["type"] == "SHOW_REF" and node.get("query"):
        return
    path = node["qualified_name"]["path"]
    if len(path) != 1 or path[0].strip('"').lower() not in names:
        raise Refusal(f"there is no table {'.'.join(path)[:100]}: ask of {' and '.join(sorted(VIEWS, reverse=True))}")
