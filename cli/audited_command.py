"""Records a command that changes something in the audit log: before it does, and with which outcome it ended."""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from typing import Any

from telemetry.audit.entry import Actor
from telemetry.audit.writer import Audit
from telemetry.config.settings import Settings

PROGRAM = "local"
SECRET = ("key",)
UNSAID = ("config", "json", "quiet", "device")
"""Arguments that are no details: those that are secret, and those that change nothing or have a field of their own."""


class Outcome:
    """Details that a command adds to its entry when it is done."""

    def __init__(self) -> None:
        self.status = 0
        self.details: dict[str, Any] = {}


_outcome = Outcome()


def note(**details: Any) -> None:
    """Add details to the entry of the command that runs, such as the id of a key that it has made."""
    _outcome.details.update(details)


def local_user() -> Actor:
    """The machine's user that runs the command, as `uid:login`; under sudo, the caller of sudo."""
    uid = os.environ.get("SUDO_UID", "")
    uid = uid if uid.isdecimal() else str(os.getuid())
    try:
        name = pwd.getpwuid(int(uid)).pw_name
    except (KeyError, OverflowError):
        name = ""
    return Actor("local", f"{uid}:{name}")


@contextlib.contextmanager
def audited(command: str, action: str, args: argparse.Namespace, settings: Settings) -> Iterator[Outcome]:
    """Within this a command makes its change. Raises `AuditError` before it, if that cannot be recorded."""
    global _outcome  # noqa: PLW0603 - one command runs in a process, and its parts add to its entry from below
    _outcome = outcome = Outcome()
    audit = Audit.of(settings, PROGRAM)
    begun = audit.begin(
        action,
        local_user(),
        target=f"whimbrel {command}",
        device=_device(command, args),
        details=details_of(vars(args)),
    )
    outcome.status = 1
    try:
        yield outcome
    except BaseException as error:
        outcome.details["error"] = str(error) or type(error).__name__
        raise
    finally:
        audit.end(begun, outcome.status == 0, **outcome.details)


def _device(command: str, args: argparse.Namespace) -> str:
    found = args.id if command == "devices" else getattr(args, "device", None)
    return ",".join(found) if isinstance(found, list) else str(found or "")


def details_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a command without secrets, and without those that were not given."""
    return {
        name: value
        if isinstance(value, bool | int)
        else [str(one) for one in value]
        if isinstance(value, list)
        else str(value)
        for name, value in arguments.items()
        if name not in (*SECRET, *UNSAID) and value not in (None, "", False, [])
    }
