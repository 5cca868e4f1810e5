"""The package that all programs share: records, settings, Redis, the archive, and the parts of a server.

Imported by everything.
"""

from __future__ import annotations

RELEASE_DATE_US = 1_795_478_400_000_000
"""2026-11-24 00:00 UTC in µs. A box whose clock shows an earlier time has a wrong clock."""
