"""How programs start and fail: a clear sentence, the right status, and no restart in a hurry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.startup.program import PAUSE_S, QUIET_S, WRONG_SETTINGS, WaitLog
from telemetry.startup.store_setup import set_up
from telemetry.system.process import SUPERVISED

PROGRAMS = ("collector", "worker", "compactor", "api")


def environ(settings: Settings, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL")}
    own = {"WHIMBREL__REDIS__URL": settings.redis.url, "WHIMBREL__DATA__DIR": str(settings.data_dir)}
    return kept | own | more


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_wrong_setting_ends_the_start_with_a_sentence(program: str, settings: Settings) -> None:
    env = environ(settings, WHIMBREL__PERSIST__FLUSH_RECORDS="many")
    done = subprocess.run([sys.executable, "-m", program], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == WRONG_SETTINGS
    assert done.stderr.count("\n") == 1
    assert "WHIMBREL__PERSIST__FLUSH_RECORDS" in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_another_number_of_shards_is_refused(
    program: str, settings: Settings, client: redis.Redis, archive: Archive
) -> None:
    set_up(client, archive, 1)
    env = environ(settings, WHIMBREL__REDIS__SHARDS="2")
    done = subprocess.run([sys.executable, "-m", program], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == WRONG_SETTINGS
    assert "it was made with 1, which is fixed" in done.stderr


def test_under_a_supervisor_a_failure_waits_before_it_ends(settings: Settings) -> None:
    env = environ(settings, WHIMBREL__REDIS__SHARDS="none") | {SUPERVISED: str(os.getpid())}
    began_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "collector"], env=env, stderr=subprocess.DEVNULL) as program:
        assert program.wait(30) == WRONG_SETTINGS
    assert time.monotonic() - began_s > PAUSE_S


def test_no_character_of_a_setting_commands_the_terminal(settings: Settings, tmp_path: Path) -> None:
    env = environ(
        settings, WHIMBREL__DATA__DIR=str(tmp_path / "a\x1b]0;b\x07"), WHIMBREL__PERSIST__FLUSH_RECORDS="\x1b[2J"
    )
    done = subprocess.run([sys.executable, "-m", "collector"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == WRONG_SETTINGS
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip("\n").isprintable()
    assert "x1b[2J" in done.stderr


def test_a_wait_is_logged_once_at_info_and_only_if_it_is_long(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 0.0, 1.0, QUIET_S - 0.1, QUIET_S, QUIET_S + 1, QUIET_S + 2))
    tell = WaitLog(lambda: next(times))
    with caplog.at_level("DEBUG", "start"):
        for reason in ["no Redis"] * 5 + ["no store"]:
            tell(reason)
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert levels == [("DEBUG", "no Redis"), ("INFO", "no Redis"), ("INFO", "no store")]


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_waits_for_redis_and_stops_when_told(program: str, tmp_path: Path, settings: Settings) -> None:
    env = environ(settings, WHIMBREL__LOG__LEVEL="debug") | {"WHIMBREL__REDIS__URL": f"unix://{tmp_path}/none.sock"}
    with subprocess.Popen([sys.executable, "-m", program], env=env, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any("waiting for Redis" in line for line in running.stderr)
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
