"""One line an event, as text or JSON, whatever is in it; and no flood of lines that are alike."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from telemetry.observability import metrics
from telemetry.observability.log_setup import MAX_REPEATS, WINDOW_S, Json, RepeatLimit, Text, of_connection

HOSTILE = 'a\nERROR "b"\r\x1b[31m\u2028c'


class Lines(logging.Handler):
    """What was written."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


log = logging.getLogger("tests.logs")
log.propagate = False


def test_text_is_one_line_with_its_moment_in_utc(lines: Lines) -> None:
    lines.setFormatter(Text("worker"))
    log.warning("shard %d: %s", 3, HOSTILE)
    [line] = lines.found
    assert line.isprintable()
    moment, _, rest = line.partition(" ")
    assert len(moment) == len("2026-11-24T10:25:00.052Z")
    assert moment.endswith("Z")
    assert rest == 'worker WARNING tests.logs: shard 3: a\\nERROR "b"\\r\\x1b[31m\\u2028c'


def test_json_is_one_object_a_line(lines: Lines) -> None:
    lines.setFormatter(Json("api"))
    log.error("it is %s", HOSTILE)
    [line] = lines.found
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {"level": "error", "program": "api", "logger": "tests.logs", "message": f"it is {HOSTILE}"}


def test_a_line_about_a_connection_says_which(lines: Lines) -> None:
    for form in (Text("collector"), Json("collector")):
        lines.setFormatter(form)
        log.warning("closed", extra=of_connection("c17f"))
    text, found = lines.found
    assert text.endswith(": closed [c17f]")
    assert json.loads(found)["connection"] == "c17f"


@pytest.mark.parametrize("form", [Text, Json])
def test_a_traceback_belongs_to_its_line(lines: Lines, form: type[Text] | type[Json]) -> None:
    lines.setFormatter(form("api"))
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("it fails")
    [text] = lines.found
    if form is Json:
        assert "\n" not in text
        assert json.loads(text)["traceback"].startswith("Traceback (most recent call last):\n")
    else:
        first, *others = text.split("\n")
        assert first.endswith("it fails")
        assert others[0] == "    Traceback (most recent call last):"
        assert all(line.startswith("    ") for line in others)


def test_what_is_alike_is_left_out_and_counted(lines: Lines) -> None:
    now_s = 0.0
    alike = RepeatLimit(lambda: now_s)
    lines.addFilter(alike)
    lines.setFormatter(Text("api"))
    before = metrics.LOG_LINES_LEFT_OUT.one.value
    for window in range(2):
        for number in range(100):
            log.warning("refusing %d", number)
        log.warning("another place")
        now_s += WINDOW_S
        assert len(lines.found) == (window + 1) * (MAX_REPEATS + 1)
    assert metrics.LOG_LINES_LEFT_OUT.one.value - before == 2 * (100 - MAX_REPEATS)
    assert [line for line in lines.found if "more like this" in line] == [lines.found[MAX_REPEATS + 1]]
    assert lines.found[MAX_REPEATS + 1].endswith(f"refusing 0 (and {100 - MAX_REPEATS} more like this before)")


PROGRAM = """
import logging
from telemetry.observability.log_setup import log_to_stderr
log_to_stderr("info", "json", "api")
logging.getLogger("a").info("said %s", "this")
logging.getLogger("a").debug("not this")
logging.getLogger("uvicorn.error").info("nor this")
from telemetry.observability import metrics as meters
print(sorted(meters.LOG_LINES.read()))
"""


def test_a_program_logs_so() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["said this"]
    assert done.stdout == "[(('critical',), 0), (('debug',), 0), (('error',), 0), (('info',), 1), (('warning',), 0)]\n"
