"""What a subcommand of `whimbrel` is: one module with a function each for its arguments and its work."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Literal, NamedTuple

from telemetry.config.settings import Settings

OK = 0
FAILED = 1
"""Exit status: something was refused or could not be done; it was said on standard error."""


Writes = Literal["user", "data", "archive"]
"""Whose files a command writes: the user's own, by the user's umask; or private ones in the data folder or a backup,
perhaps also those of the archive."""


def _changes_nothing(_args: argparse.Namespace) -> str:
    return ""


class Command(NamedTuple):
    """A subcommand: a sentence for `--help`, its arguments, and what it does, returning the exit status."""

    sentence: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Settings], int]
    writes: Writes = "user"
    action: Callable[[argparse.Namespace], str] = _changes_nothing
    """What it changes with these arguments, as the audit log names it, like `keys.create`; empty if nothing."""
