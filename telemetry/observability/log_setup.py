"""The log: one line an event on standard error, as text or as JSON, and no flood of lines that are alike.

    2026-11-24T10:25:00.052Z worker ERROR worker.jobs: shard 0: cannot save, its records wait in Redis: …

A traceback follows as indented lines, or is one field of the JSON. A line break or another control character in a
message is written as an escape, so that nobody who sends a name to the box can write lines of its log. Nothing here or
elsewhere logs a payload, a key, a token or a query.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

import msgspec

from telemetry.model.terminal_text import printable
from telemetry.observability import metrics

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The name of the request that is answered (request_id.py); empty elsewhere."""

WINDOW_S = 10.0
MOST_ALIKE = 20
"""Lines of one place in the code within so many seconds; what is beyond is left out, and counted."""

MAX_PLACES = 1_000
"""Places that are remembered: there are some two hundred."""

QUIETER = {"uvicorn.error": logging.WARNING}
"""Loggers of libraries, and the least that is of interest of what they say."""

COUNTED_FROM_START = ("debug", "info", "warning", "error", "critical")
"""Severities whose count is 0, not missing, before there is a line: what rises from 0 can set off an alarm."""


def of_connection(name: str) -> dict[str, str]:
    """What a line about a connection of TCP is given as `extra`: the connection's name."""
    return {"connection": name}


def log_to_stderr(level: str, form: str, program: str) -> None:
    """Log from now on; `level` and `form` as the settings `log.level` and `log.format` have them."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json(program) if form == "json" else Text(program))
    handler.addFilter(Alike())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for severity in COUNTED_FROM_START:
        metrics.LOG_LINES.of(severity)
    _ = metrics.LOG_LINES_LEFT_OUT.one
    for name, least in QUIETER.items():
        logging.getLogger(name).setLevel(least)


class Alike(logging.Filter):
    """Leaves out lines that are too many of a kind: what one place in the code says, whatever of whom.

    The next line of the kind says how many were left out before it.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._kinds: dict[tuple[str, int], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        now_s = self._monotonic()
        place = record.pathname, record.lineno
        kind = self._kinds.get(place)
        if kind is None:
            if len(self._kinds) >= MAX_PLACES:
                self._kinds.clear()
            kind = self._kinds[place] = _Kind(now_s)
        left_out = kind.left_out
        if not kind.may_write(now_s):
            metrics.LOG_LINES_LEFT_OUT.one.add()
            return False
        if left_out:
            record.left_out = left_out
        metrics.LOG_LINES.of(record.levelname.lower()).add()
        return True


class _Kind:
    """How many lines of one kind there were of late."""

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._written = 0
        self.left_out = 0

    def may_write(self, now_s: float) -> bool:
        if now_s - self._begun_s >= WINDOW_S:
            self._begun_s, self._written = now_s, 0
        if self._written >= MOST_ALIKE:
            self.left_out += 1
            return False
        self._written += 1
        self.left_out = 0
        return True


class Text(logging.Formatter):
    """A line as people read it."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """The line, and behind it those of a traceback."""
        left_out = getattr(record, "left_out", 0)
        name = getattr(record, "connection", "") or REQUEST_ID.get()
        request = f" [{name}]" if name else ""
        note = f" (and {left_out} more like this before)" if left_out else ""
        said = printable(record.getMessage())
        line = f"{moment_of(record)} {self._program} {record.levelname} {record.name}: {said}{request}{note}"
        return "\n    ".join([line, *_traceback(self, record)])


class Json(logging.Formatter):
    """A line as programs read it: one object."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        found: dict[str, object] = {
            "time": moment_of(record),
            "level": record.levelname.lower(),
            "program": self._program,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if name := getattr(record, "connection", ""):
            found["connection"] = name
        elif name := REQUEST_ID.get():
            found["request_id"] = name
        if left_out := getattr(record, "left_out", 0):
            found["left_out"] = left_out
        if lines := _traceback(self, record):
            found["traceback"] = "\n".join(lines)
        return msgspec.json.encode(found).decode()


def moment_of(record: logging.LogRecord) -> str:
    """When, in UTC with ms."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    found = formatter.formatException(record.exc_info) if record.exc_info else ""
    return [printable(line) for line in found.split("\n")] if found else []
