"""Kinds of arguments, for argparse's `type`: each parses a text or reports the expected form."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError

import httpx


def pair(text: str) -> tuple[str, str]:
    """`NAME=VALUE`."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ArgumentTypeError(f"{text!r} must be like device_id=vehicle_id")
    return name, value


def count(text: str) -> int:
    """A whole number from 1."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def quantity(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"{text!r} must be a number above 0")
    return number


def amount(text: str) -> float:
    """A number from 0."""
    return 0.0 if text.strip() in ("0", "0.0") else quantity(text)


def seconds_ms(text: str) -> int:
    """Seconds, as whole ms, at least one."""
    return max(1, round(quantity(text) * 1_000))


def url(text: str) -> str:
    """An `http://` or `https://` URL, without a slash at its end."""
    try:
        parsed = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ArgumentTypeError(f"{text!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ArgumentTypeError(f"{text!r} must be like http://127.0.0.1:8000")
    return text.rstrip("/")


def address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT`."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise ArgumentTypeError(f"{text!r} must be HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)
