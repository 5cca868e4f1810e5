"""Standard output whose reader may leave."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from telemetry.model.terminal_text import printable_json

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def output() -> Iterator[None]:
    """Stop quietly when the reader of standard output has had enough (`| head`)."""
    try:
        yield
        print(end="", flush=True)  # unlike sys.stdout.flush() it takes a standard output that is closed
    except BrokenPipeError:
        drop_output()


def drop_output() -> None:
    """Have all further output go nowhere; Python flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_full(error: OSError) -> bool:
    """True if it was an output without a name, such as standard output, that could not be written."""
    return error.errno in FULL and error.filename is None


def has_reader() -> bool:
    """False if standard output is a pipe or a connection whose other end is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def print_json(data: str | bytes) -> None:
    """Print a line of JSON: as it is for programs, and to a terminal without characters that would command it."""
    text = data if isinstance(data, str) else data.decode()
    print(printable_json(text) if sys.stdout.isatty() else text, flush=sys.stdout.isatty())
