"""Password hashes: scrypt, with its parameters and salt stored with each hash.

    scrypt$<log2 of N>$<r>$<p>$<salt>$<hash>     salt and hash in base64

The default parameters are OWASP's recommendation for scrypt. Parameters are read from the stored text, so that a later
default locks no user out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import unicodedata
from typing import NamedTuple

from telemetry.model.errors import WhimbrelError

SALT_BYTES, HASH_BYTES = 16, 32

MIN_CHARACTERS = 12
MAX_BYTES = 1_024
"""Length limits of a new password: NIST SP 800-63B requires a minimum length and no composition rules."""

MAX_MEMORY_BYTES = 2**27
"""Memory limit for parameters read from Redis, bytes."""


class InvalidPassword(WhimbrelError):
    """The password is too short or too long."""


class Cost(NamedTuple):
    """Parameters of scrypt; memory is 128 · r · 2^log2_n bytes."""

    log2_n: int = 15
    r: int = 8
    p: int = 3


USUAL = Cost()


def require_usable(password: str) -> None:
    """Check the length of a new password. Raises `InvalidPassword`."""
    if len(password) < MIN_CHARACTERS:
        raise InvalidPassword(f"cannot set this password: it is too short; use {MIN_CHARACTERS} characters or more")
    if len(password.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidPassword(f"cannot set this password: it is too long; use at most {MAX_BYTES} bytes")


def hash_password(password: str, salt: bytes, cost: Cost = USUAL) -> str:
    """The text to store for a password. `salt` is `SALT_BYTES` random bytes."""
    digest = _scrypt(password, salt, cost)
    return "$".join(("scrypt", str(cost.log2_n), str(cost.r), str(cost.p), _base64(salt), _base64(digest)))


def verify(password: str, stored: str) -> bool:
    """True if the password matches the stored text; False also for a text that cannot be parsed.

    Takes the same time for an empty text (unknown user) as for the usual cost, so that time reveals no user names.
    """
    parts = _parts(stored or NOBODYS)
    if parts is None:
        return False
    cost, salt, known = parts
    is_same = hmac.compare_digest(_scrypt(password, salt, cost), known)
    return is_same and bool(stored)


def _parts(stored: str) -> tuple[Cost, bytes, bytes] | None:
    try:
        kind, log2_n, r, p, salt, known = stored.split("$")
        cost = Cost(int(log2_n), int(r), int(p))
        parts = cost, base64.b64decode(salt, validate=True), base64.b64decode(known, validate=True)
    except (ValueError, binascii.Error):
        return None
    is_sane = 0 < cost.log2_n < 32 and cost.r > 0 and 0 < cost.p <= 16 and _memory_bytes(cost) <= MAX_MEMORY_BYTES
    return parts if kind == "scrypt" and is_sane else None


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    text = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")[: 4 * MAX_BYTES]
    return hashlib.scrypt(
        text, salt=salt, n=2**cost.log2_n, r=cost.r, p=cost.p, maxmem=2 * _memory_bytes(cost), dklen=HASH_BYTES
    )


def _memory_bytes(cost: Cost) -> int:
    return 128 * cost.r << cost.log2_n


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


NOBODYS = f"scrypt${USUAL.log2_n}${USUAL.r}${USUAL.p}${_base64(bytes(SALT_BYTES))}${_base64(bytes(HASH_BYTES))}"
"""Verified for an unknown user; no password has this hash."""
