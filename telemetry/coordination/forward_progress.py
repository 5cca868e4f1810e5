"""Up to which version all forwards of the settings are done, as the courier last noted it in Redis."""

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
    """What tells it. A forward of which nothing is noted, since the courier or Redis is away, holds everything."""
    names = [one.name for one in settings.forward]
    return partial(_done, settings, names) if names else nothing_held


def _done(settings: Settings, names: list[str]) -> int:
    try:
        with connect(settings) as client:
            found = {one.name: one.version for one in shared_state.forwards(client)}
    except StoreError as error:
        log.info("what has yet to be forwarded isn't known, so all of it is kept: %s", error)
        return NOTHING_DONE
    return min(found.get(name, NOTHING_DONE) for name in names)
