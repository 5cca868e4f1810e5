"""Handles values in Redis that cannot be decoded: they are skipped and counted, and logged the first time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar, get_args

import msgspec

from telemetry.observability import metrics

log = logging.getLogger(__name__)

ERRORS = (ValueError, OverflowError, msgspec.MsgspecError)
"""Errors of decoders of stored values, including invalid UTF-8 and times beyond the calendar."""

MAX_LOGGED = 1_000
"""Maximum number of values logged by one process; further ones are only counted."""

Kind = Literal["keys", "latest", "sessions", "uses", "users"]
T = TypeVar("T")

_logged: set[tuple[Kind, str]] = set()


def count_from_zero() -> None:
    """Create the counters of each kind, with the value 0."""
    for kind in get_args(Kind):
        metrics.UNDECODABLE.of(kind)


def skip(kind: Kind, name: str, error: Exception) -> None:
    """Count a value that cannot be decoded, and log it unless this process has logged it before."""
    metrics.UNDECODABLE.of(kind).add()
    if (kind, name) in _logged or len(_logged) >= MAX_LOGGED:
        return
    _logged.add((kind, name))
    log.error("cannot decode %r of %s in Redis: %s; it is skipped: correct or delete it", name, kind, error)


def decoded(kind: Kind, fields: Iterable[tuple[bytes, bytes]], decode: Callable[[bytes], T]) -> dict[str, T]:
    """The fields of a hash by name, without those that cannot be decoded."""
    values = dict[str, T]()
    for name, text in fields:
        try:
            values[name.decode()] = decode(text)
        except ERRORS as error:
            skip(kind, name.decode(errors="backslashreplace"), error)
    return values
