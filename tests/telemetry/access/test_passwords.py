"""Password hashes."""

from __future__ import annotations

import pytest

from telemetry.access.passwords import (
    MAX_BYTES,
    NOBODYS,
    USUAL,
    Cost,
    InvalidPassword,
    hash_password,
    require_usable,
    verify,
)

SALT = b"0123456789abcdef"
QUICK = Cost(4, 8, 1)


def test_a_password_is_found_again_by_the_parameters_beside_it() -> None:
    for cost in (QUICK, Cost(5, 4, 2)):
        stored = hash_password("café con leche", SALT, cost)
        assert stored.startswith(f"scrypt${cost.log2_n}${cost.r}${cost.p}$")
        assert "café" not in stored
        assert verify("café con leche", stored)
        assert verify("cafe\u0301 con leche", stored), "the same letters, typed on another keyboard"
        assert not verify("cafe con leche", stored)
        assert not verify("", stored)
    assert hash_password("x", SALT, QUICK) != hash_password("x", SALT[::-1], QUICK)


@pytest.mark.parametrize(
    "stored",
    [
        "x",
        "scrypt$4$8$1$!$!",
        "md5$4$8$1$MDEy$MDEy",
        "scrypt$60$8$1$MDEy$MDEy",
        "scrypt$20$8$1$MDEy$MDEy",
        "scrypt$4$8",
    ],
)
def test_what_cannot_be_read_fits_no_password(stored: str) -> None:
    assert not verify("x", stored)


def test_nobodys_hash_takes_as_long_as_anybodys_and_fits_no_password() -> None:
    assert NOBODYS.startswith(f"scrypt${USUAL.log2_n}${USUAL.r}${USUAL.p}$")
    assert not verify("", "")


def test_lengths() -> None:
    require_usable("twelve chars")
    for password in ("eleven char", "", "x" * (MAX_BYTES + 1)):
        with pytest.raises(InvalidPassword, match="cannot set this password"):
            require_usable(password)
