"""The Procfile, and the configuration of supervisord that is made from it."""

import configparser
from pathlib import Path

import pytest

from cli.services.supervisor_config import configuration, read_procfile, wake
from telemetry.config.settings import PROJECT
from telemetry.model.errors import ConfigError


def test_the_procfile_lists_every_program() -> None:
    assert read_procfile(PROJECT / "Procfile") == {
        "redis": "whimbrel redis",
        "collector": "python -m collector",
        "worker": "python -m worker",
        "scheduler": "python -m compactor",
        "query": "python -m api.query",
        "api": "python -m api",
        "courier": "python -m worker.courier",
    }


def test_comments_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "Procfile"
    file.write_text("# programs\n\na-1:  run --this \nb_2: run\n")
    assert read_procfile(file) == {"a-1": "run --this", "b_2": "run"}


@pytest.mark.parametrize("line", ["python -m api", "api:", "a b: run", ": run"])
def test_another_line_is_refused_by_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "Procfile"
    file.write_text(f"api: run\n{line}\n")
    with pytest.raises(ConfigError, match="Procfile, line 2: "):
        read_procfile(file)


def parsed(**programs: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(configuration(programs))
    return parser


def test_redis_stops_after_all_others() -> None:
    found = parsed(redis="r", api="a", worker="w")
    assert found["group:whimbrel"]["programs"] == "api,worker"
    assert int(found["group:whimbrel"]["priority"]) > int(found["program:redis"]["priority"])


def test_a_box_hung_in_every_program_stops_within_ten_seconds() -> None:
    found = parsed(redis="r", api="a")
    assert sum(int(found[f"program:{name}"]["stopwaitsecs"]) for name in ("redis", "api")) < 10


def test_a_percent_sign_reaches_the_program() -> None:
    assert parsed(api="run 100%")["program:api"]["command"] == "run 100%%"


def test_no_supervisor_to_wake(tmp_path: Path) -> None:
    assert not wake(tmp_path)
