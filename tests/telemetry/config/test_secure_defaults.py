"""`auth.secure`: what it switches on, and what it leaves as it is."""

from __future__ import annotations

from pathlib import Path

from telemetry.config.loader import load
from telemetry.config.secure_defaults import LIMITS
from telemetry.config.settings import LimitsSection

SECURE = {"WHIMBREL__AUTH__SECURE": "true"}


def test_the_defaults_of_a_box_that_strangers_reach(tmp_path: Path) -> None:
    found = load(environ=SECURE | {"WHIMBREL__DATA__DIR": str(tmp_path)})
    assert found.auth.required
    assert found.tls_paths == (tmp_path / "tls" / "certificate.pem", tmp_path / "tls" / "key.pem")
    assert found.has_own_certificate
    assert {name: getattr(found.limits, name) for name in LIMITS} == LIMITS


def test_what_is_set_stays(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        "[auth]\nsecure = true\n[limits]\naddress_requests_per_s = 7\n[tls]\ncertificate = 'a.pem'\nkey = 'a.key'\n"
    )
    found = load(tmp_path / "settings.toml", {"WHIMBREL__LIMITS__KEY_REQUESTS_PER_S": "9.5"})
    assert found.tls_paths == (tmp_path / "a.pem", tmp_path / "a.key")
    assert not found.has_own_certificate
    assert (found.limits.address_requests_per_s, found.limits.key_requests_per_s) == (7, 9.5)
    assert found.limits.address_records_per_s == LIMITS["address_records_per_s"]


def test_without_it_nothing_changes() -> None:
    found = load(environ={})
    assert not found.auth.required
    assert found.tls_paths is None
    assert found.limits == LimitsSection()
