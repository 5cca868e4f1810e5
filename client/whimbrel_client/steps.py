"""What a client does, step by step, without doing it.

A generator yields what it needs next: an answer of the box (`Ask`), a pause (`Wait`), or something that may take the
disk's time (`Do`). Whoever runs it does that with blocking calls or with an event loop (delivery/http_client.py), so
that everything that decides is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Ask(NamedTuple):
    """A request. Its answer is an `Answer`; `BoxUnavailable` is thrown in where none comes."""

    method: str
    path: str
    parameters: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Answer(NamedTuple):
    """What the box answered, whole. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Wait(NamedTuple):
    """A pause."""

    seconds: float


class Do(NamedTuple):
    """A call that may take the disk's time; its result comes back, its exception is thrown in."""

    call: Callable[[], Any]


Steps = Generator[Ask | Wait | Do, Any, T]
"""What needs steps to come to a `T`."""
