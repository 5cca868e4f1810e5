"""The check of the box's certificate: that it fits its key, and is valid for a while yet."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cli.doctor.finding import Finding, failure, ok, warning
from telemetry.config.settings import Settings
from telemetry.model.errors import ConfigError
from telemetry.network.tls import Identity

EXPIRES_SOON_DAYS = 30


def certificate(settings: Settings) -> Iterator[Finding]:
    """Certificate and key fit, and are valid for a while yet."""
    if settings.tls_paths is None:
        yield ok("none is set: HTTP and TCP go unencrypted")
        return
    try:
        validity = Identity(*settings.tls_paths).validity()
    except ConfigError as error:
        yield failure(str(error), "correct tls.certificate and tls.key; the box does not start so")
        return
    days, name = validity.days_left(time.time()), settings.tls_paths[0]
    renew = "renew it, then send SIGHUP to `whimbrel up`"
    if validity.fault:
        yield failure(f"clients refuse {name}: {validity.fault}", renew)
    elif days < EXPIRES_SOON_DAYS:
        yield warning(f"{name} expires in {days:.0f} days", renew)
    else:
        yield ok(f"{name} is valid for {days:.0f} days")
