"""Records the settings at each start in the audit log: a fingerprint, and the changes since the last start."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec

from telemetry.audit.entry import Actor
from telemetry.audit.writer import Audit
from telemetry.config.flat_settings import flat, shown
from telemetry.config.settings import Settings
from telemetry.system.fsync import fsync, make_folder
from telemetry.system.permissions import OWN_FILE, OWN_FOLDER

FILE = "settings.json"
MOST_CHANGES = 50
ACTION = "box.start"


def record(audit: Audit, settings: Settings) -> None:
    """Record a start. Values of secrets are omitted. Never raises."""
    if not audit.is_on:
        return
    pairs = dict(flat(msgspec.to_builtins(settings)))
    now = json.loads(msgspec.json.encode({name: shown(name, value) for name, value in pairs.items()}))
    path = settings.audit_dir / FILE
    before = _read(path)
    changed = {name: now.get(name) for name in sorted({*now, *before}) if now.get(name) != before.get(name)}
    details: dict[str, Any] = {"settings_sha256": _fingerprint(now), "changed_settings": len(changed)}
    if before:
        details |= {f"{name} =": json.dumps(value) for name, value in list(changed.items())[:MOST_CHANGES]}
    audit.happened(ACTION, Actor("program", audit.program), target=settings.file, details=details)
    if changed:
        _write(path, now)


def _fingerprint(shown_settings: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(shown_settings, order="sorted")).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _write(path: Path, now: dict[str, Any]) -> None:
    part_file = path.with_name(f".{FILE}.part")
    try:
        make_folder(path.parent, OWN_FOLDER)
        with open(os.open(part_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWN_FILE), "wb") as file:
            file.write(msgspec.json.encode(now))
        fsync(part_file)
        part_file.replace(path)
    except OSError:
        return  # the next start records the same changes again
