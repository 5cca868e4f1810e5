"""Definition of a subcommand of `whimbrel`: a module with one function for its arguments and one for its work."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Literal, NamedTuple

from telemetry.config.settings import Settings

OK = 0
FAILED = 1
"""Exit status: something was rejected or failed; standard error has the reason."""


Writes = Literal["user", "data", "archive"]
"""Files that a command writes: the user's own, with the user's umask; or private ones in the data folder or a backup,
possibly including the archive's."""


def _changes_nothing(_args: argparse.Namespace) -> str:
    return ""


class Command(NamedTuple):
    """A subcommand: a sentence for `--help`, its arguments, and a function that runs it and returns the exit status."""

    sentence: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Settings], int]
    writes: Writes = "user"
    action: Callable[[argparse.Namespace], str] = _changes_nothing
    """The change that it makes with these arguments, as named in the audit log, like `keys.create`; empty if none."""
