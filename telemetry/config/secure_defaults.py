"""Values that `auth.secure` sets in place of the usual defaults, for a box that is reachable from the internet.

The shipped settings file names every default, so an explicit default cannot be distinguished from an intended value:
`auth.secure` replaces values that are off (false, 0, empty) and keeps all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from telemetry.config.settings import OWN_CERTIFICATE, OWN_KEY, Data

LIMITS: Mapping[str, float] = {
    "address_requests_per_s": 200,
    "address_requests_burst": 2_000,
    "address_records_per_s": 20_000,
    "address_records_burst": 200_000,
    "key_requests_per_s": 1_000,
    "key_requests_burst": 5_000,
}
"""Far above the rate of a whole fleet at one address or with one key, and of a browser that opens the page."""


def apply(sections: Mapping[str, dict[str, Any]]) -> None:
    """Replace the values that `auth.secure` needs and that are off. `sections` are the values set, by section."""
    if not sections["auth"].get("secure"):
        return
    sections["auth"]["required"] = True
    if not sections["tls"].get("certificate"):
        data = PurePath(sections["data"].get("dir", Data().dir))
        sections["tls"].update(certificate=str(data / OWN_CERTIFICATE), key=str(data / OWN_KEY))
    for name, limit in LIMITS.items():
        sections["limits"][name] = sections["limits"].get(name) or limit
