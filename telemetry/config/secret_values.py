"""Values of settings that may be secret: `env:NAME` and `file:PATH` keep them out of the settings file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from telemetry.model.errors import ConfigError


def value_of(text: str, environ: Mapping[str, str]) -> str:
    """The value that a setting names, or the setting itself. Raises `ConfigError`, which names the place alone."""
    kind, _, rest = text.partition(":")
    if kind == "env" and rest:
        if rest not in environ:
            raise ConfigError(f"cannot read a secret: the environment has no {rest}")
        return environ[rest]
    if kind == "file" and rest:
        try:
            return Path(rest).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read a secret from {rest}: {error}") from None
    return text


def values_of(headers: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The same for each header. Raises `ConfigError` for one that HTTP can't carry."""
    found = {name: value_of(value, environ) for name, value in headers.items()}
    for name, value in found.items():
        if not name.isascii() or not (name + value).isprintable() or not value.isascii():
            raise ConfigError(f"cannot use the header {name!r}: only printable ASCII can be sent")
    return found
