"""Who is told of a step: nobody, or whoever listens at the named socket; and nobody waits for one who is gone."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from telemetry.system.failpoints import VARIABLE, no_step_reporter, step_reporter

WAIT_S = 10.0


def test_without_the_variable_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert step_reporter("save") is no_step_reporter


def test_a_program_waits_at_a_step_until_the_listener_lets_it_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "steps.sock"
    monkeypatch.setenv(VARIABLE, str(path))
    passed = threading.Event()

    def program() -> None:
        step_reporter("save")("make last")
        passed.set()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=program)
        thread.start()
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"save make last\n"
            assert not passed.wait(0.2)
        thread.join(30)
        assert passed.is_set()


def test_a_listener_that_is_gone_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "steps.sock"
    monkeypatch.setenv(VARIABLE, str(path))
    assert passes("before there is one")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert passes("when it has left its file")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(WAIT_S)
        hanging_up = threading.Thread(target=lambda: listener.accept()[0].close())
        hanging_up.start()
        assert passes("when it hangs up")
        hanging_up.join(WAIT_S)


def passes(step: str) -> bool:
    """Whether a program gets past a step."""
    program = threading.Thread(target=lambda: step_reporter("save")(step), daemon=True)
    program.start()
    program.join(WAIT_S)
    return not program.is_alive()
