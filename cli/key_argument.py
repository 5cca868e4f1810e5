"""The key that a command shows the box: `--key`, else `WHIMBREL_KEY`."""

from __future__ import annotations

import argparse
import os

VARIABLE = "WHIMBREL_KEY"


def add_key_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--key`. Its value shows in lists of processes; the variable's does not."""
    parser.add_argument(
        "--key", metavar="KEY", default=None, help=f"API key (default: ${VARIABLE}; a flag is visible in process lists)"
    )


def given_key(args: argparse.Namespace) -> str:
    """The key that was given; empty if none was."""
    key: str | None = args.key
    return (os.environ.get(VARIABLE, "") if key is None else key).strip()
