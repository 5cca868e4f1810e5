"""Arrow streams as tables of pyarrow, pandas and Polars, which are loaded when somebody asks for one."""

from __future__ import annotations

import importlib
from typing import Any

from whimbrel_client.errors import AnswerBrokenOff, AnswerTruncated

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How a stream ends (Arrow Columnar Format, "IPC Streaming Format"). pyarrow takes one without it for whole."""


def arrow(stream: bytes) -> Any:
    """A stream as a `pyarrow.Table`. Raises `AnswerBrokenOff` if it is not whole."""
    pyarrow = _module("pyarrow", "arrow")
    if not stream.endswith(END):
        raise AnswerBrokenOff("cannot read an answer: its Arrow stream has no end")
    with pyarrow.ipc.open_stream(pyarrow.py_buffer(stream)) as reader:
        return reader.read_all()


def whole(table: Any, is_truncated: bool) -> Any:
    """The table, unless the box cut it. Raises `AnswerTruncated`."""
    if is_truncated:
        message = f"cannot read all of an answer: the box cut it behind {table.num_rows} rows (sql.max_rows)"
        raise AnswerTruncated(message, table)
    return table


def pandas(stream: bytes) -> Any:
    """A stream as a `pandas.DataFrame`."""
    _module("pandas", "pandas")
    return arrow(stream).to_pandas()


def polars(stream: bytes) -> Any:
    """A stream as a `polars.DataFrame`."""
    return _module("polars", "polars").from_arrow(arrow(stream))


def _module(name: str, extra: str) -> Any:
    try:
        importlib.import_module("pyarrow.ipc")
        return importlib.import_module(name)
    except ImportError as error:
        message = f"this needs {error.name}: pip install 'whimbrel-client[{extra}]'"
        raise ImportError(message, name=error.name) from error
