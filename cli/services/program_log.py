"""The log of `whimbrel up`: the lines of supervisord and Redis in the form of the programs' own lines.

    2026-11-24T10:25:00.052Z up INFO supervisor: collector started, process 4711

A start is one line a program and the addresses. What supervisord and Redis say of every start and stop is of severity
DEBUG, and so is what `whimbrel doctor` reports; lines of the programs themselves stay as they are.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from cli.services.supervisor_config import REDIS
from telemetry.config.settings import Log
from telemetry.observability.log_setup import Json, Text

SUPERVISORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (BLAT|TRAC|DEBG|INFO|WARN|ERRO|CRIT) (.*)")
"""supervisord's lines: time, severity, message."""

LEVELS = {"INFO": logging.INFO, "WARN": logging.WARNING, "ERRO": logging.ERROR, "CRIT": logging.CRITICAL}

REDIS_LINE = re.compile(r"\d+:(?:[A-Z] \d\d \w{3} \d{4} [\d:.]+ ([.*#-])|(signal-handler) \(\d+\)) (.*)")
"""Lines of Redis and Valkey: process, role, time, severity, message; those of a signal lack role and severity."""

REDIS_WARNING = "#"


class Rule(NamedTuple):
    """A message, the severity that it has here, and the words for it; without words it stays as it is."""

    pattern: re.Pattern[str]
    level: int
    words: str = ""


SUPERVISORD_RULES = (
    Rule(re.compile(r"spawned: '(\w+)' with pid (\d+)"), logging.INFO, r"\1 started, process \2"),
    Rule(re.compile(r"stopped: (\w+) \((exit status 0)\)"), logging.INFO, r"\1 stopped: \2"),
    Rule(re.compile(r"stopped: (\w+) \((.*)\)"), logging.WARNING, r"\1 stopped: \2"),
    Rule(
        re.compile(r"exited: (\w+) \((.*); (?:not )?expected\)"),
        logging.WARNING,
        r"\1 ended by itself: \2; it is started again",
    ),
    Rule(
        re.compile(r"killing '(\w+)' \((\d+)\) with SIGKILL"),
        logging.WARNING,
        r"\1 does not stop: process \2 is killed",
    ),
    Rule(
        re.compile(
            r"success: |Set uid |RPC interface |supervisord started |waiting for .+ to (?:die|stop)|"
            r"received \w+ indicating exit request|reaped unknown pid "
        ),
        logging.DEBUG,
    ),
)
"""The first one that fits counts."""

REDIS_RULES = (
    Rule(re.compile(r"\S+ is now ready to exit"), logging.DEBUG),
    Rule(re.compile(r"WARNING:? (?:Memory overcommit|overcommit_memory)"), logging.DEBUG),
)
"""Warnings of Redis that are none here. `whimbrel doctor` reports the second one, and what to do."""


class ProgramLog:
    """Gives each line its form, by the settings of the log."""

    def __init__(self, settings: Log) -> None:
        self._least = getattr(logging, settings.level.upper())
        form = Json if settings.format == "json" else Text
        self._up, self._redis = form("up"), form(REDIS)

    def of(self, line: bytes) -> bytes:
        """The line as it is to be printed; empty if it is below the least severity."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if found := SUPERVISORD.fullmatch(text):
            level = LEVELS.get(found[1], logging.DEBUG)
            return self._printed(self._up, "supervisor", *_judged(found[2], level, SUPERVISORD_RULES))
        if found := REDIS_LINE.fullmatch(text):
            level = logging.WARNING if found[1] == REDIS_WARNING else logging.DEBUG
            return self._printed(self._redis, REDIS, *_judged(found[3], level, REDIS_RULES))
        return line

    def _printed(self, form: logging.Formatter, name: str, message: str, level: int) -> bytes:
        if level < self._least:
            return b""
        record = logging.LogRecord(name, level, "", 0, message, None, None)
        record.created = time.time()
        return form.format(record).encode() + b"\n"


def _judged(message: str, level: int, rules: Sequence[Rule]) -> tuple[str, int]:
    """The message in our words, and its severity."""
    for rule in rules:
        if found := rule.pattern.match(message):
            return found.expand(rule.words) if rule.words else message, rule.level
    return message, level
