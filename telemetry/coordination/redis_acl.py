"""What each role may do in Redis, as rules of its ACL.

Nobody but `admin` may do what is dangerous (FLUSHALL, CONFIG SET, KEYS, DEBUG, SHUTDOWN, …), nor run scripts of their
own; only the worker may load functions, only it and the scheduler touch RQ's keys, and the query program writes nothing
but its count of refusals. Which keys a role may change stands with the keys, in shard.py and shared_state.py.
"""

from __future__ import annotations

from telemetry.coordination import shared_state
from telemetry.hot_store import shard
from telemetry.hot_store.credentials import ADMIN

OURS, RQ = "whimbrel:*", "rq:*"
"""Patterns of all keys, and of all channels."""

ALLOWED = "-@all +@read +@write +@transaction +@connection +@pubsub"
REFUSED = "-@admin -@dangerous -@scripting -@blocking -scan -randomkey -dbsize -pubsub +pubsub|numsub"
ALWAYS = "+info +time"
"""For everybody but `admin`: what may be done, less what may not, and what is taken for dangerous but is needed."""

FUNCTIONS = "+fcall +fcall_ro"
REWRITE = "+bgrewriteaof"
"""Redis's own file forgets devices that were deleted when it is written anew."""

SETTINGS = "+config|get"
"""CONFIG GET, to see that an answer means on disk. It tells a server's own password, so the API has it not."""

LOOK = "+xread"
"""What is new in many streams, in one command; it could wait, too, and so is refused otherwise."""

SIZES = "+memory|usage"
"""The size of a stream, to read large ones in pieces."""

COMMANDS = {
    "collector": f"{FUNCTIONS} {SETTINGS}",
    "api": FUNCTIONS,
    "worker": f"{FUNCTIONS} {SETTINGS} +function|load +@blocking {REWRITE} {SIZES}",
    "scheduler": SETTINGS,
    "query": f"{LOOK} {SIZES}",
    "courier": "",
}
"""What a role may do beyond that."""


def rules(role: str) -> str:
    """The rules of a role's user: keys, channels and commands."""
    if role == ADMIN:
        return "~* &* +@all"
    return f"resetchannels {_channels(role)} {_keys(role)} {ALLOWED} {REFUSED} {ALWAYS} {COMMANDS[role]}".rstrip()


def _channels(role: str) -> str:
    return f"&{OURS} &{RQ}" if role == "worker" else f"&{OURS}"


def _keys(role: str) -> str:
    written = [key for key, writers in shared_state.WRITERS.items() if role in writers]
    if role == "worker":
        written += [shard.OF_SHARDS, RQ]
    if role in ("collector", "api"):
        written += shard.APPENDED
    if role == "api":
        written += shard.FORGOTTEN
    if role == "scheduler":
        written.append(RQ)
    return " ".join([f"%R~{OURS}", *(f"~{pattern}" for pattern in written)])
