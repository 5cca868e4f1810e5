"""The library of Redis functions that change shards: the files in `lua/`, joined when this module is loaded.

A library is one chunk of Lua, so a file may use the local functions of the files before it in `SUBJECTS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from telemetry.model.errors import StoreUnavailable

LAYOUT = 1
"""The layout of the keys and values (keys.py) that the functions read and write."""

SUBJECTS = (
    "store",
    "clock",
    "latest",
    "batch_names",
    "resends",
    "append",
    "save",
    "deletion",
    "quarantine",
    "recovery",
    "latest_rebuild",
)
"""The files in `lua/`, in the order in which they are joined."""

_FOLDER = Path(__file__).with_name("lua")
_SOURCE = "\n".join((_FOLDER / f"{subject}.lua").read_text(encoding="utf-8") for subject in SUBJECTS)
NAME = f"whimbrel_{LAYOUT}_{zlib.crc32(_SOURCE.encode()):08x}"
"""Name of the library and prefix of its functions. It is unique per content, because Redis keeps libraries permanently,
and functions of another release may take other arguments."""

LIBRARY = _SOURCE.replace("whimbrel_LIBRARY", NAME)


def function_name(name: str) -> str:
    """The name of a function of this release in Redis."""
    return f"{NAME}_{name}"


def call(client: redis.Redis, name: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
    """Call a function, loading the library if this Redis does not have it yet.

    Raises `StoreUnavailable` if this user may not load it.
    """
    function = function_name(name)
    try:
        return client.fcall(function, len(keys), *keys, *args)
    except redis.ResponseError as error:
        if "Function not found" not in str(error):
            raise
    try:
        client.function_load(LIBRARY, replace=True)
    except NoPermissionError:
        raise StoreUnavailable("Redis lacks Whimbrel's functions; the worker loads them within seconds") from None
    return client.fcall(function, len(keys), *keys, *args)
