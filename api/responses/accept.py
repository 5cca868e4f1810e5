"""Media ranges of `Accept` headers (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MAX_INDENT = 8


class Range(NamedTuple):
    """One media range of an `Accept` header (RFC 9110, 12.5.1)."""

    name: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> Range:
        name, *parameters = (part.strip() for part in text.split(";"))
        pairs = (part.partition("=")[::2] for part in parameters)
        return cls(name.lower(), {key.strip().lower(): value.strip().strip('"') for key, value in pairs})

    @property
    def exactness(self) -> int:
        if self.name.startswith("*"):
            return 0
        if self.name.endswith("/*"):
            return 1
        return 3 if self.parameters.keys() - {"q"} else 2

    @property
    def indent(self) -> int | None:
        try:
            return max(min(int(self.parameters["indent"]), MAX_INDENT), 0) or None
        except (KeyError, ValueError):
            return None

    def matches(self, media_type: str) -> bool:
        main, sub = media_type.split("/")
        return self.name in ("*", "*/*", f"{main}/*", f"{main}/{sub}")
