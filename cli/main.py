"""The `whimbrel` command: its subcommands are listed at the end."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import NoReturn

from cli.audited import audited
from cli.command import FAILED, Command
from cli.output import drop_output, has_reader, output
from telemetry import unneeded
from telemetry.config import load
from telemetry.errors import WhimbrelError
from telemetry.permissions import keep_private, share_archive
from telemetry.terminal_text import printable

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand, the one of this process unless `argv` says another; returns its exit status.

    A reader of standard output that leaves early (`| head`) is no error, but a command that it cut off has failed.
    """
    if argv is None:
        unneeded.refuse()
    try:
        return _run(argv)
    except BrokenPipeError:
        if has_reader():  # it was another pipe that broke
            raise
        drop_output()
        return FAILED
    finally:
        with output():
            pass  # what is left is written out


def _run(argv: Sequence[str] | None) -> int:
    top = top_parser()
    chosen = top.parse_args(argv)
    if chosen.command not in COMMANDS:
        top.error(f"there is no command {chosen.command}; known are {', '.join(COMMANDS)}")
    command = find(chosen.command)
    parser = argparse.ArgumentParser(prog=f"whimbrel {chosen.command}", description=command.sentence)
    parser.add_argument("--config", metavar="FILE", default=chosen.config, help="settings file")
    command.add_arguments(parser)
    args = parser.parse_args(chosen.arguments)
    try:
        settings = load(args.config)
        if command.writes != "user":
            keep_private()
        if command.writes == "archive":
            share_archive(settings)
        action = command.action(args)
        if not action:
            return command.run(args, settings)
        with audited(chosen.command, action, args, settings) as outcome:
            outcome.status = command.run(args, settings)
        return outcome.status
    except WhimbrelError as error:
        print(printable(f"whimbrel {chosen.command}: {error}", keeps_lines=True), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def top_parser() -> argparse.ArgumentParser:
    """The parser up to the subcommand's name; what follows is the subcommand's own."""
    parser = _Parser(prog="whimbrel", description="Collect device telemetry and lose nothing of it.")
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--config", metavar="FILE", help="settings file (else WHIMBREL_CONFIG, else config.toml)")
    parser.add_argument("command", metavar="COMMAND", help=f"{', '.join(COMMANDS)}; COMMAND --help tells more")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="arguments of the command")
    return parser


class _Version(argparse.Action):
    """Prints the version of this installation. It is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"whimbrel {importlib.metadata.version('whimbrel')}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Lists the commands at the end of its help."""

    def format_help(self) -> str:
        lines = [f"  {name:<10} {find(name).sentence}" for name in COMMANDS]
        return super().format_help() + "\ncommands:\n" + "\n".join(lines) + "\n"


def find(name: str) -> Command:
    """A subcommand. Only its own module is loaded: `whimbrel up` runs for months and needs no DuckDB."""
    module, _, attribute = COMMANDS[name].partition(":")
    command: Command = getattr(importlib.import_module(module), attribute)
    return command


COMMANDS: dict[str, str] = {
    "up": "cli.up:COMMAND",
    "demo": "cli.demo.command:COMMAND",
    "redis": "cli.redis_server:COMMAND",
    "systemd": "cli.systemd:COMMAND",
    "send": "cli.send:COMMAND",
    "import": "cli.importing:COMMAND",
    "simulate": "cli.simulate:COMMAND",
    "latest": "cli.query:LATEST",
    "history": "cli.query:HISTORY",
    "export": "cli.export:COMMAND",
    "files": "cli.files:COMMAND",
    "shell": "cli.shell:COMMAND",
    "status": "cli.status:COMMAND",
    "doctor": "cli.doctor:COMMAND",
    "drain": "cli.saving:DRAIN",
    "compact": "cli.compacting:COMPACT",
    "retain": "cli.compacting:RETAIN",
    "recover": "cli.saving:RECOVER",
    "backup": "cli.backup:COMMAND",
    "restore": "cli.restore:COMMAND",
    "quarantine": "cli.quarantine:COMMAND",
    "senders": "cli.senders:COMMAND",
    "decode": "cli.decode:COMMAND",
    "sniff": "cli.sniff:COMMAND",
    "devices": "cli.devices:COMMAND",
    "keys": "cli.keys:COMMAND",
    "users": "cli.users:COMMAND",
    "audit": "cli.audit:COMMAND",
}
"""Name → where its `Command` is."""

if __name__ == "__main__":
    sys.exit(main())
