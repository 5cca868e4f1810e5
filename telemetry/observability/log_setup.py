"""Log output: one line per event on standard error, as text or JSON, with a limit on repeated lines.

    2026-11-24T10:25:00.052Z worker ERROR worker.jobs: shard 0: cannot save, its records wait in Redis: …

A traceback follows as indented lines, or is a field of the JSON. Control characters in a message, line breaks included,
are escaped, so that a sender cannot forge log lines with a name. No module logs a payload, a key, a token or a query.
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
"""Id of the current request (request_id.py); empty outside of requests."""

WINDOW_S = 10.0
MAX_REPEATS = 20
"""Maximum number of lines from one place in the code within `WINDOW_S`; further lines are dropped and counted."""

MAX_PLACES = 1_000
"""Number of places in the code that are tracked."""

QUIETER = {"uvicorn.error": logging.WARNING}
"""Minimum severity of libraries' loggers."""

COUNTED_FROM_START = ("debug", "info", "warning", "error", "critical")
"""Severities whose counter exists from the start, at 0, so that alarms see the first increase."""


def of_connection(name: str) -> dict[str, str]:
    """The `extra` argument for a log line about a TCP connection."""
    return {"connection": name}


def log_to_stderr(level: str, form: str, program: str) -> None:
    """Configure the log; `level` and `form` are the settings `log.level` and `log.format`."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json(program) if form == "json" else Text(program))
    handler.addFilter(RepeatLimit())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for severity in COUNTED_FROM_START:
        metrics.LOG_LINES.of(severity)
    _ = metrics.LOG_LINES_LEFT_OUT.one
    for name, least in QUIETER.items():
        logging.getLogger(name).setLevel(least)


class RepeatLimit(logging.Filter):
    """Drops repeated lines: too many from one place in the code, whatever their arguments.

    The next line from there reports the number of dropped lines.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._kinds: dict[tuple[str, int], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the line is to be written."""
        now_s = self._monotonic()
        source = record.pathname, record.lineno
        kind = self._kinds.get(source)
        if kind is None:
            if len(self._kinds) >= MAX_PLACES:
                self._kinds.clear()
            kind = self._kinds[source] = _Kind(now_s)
        left_out = kind.left_out
        if not kind.may_write(now_s):
            metrics.LOG_LINES_LEFT_OUT.one.add()
            return False
        if left_out:
            record.left_out = left_out
        metrics.LOG_LINES.of(record.levelname.lower()).add()
        return True


class _Kind:
    """Recent lines from one place in the code."""

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._written = 0
        self.left_out = 0

    def may_write(self, now_s: float) -> bool:
        if now_s - self._begun_s >= WINDOW_S:
            self._begun_s, self._written = now_s, 0
        if self._written >= MAX_REPEATS:
            self.left_out += 1
            return False
        self._written += 1
        self.left_out = 0
        return True


class Text(logging.Formatter):
    """Formats lines for people."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """The line, followed by its traceback."""
        left_out = getattr(record, "left_out", 0)
        name = getattr(record, "connection", "") or REQUEST_ID.get()
        request = f" [{name}]" if name else ""
        note = f" (and {left_out} more like this before)" if left_out else ""
        message = printable(record.getMessage())
        line = f"{moment_of(record)} {self._program} {record.levelname} {record.name}: {message}{request}{note}"
        return "\n    ".join([line, *_traceback(self, record)])


class Json(logging.Formatter):
    """Formats lines for programs: one JSON object each."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """The JSON object."""
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
    """The time of a line, in UTC with ms."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    traceback = formatter.formatException(record.exc_info) if record.exc_info else ""
    return [printable(line) for line in traceback.split("\n")] if traceback else []
