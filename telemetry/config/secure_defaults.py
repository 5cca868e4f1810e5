"""Values that `auth.secure` puts in the place of the usual defaults, for a box that strangers reach.

The settings file as shipped names every default, so a default that is written down cannot be told from one that is
meant: `auth.secure` replaces what is off (false, 0, empty), and keeps everything else.
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
"""A whole fleet behind one address, or one fleet's key, stays far below; a browser that opens the page, too."""


def apply(sections: Mapping[str, dict[str, Any]]) -> None:
    """Switch on what `auth.secure` asks for and is off. Sections hold the values that were set, by name."""
    if not sections["auth"].get("secure"):
        return
    sections["auth"]["required"] = True
    if not sections["tls"].get("certificate"):
        data = PurePath(sections["data"].get("dir", Data().dir))
        sections["tls"].update(certificate=str(data / OWN_CERTIFICATE), key=str(data / OWN_KEY))
    for name, limit in LIMITS.items():
        sections["limits"][name] = sections["limits"].get(name) or limit
