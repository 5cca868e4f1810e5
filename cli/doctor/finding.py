"""What a check of `whimbrel doctor` finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "failure"]


class Finding(NamedTuple):
    """How something is, and what to do about it."""

    level: Level
    text: str
    advice: str = ""


def ok(text: str) -> Finding:
    """As it should be."""
    return Finding("ok", text)


def warning(text: str, advice: str) -> Finding:
    """It works, but not as well as it could, or perhaps not for long."""
    return Finding("warning", text, advice)


def failure(text: str, advice: str) -> Finding:
    """The box can't keep its promises so."""
    return Finding("failure", text, advice)
