"""Table version up to which all forwards are done, as the courier last recorded in Redis."""

from __future__ import annotations

import logging
from functools import partial

from telemetry.archive.log_retention import NOTHING_DONE, Held, nothing_held
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.model.errors import StoreError

log = logging.getLogger(__name__)


def held_by(settings: Settings) -> Held:
    """Returns the function that reads it. A forward without recorded progress holds all versions."""
    names = [forward.name for forward in settings.forward]
    return partial(_done, settings, names) if names else nothing_held


def _done(settings: Settings, names: list[str]) -> int:
    try:
        with connect(settings) as client:
            versions = {progress.name: progress.version for progress in shared_state.forwards(client)}
    except StoreError as error:
        log.info("cannot read the progress of forwards, so all files are kept: %s", error)
        return NOTHING_DONE
    return min(versions.get(name, NOTHING_DONE) for name in names)
