"""The protocols that devices speak. A new one is a file here and a line in `PROTOCOLS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from collector.protocols.contract import Decoder
from collector.protocols.json_stream import JsonStream


class MessageLimits(NamedTuple):
    """How large one message may be."""

    max_bytes: int
    max_records: int


PROTOCOLS: dict[str, Callable[[MessageLimits], Decoder]] = {
    "json": lambda limits: JsonStream(limits.max_bytes, limits.max_records),
}
"""Name → what makes the decoder of one connection."""
