"""Attempts to sign in at a provider."""

from __future__ import annotations

import pytest

from api.sign_in import oidc_attempts
from api.sign_in.oidc_attempts import Attempt, Attempts

NOW_S = 1_795_500_000


class Clock:
    now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


def attempt(state: str = "state") -> Attempt:
    return Attempt(state, "nonce", "verifier", "/#é", NOW_S + 600)


def test_an_attempt_is_complete_once() -> None:
    attempts = Attempts(b"key", Clock())
    cookie = attempts.sealed(attempt())
    assert attempts.completed(cookie, "another") is None
    assert attempts.completed(cookie, "") is None
    assert attempts.completed(cookie, "state") == attempt()
    assert attempts.completed(cookie, "state") is None


@pytest.mark.parametrize("cookie", ["", ".", "x.y", "é.é"])
def test_cookies_that_are_not_ours(cookie: str) -> None:
    assert Attempts(b"key", Clock()).completed(cookie, "state") is None
    assert Attempts(b"key", Clock()).completed(Attempts(b"other", Clock()).sealed(attempt()), "state") is None


def test_an_attempt_expires_and_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc_attempts, "MAX_COMPLETE", 3)
    clock = Clock()
    attempts = Attempts(b"key", clock)
    for number in range(5):
        assert attempts.completed(attempts.sealed(attempt(str(number))), str(number))
    assert len(attempts._complete) == 3
    clock.now_s += 600
    assert attempts.completed(attempts.sealed(attempt("late")), "late") is None
