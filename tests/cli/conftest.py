"""What tests of commands share: one call as `main` would make it, and all that came of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from cli.command import Command
from telemetry.config.settings import Settings


class Ran(NamedTuple):
    """What a command said and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command with these settings and arguments."""

    def call(command: Command, settings: Settings, *arguments: object) -> Ran:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        status = command.run(parser.parse_args([str(one) for one in arguments]), settings)
        return Ran(status, *capsys.readouterr())

    return call
