"""The log of `whimbrel up`: rewrites lines of supervisord and Redis in the format of the programs' log.

    2026-11-24T10:25:00.052Z up INFO supervisor: collector started, process 4711

A start prints one line for each program, then the addresses. Other messages of supervisord and Redis about starts and
stops have severity DEBUG, and so have warnings that `whimbrel doctor` reports. Lines of the programs are not changed.
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
"""A line of supervisord: time, severity, message."""

LEVELS = {"INFO": logging.INFO, "WARN": logging.WARNING, "ERRO": logging.ERROR, "CRIT": logging.CRITICAL}

REDIS_LINE = re.compile(r"\d+:(?:[A-Z] \d\d \w{3} \d{4} [\d:.]+ ([.*#-])|(signal-handler) \(\d+\)) (.*)")
"""A line of Redis or Valkey: process, role, time, severity, message. Lines about signals lack role and severity."""

REDIS_WARNING = "#"


class Rule(NamedTuple):
    """A pattern of messages, their severity in the log, and the replacement text; without text the message is kept."""

    pattern: re.Pattern[str]
    level: int
    replacement: str = ""


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
"""The first matching rule applies."""

REDIS_RULES = (
    Rule(re.compile(r"\S+ is now ready to exit"), logging.DEBUG),
    Rule(re.compile(r"WARNING:? (?:Memory overcommit|overcommit_memory)"), logging.DEBUG),
)
"""Warnings of Redis that need no attention in this log. `whimbrel doctor` reports overcommit, with advice."""


class ProgramLog:
    """Formats lines as the log's settings require."""

    def __init__(self, settings: Log) -> None:
        self._min_level = getattr(logging, settings.level.upper())
        formatter = Json if settings.format == "json" else Text
        self._up, self._redis = formatter("up"), formatter(REDIS)

    def format(self, line: bytes) -> bytes:
        """The line to print; empty if its severity is below `log.level`."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if match := SUPERVISORD.fullmatch(text):
            level = LEVELS.get(match[1], logging.DEBUG)
            return self._formatted(self._up, "supervisor", *_rewritten(match[2], level, SUPERVISORD_RULES))
        if match := REDIS_LINE.fullmatch(text):
            level = logging.WARNING if match[1] == REDIS_WARNING else logging.DEBUG
            return self._formatted(self._redis, REDIS, *_rewritten(match[3], level, REDIS_RULES))
        return line

    def _formatted(self, formatter: logging.Formatter, name: str, message: str, level: int) -> bytes:
        if level < self._min_level:
            return b""
        record = logging.LogRecord(name, level, "", 0, message, None, None)
        record.created = time.time()
        return formatter.format(record).encode() + b"\n"


def _rewritten(message: str, level: int, rules: Sequence[Rule]) -> tuple[str, int]:
    """The message and severity after the first matching rule."""
    for rule in rules:
        if match := rule.pattern.match(message):
            return match.expand(rule.replacement) if rule.replacement else message, rule.level
    return message, level
