"""Values of settings that may be secret: `env:NAME` and `file:PATH` keep them out of the settings file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from telemetry.model.errors import ConfigError


def value_of(text: str, environ: Mapping[str, str]) -> str:
    """Resolve a reference, or return the text itself. Raises `ConfigError` with the reference, never the value."""
    kind, _, reference = text.partition(":")
    if kind == "env" and reference:
        if reference not in environ:
            raise ConfigError(f"cannot read a secret: the environment has no {reference}")
        return environ[reference]
    if kind == "file" and reference:
        try:
            return Path(reference).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read a secret from {reference}: {error}") from None
    return text


def values_of(headers: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The same for each header. Raises `ConfigError` for a value that HTTP cannot carry."""
    resolved = {name: value_of(value, environ) for name, value in headers.items()}
    for name, value in resolved.items():
        if not name.isascii() or not (name + value).isprintable() or not value.isascii():
            raise ConfigError(f"cannot use the header {name!r}: only printable ASCII can be sent")
    return resolved
