"""Lines of supervisord and Redis are rewritten in the format of the programs' log."""

from __future__ import annotations

import json
import re

import pytest

from cli.services.program_log import ProgramLog
from telemetry.config.settings import Log

TIME = "2026-12-02 16:40:01,226"
REDIS = "21410:M 02 Dec 2026 16:40:03.944"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
OVERCOMMIT = "WARNING Memory overcommit must be enabled! Without it, a background save or replication may fail"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{TIME} INFO spawned: 'api' with pid 21417", "up INFO supervisor: api started, process 21417"),
        (f"{TIME} INFO stopped: api (exit status 0)", "up INFO supervisor: api stopped: exit status 0"),
        (
            f"{TIME} WARN stopped: api (terminated by SIGKILL)",
            "up WARNING supervisor: api stopped: terminated by SIGKILL",
        ),
        (
            f"{TIME} WARN exited: query (terminated by SIGKILL; not expected)",
            "up WARNING supervisor: query ended by itself: terminated by SIGKILL; it is started again",
        ),
        (
            f"{TIME} INFO exited: query (exit status 0; expected)",
            "up WARNING supervisor: query ended by itself: exit status 0; it is started again",
        ),
        (
            f"{TIME} WARN killing 'worker' (77) with SIGKILL",
            "up WARNING supervisor: worker does not stop: process 77 is killed",
        ),
        (f"{TIME} CRIT could not write pidfile /x", "up CRITICAL supervisor: could not write pidfile /x"),
        (f"{REDIS} # Error writing to the AOF\x1b[2J", r"redis WARNING redis: Error writing to the AOF\x1b[2J"),
    ],
)
def test_lines_for_operators_have_the_format_of_the_log(line: str, said: str) -> None:
    for end in ("\n", "\r\n", ""):
        printed = ProgramLog(Log()).format((line + end).encode()).decode()
        assert re.fullmatch(f"{MOMENT} {re.escape(said)}\n", printed), printed


@pytest.mark.parametrize(
    "line",
    [
        f"{TIME} INFO Set uid to user 0 succeeded",
        f"{TIME} INFO RPC interface 'supervisor' initialized",
        f"{TIME} INFO supervisord started with pid 21392",
        f"{TIME} INFO success: redis entered RUNNING state, process has stayed up for > than 0 seconds (startsecs)",
        f"{TIME} WARN received SIGTERM indicating exit request",
        f"{TIME} INFO waiting for redis, api to die",
        f"{REDIS} * Ready to accept connections unix",
        f"{REDIS} # {OVERCOMMIT}",
        f"{REDIS} # Valkey is now ready to exit, bye bye...",
        "21410:signal-handler (1796229610) Received SIGTERM scheduling shutdown...",
    ],
)
def test_messages_of_every_start_and_stop_have_severity_debug(line: str) -> None:
    assert ProgramLog(Log()).format(f"{line}\n".encode()) == b""
    assert b" DEBUG " in ProgramLog(Log(level="debug")).format(f"{line}\n".encode())


def test_a_line_of_a_program_stays_as_it_is() -> None:
    for line in (b"2026-12-02T16:40:05.978Z api INFO api: answering\n", b"Traceback (most recent\n", b"\xff\n", b"\n"):
        assert ProgramLog(Log(level="error")).format(line) == line


def test_it_is_json_where_the_log_is() -> None:
    log = ProgramLog(Log(format="json"))
    found = json.loads(log.format(f"{TIME} INFO spawned: 'api' with pid 21417\n".encode()))
    assert (found.pop("time")[-1], found) == (
        "Z",
        {"level": "info", "program": "up", "logger": "supervisor", "message": "api started, process 21417"},
    )
    assert log.format(f"{REDIS} # \N{SNOWMAN}\n".encode()).isascii() is False


def test_lines_below_the_minimum_severity_are_left_out() -> None:
    log = ProgramLog(Log(level="warning"))
    assert log.format(f"{TIME} INFO spawned: 'api' with pid 1\n".encode()) == b""
    assert log.format(f"{REDIS} # Can't save\n".encode()) != b""
