"""`whimbrel doctor`: whether the machine, Redis and the archive can keep the box's promises."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from typing import Literal

from tqdm import tqdm

from cli.command import FAILED, OK, Command
from cli.doctor import certificate, machine, permissions, redis, redis_access
from cli.doctor.finding import Finding
from telemetry.config.settings import Settings
from telemetry.model.terminal_text import printable

Check = Callable[[Settings], Iterable[Finding]]

DESCRIPTION = """\
Check what the box stands on, whether it runs or not: how fast the disk is, its kind and room, who may
change or read its folders and secrets, ports, the certificate, limits, the clock, the libraries, Redis's settings and
users, and whether Redis and archive belong together. Each finding is ok, a warning or a failure, and the last two say
what to do.

The exit status is 0 if there is no failure, else 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Check all; 0 if nothing failed."""
    found: list[tuple[str, Finding]] = []
    for name, check in tqdm(CHECKS.items(), unit=" checks", disable=True if args.json else None, leave=False):
        found += [(name, finding) for finding in check(settings)]
    if args.json:
        checks = [{"check": name, **finding._asdict()} for name, finding in found]
        print(json.dumps({"status": worst(finding for _, finding in found), "checks": checks}))
    else:
        for name, finding in found:
            print(_line(name, finding))
    return FAILED if worst(finding for _, finding in found) == "failure" else OK


def worst(findings: Iterable[Finding]) -> Literal["ok", "warning", "failure"]:
    """The level of the worst of them."""
    levels = {finding.level for finding in findings}
    return "failure" if "failure" in levels else "warning" if "warning" in levels else "ok"


def _line(name: str, finding: Finding) -> str:
    line = f"{finding.level:<8} {name:<13} {printable(finding.text, keeps_lines=True)}"
    return f"{line}\n{'':<23}{printable(finding.advice, keeps_lines=True)}" if finding.advice else line


CHECKS: dict[str, Check] = {
    "disk writes": machine.disk_writes,
    "file system": machine.file_system,
    "disk space": machine.disk_space,
    "folders": machine.folders,
    "readers": permissions.readers,
    "ports": machine.ports,
    "certificate": certificate.certificate,
    "open files": machine.open_files,
    "clock": machine.time_of_day,
    "libraries": machine.versions,
    "Redis": redis.server,
    "access": redis_access.access,
    "kernel": redis.kernel,
    "archive": redis.together,
}
"""Name → check, in the order in which they are told."""

COMMAND = Command("Check the machine, Redis and the archive, and say what to mend.", add_arguments, run)
