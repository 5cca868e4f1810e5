"""`whimbrel audit`, as its user types it."""

from __future__ import annotations

import json
import sys

import pytest

from cli import main as cli_main
from telemetry.audit.entry import Actor
from telemetry.audit.writer import Audit
from telemetry.config.settings import Settings

DEVICE = "van\u202e7\x9b2J"
"""An id that turns the text after it around, and clears a terminal."""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_json_commands_no_terminal_and_is_the_same_json(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    monkeypatch.setenv("WHIMBREL__DATA__DIR", str(settings.data_dir))
    Audit.of(settings, "api").happened("device.delete", Actor("key", "abcdefgh"), device=DEVICE)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    assert cli_main.main(["audit", "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.isprintable() is is_terminal
    assert json.loads(line)["device"] == DEVICE
