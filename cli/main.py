"""The `whimbrel` command: its subcommands are listed at the end."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import NoReturn

from cli.audited_command import audited
from cli.command import FAILED, Command
from cli.stdout import drop_output, has_reader, is_full, output
from telemetry.config.loader import load
from telemetry.model.errors import WhimbrelError
from telemetry.model.terminal_text import printable
from telemetry.startup import import_blocker
from telemetry.system.permissions import keep_private, share_archive

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand of `argv` (default: this process's arguments); returns its exit status.

    A reader of standard output that leaves early (`| head`) is no error, but a command that it cut off has failed.
    """
    if argv is None:
        import_blocker.refuse()
    try:
        return _run(argv)
    except BrokenPipeError:
        if has_reader():  # it was another pipe that broke
            raise
        drop_output()
        return FAILED
    finally:
        _write_rest()


def _write_rest() -> None:
    try:
        with output():
            pass
    except OSError as error:
        if not is_full(error):
            raise
        sys.exit(_unwritten("whimbrel", error))


def _unwritten(program: str, error: OSError) -> int:
    drop_output()
    print(f"{program}: cannot write the output: {error.strerror}", file=sys.stderr)
    return FAILED


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
    except OSError as error:
        if not is_full(error):
            raise
        return _unwritten(f"whimbrel {chosen.command}", error)
    except KeyboardInterrupt:
        return INTERRUPTED


def top_parser() -> argparse.ArgumentParser:
    """The parser up to the subcommand's name; the subcommand parses the rest."""
    parser = _Parser(prog="whimbrel", description="Collect device telemetry and lose nothing of it.")
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--config", metavar="FILE", help="settings file (else WHIMBREL_CONFIG, else config.toml)")
    parser.add_argument("command", metavar="COMMAND", help=f"{', '.join(COMMANDS)}; COMMAND --help for details")
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
    "up": "cli.services.up:COMMAND",
    "demo": "cli.demo.command:COMMAND",
    "redis": "cli.redis_server.command:COMMAND",
    "systemd": "cli.services.systemd:COMMAND",
    "send": "cli.sending.send:COMMAND",
    "import": "cli.imports.command:COMMAND",
    "simulate": "cli.sending.simulate:COMMAND",
    "latest": "cli.querying.query:LATEST",
    "history": "cli.querying.query:HISTORY",
    "export": "cli.querying.export:COMMAND",
    "files": "cli.querying.files:COMMAND",
    "shell": "cli.querying.shell:COMMAND",
    "status": "cli.admin.status:COMMAND",
    "doctor": "cli.doctor.command:COMMAND",
    "drain": "cli.admin.drain_recover:DRAIN",
    "compact": "cli.admin.compact_retain:COMPACT",
    "retain": "cli.admin.compact_retain:RETAIN",
    "recover": "cli.admin.drain_recover:RECOVER",
    "backup": "cli.backup.backup_command:COMMAND",
    "restore": "cli.backup.restore_command:COMMAND",
    "quarantine": "cli.admin.quarantine:COMMAND",
    "senders": "cli.admin.senders:COMMAND",
    "decode": "cli.trackers.decode:COMMAND",
    "sniff": "cli.trackers.sniff:COMMAND",
    "devices": "cli.admin.delete_device:COMMAND",
    "keys": "cli.admin.keys:COMMAND",
    "users": "cli.admin.users:COMMAND",
    "audit": "cli.admin.audit:COMMAND",
}
"""Name → where its `Command` is."""

if __name__ == "__main__":
    sys.exit(main())
