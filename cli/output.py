"""Standard output whose reader may leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from telemetry.terminal_text import printable_json


@contextmanager
def output() -> Iterator[None]:
    """Stop quietly when the reader of standard output has had enough (`| head`)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end


def print_json(data: str | bytes) -> None:
    """Print a line of JSON: as it is for programs, and to a terminal without characters that would command it."""
    text = data if isinstance(data, str) else data.decode()
    print(printable_json(text) if sys.stdout.isatty() else text, flush=sys.stdout.isatty())
