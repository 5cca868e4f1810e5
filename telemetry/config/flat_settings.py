"""Settings as flat pairs of name and value, with secrets hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

SECRET = re.compile(r"(password|secret|token|key)$")
HEADERS = ".headers."
FROM_ELSEWHERE = re.compile(r"(env|file):.")
NOT_SECRET = {"tls.key"}
"""Settings that look like secrets but are not: this one is the path of a file."""


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs like ("forward[2].url", "https://…"). Entries count from 1; a list of plain values is one value."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value):
            for number, entry in enumerate(value, 1):
                yield from flat(entry, f"{name}[{number}].")
        else:
            yield name, value


def is_secret(name: str) -> bool:
    """True if the setting with this flat name may contain a secret; every header may."""
    return name not in NOT_SECRET and (HEADERS in name or SECRET.search(name) is not None)


def holds_secret(name: str, value: object) -> bool:
    """True if a value is a secret itself: not empty, and not a reference, `env:NAME` or `file:PATH`."""
    if not isinstance(value, str) or not value:
        return False
    if name.endswith("url"):
        return urlsplit(value).password is not None
    return is_secret(name) and FROM_ELSEWHERE.match(value) is None


def shown(name: str, value: object) -> object:
    """The value without secrets: a secret becomes `(secret)`, and of a URL only scheme and host remain."""
    if holds_secret(name, value) and not name.endswith("url"):
        return "(secret)"
    if name.endswith("url") and isinstance(value, str) and "://" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://{re.split(r'[/?#]', rest)[0].rpartition('@')[2]}"
    return value
