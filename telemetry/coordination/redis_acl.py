"""Redis ACL rules of each role.

Only `admin` may use dangerous commands (FLUSHALL, CONFIG SET, KEYS, DEBUG, SHUTDOWN, …) and scripts. Only the worker
may load functions, only it and the scheduler use RQ's keys, and the query program writes only its rejection counts. The
keys that each role may write are declared with the keys, in keys.py and shared_state.py.
"""

from __future__ import annotations

from telemetry.coordination import shared_state
from telemetry.hot_store.credentials import ADMIN
from telemetry.hot_store.keys import APPENDED, FORGOTTEN, OF_SHARDS

OURS, RQ = "whimbrel:*", "rq:*"
"""Patterns of all keys and channels."""

ALLOWED = "-@all +@read +@write +@transaction +@connection +@pubsub"
REFUSED = "-@admin -@dangerous -@scripting -@blocking -scan -randomkey -dbsize -pubsub +pubsub|numsub"
ALWAYS = "+info +time"
"""For all roles except `admin`: allowed commands, excluded commands, and needed ones among the latter."""

FUNCTIONS = "+fcall +fcall_ro"
REWRITE = "+bgrewriteaof"
"""A rewrite of the AOF removes the data of deleted devices from disk."""

SETTINGS = "+config|get"
"""CONFIG GET, to check that acknowledged writes are on disk. It reveals the server's password; the API does not have
it."""

LOOK = "+xread"
"""Reads new entries of many streams in one command. XREAD can also block and is therefore excluded otherwise."""

SIZES = "+memory|usage"
"""Size of a stream, to read large ones in pieces."""

COMMANDS = {
    "collector": f"{FUNCTIONS} {SETTINGS}",
    "api": FUNCTIONS,
    "worker": f"{FUNCTIONS} {SETTINGS} +function|load +@blocking {REWRITE} {SIZES}",
    "scheduler": SETTINGS,
    "query": f"{LOOK} {SIZES}",
    "courier": "",
}
"""Additional commands of each role."""


def rules(role: str) -> str:
    """The ACL rules of a role's user: keys, channels and commands."""
    if role == ADMIN:
        return "~* &* +@all"
    return f"resetchannels {_channels(role)} {_keys(role)} {ALLOWED} {REFUSED} {ALWAYS} {COMMANDS[role]}".rstrip()


def _channels(role: str) -> str:
    return f"&{OURS} &{RQ}" if role == "worker" else f"&{OURS}"


def _keys(role: str) -> str:
    written = [key for key, writers in shared_state.WRITERS.items() if role in writers]
    if role == "worker":
        written += [OF_SHARDS, RQ]
    if role in ("collector", "api"):
        written += APPENDED
    if role == "api":
        written += FORGOTTEN
    if role == "scheduler":
        written.append(RQ)
    return " ".join([f"%R~{OURS}", *(f"~{pattern}" for pattern in written)])
