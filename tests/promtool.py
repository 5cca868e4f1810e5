"""Debian's promtool, which checks metrics and rules as Prometheus does."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

from tests.box import PROJECT

OPERATIONS = PROJECT / "docs" / "operations"
ALERTS = OPERATIONS / "alerts.yml"

PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (scripts/install-promtool)")


class Alarm(NamedTuple):
    """One of the alert rules."""

    name: str
    expr: str
    summary: str
    runbook_url: str


def alarms() -> list[Alarm]:
    """All of them, as the file has them: one key a line."""
    found = []
    for text in ALERTS.read_text(encoding="utf-8").split("      - alert: ")[1:]:
        name, _, rest = text.partition("\n")
        values = dict(re.findall(r'^ +(\w+): ["\']?(.*?)["\']?$', rest, re.M))
        found.append(Alarm(name, values["expr"], values["summary"], values["runbook_url"]))
    return found


def promtool(*arguments: str, stdin: str = "") -> None:
    """Run promtool; the test fails for each fault that it reports."""
    done = subprocess.run([PROMTOOL, *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(expr: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(re.findall(r"\bwhimbrel_\w+", re.sub(r'"[^"]*"', '""', expr)))
