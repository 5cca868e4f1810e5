"""Loads the settings from the file and the environment.

The last source wins: the default in `telemetry/config/settings.py`, the TOML file (`--config FILE`, else
`WHIMBREL_CONFIG`, else `config.toml` next to the code), the environment variable `WHIMBREL__SECTION__KEY`.
`auth.secure` then replaces the values listed in `secure_defaults.py`. An unknown section, key or a wrong type raises
`ConfigError`. Some settings are lists of entries, `[[forward]]` or, inside a section, `[[section.key]]`; an error names
the entry, counted from 1: `forward[2].url`. In the environment such a list is JSON: `WHIMBREL__FORWARD='[{…}]'`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_origin

import msgspec

from telemetry.config import secure_defaults
from telemetry.config.settings import LISTS, PROJECT, SECTIONS, Section, Settings
from telemetry.config.validation import check
from telemetry.model.errors import ConfigError

PREFIX = "WHIMBREL__"


def load(file: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Load and validate all settings.

    Raises `ConfigError` with the setting, its source, and the valid values.
    """
    env = os.environ if environ is None else environ
    path = Path(file or env.get("WHIMBREL_CONFIG") or PROJECT / "config.toml")
    named = file is not None or "WHIMBREL_CONFIG" in env
    values = _read_file(path, must_exist=named)
    merged = {name: _section(name, values.pop(name, {}), env, path) for name in SECTIONS}
    secure_defaults.apply(merged)
    sections = {name: kind(**merged[name]) for name, kind in SECTIONS.items()}
    lists = {name: _list(name, values.pop(name, []), env, path) for name in LISTS}
    if values:
        known = ", ".join((*SECTIONS, *LISTS))
        raise ConfigError(f"{path}: unknown section [{next(iter(values))}]; known are {known}")
    _refuse_unknown_sections(env)
    where = path.absolute()
    sections_and_lists: Any = {**sections, **lists}
    settings = Settings(**sections_and_lists, base=str(where.parent), file=str(where) if where.is_file() else "")
    check(settings)
    return settings


def _read_file(path: Path, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"cannot read settings {path}: no such file") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read settings {path}: {error}") from error


def _section(name: str, values: object, env: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The values set in the file and the environment, by key."""
    kind = SECTIONS[name]
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {name} must be a section, [{name}]")
    merged = {}
    for key, value in values.items():
        merged[key] = _value(kind, name, key, value, f"{path}", strict=True)
    start = f"{PREFIX}{name}__".upper()
    for variable, text in env.items():
        if variable.upper().startswith(start):
            key = variable[len(start) :].lower()
            merged[key] = _value(kind, name, key, text, f"environment variable {variable}", strict=False)
    return merged


def _list(name: str, values: object, env: Mapping[str, str], path: Path) -> object:
    """The entries of a top-level list. A list in the environment replaces the one in the file."""
    where, kind = str(path), tuple[LISTS[name], ...]  # type: ignore[valid-type]
    for variable, text in env.items():
        if variable.upper() == f"{PREFIX}{name}".upper():
            where, values = (
                f"environment variable {variable}",
                _from_json(name, text, f"environment variable {variable}"),
            )
    return _converted(kind, name, values, where, strict=True)


def _value(kind: type[Section], section: str, key: str, value: object, where: str, strict: bool) -> object:
    fields = _types(kind)
    if key not in fields:
        raise ConfigError(f"{where}: unknown setting {section}.{key}; known are {', '.join(sorted(fields))}")
    name = f"{section}.{key}"
    if not _is_list(fields[key]):
        return _converted(fields[key], name, value, where, strict)
    if not strict:
        value = _from_json(name, str(value), where)
    return _converted(fields[key], name, value, where, strict=True)


@cache
def _types(kind: type[Section]) -> dict[str, Any]:
    """Setting → type. Cached, because the lookup is slow and repeats for each setting."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _is_list(kind: Any) -> bool:
    return (get_origin(kind) or kind) is tuple or (
        get_origin(kind) is Annotated and _is_list(kind.__origin__)  # a field with a description
    )


def _from_json(name: str, text: str, where: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where}: cannot use {name}: it must be a JSON array: {error}") from None


def _converted(kind: Any, name: str, value: object, where: str, strict: bool) -> object:
    """Convert a value. The error for a wrong entry contains only its position, since the value may be a secret."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        if not _is_list(kind):
            raise ConfigError(f"{where}: cannot use {name} = {value!r}: {error}") from None
        reason, _, position = str(error).partition(" - at `$")
        raise ConfigError(f"{where}: cannot use {name}{_counted_from_one(position.rstrip('`'))}: {reason}") from None


def _counted_from_one(position: str) -> str:
    """The position of a value in a list, with entries counted from 1."""
    return re.sub(r"\[(\d+)\]", lambda match: f"[{int(match[1]) + 1}]", position)


def _refuse_unknown_sections(env: Mapping[str, str]) -> None:
    for variable in env:
        parts = variable.upper().split("__")
        is_list = len(parts) == 2 and parts[1].lower() in LISTS
        if parts[0] == "WHIMBREL" and len(parts) > 1 and parts[1].lower() not in SECTIONS and not is_list:
            known = ", ".join((*SECTIONS, *LISTS))
            raise ConfigError(f"environment variable {variable}: unknown section; known are {known}")
