"""`whimbrel users`."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
import redis

from cli.main import main
from telemetry.access import user_store
from telemetry.access.passwords import verify
from telemetry.access.users import Session
from telemetry.config.settings import Settings
from tests.settings_file import written

PASSWORD = "a horse, a battery and a staple"


@pytest.fixture
def ask(client: redis.Redis, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs the command with a standard input."""
    file = written(tmp_path, f'[redis]\nurl = "{settings.redis.url}"\n')

    def run(*arguments: str, stdin: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return main(["--config", str(file), "users", *arguments])

    return run


def session(client: redis.Redis, at: str, user: str) -> None:
    now_s = int(time.time())
    user_store.add_session(client, at * 64, Session(user, now_s, now_s + 60, "10.1.2.3"))


def test_users(ask, client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert ask("create", "Ada", "--role", "viewer", "--prefix", "van-", stdin=f"{PASSWORD}\n") == 0
    ada = user_store.user(client, "ada")
    assert ada is not None
    assert verify(PASSWORD, ada.password)
    assert ask("create", "ada", "--role", "viewer", stdin=f"{PASSWORD}\n") == 1
    assert "the name is taken" in capsys.readouterr().err
    assert ask("create", "bob", "--role", "viewer", stdin="short\n") == 1
    assert "too short" in capsys.readouterr().err
    assert ask("create", "bob", "--role", "admin", "--device", "a", stdin=f"{PASSWORD}\n") == 1
    assert "admin cannot be bound" in capsys.readouterr().err
    assert ask("create", "eve@example.com", "--role", "admin", "--oidc") == 0
    assert ask("set-role", "ada", "dispatcher") == 0
    assert ask("set-role", "nobody", "viewer") == 1
    assert "there is no user nobody" in capsys.readouterr().err
    session(client, "a", "ada")
    assert ask("list", "--json") == 0
    ada_line, eve_line = json.loads(capsys.readouterr().out.splitlines()[-1])["users"]
    assert (ada_line["role"], ada_line["prefix"], ada_line["oidc"], ada_line["sessions"]) == (
        *("dispatcher", "van-"),
        *(False, 1),
    )
    assert (eve_line["name"], eve_line["oidc"]) == ("eve@example.com", True)
    assert ask("set-password", "ada", stdin="another horse and staple\n") == 0
    changed = user_store.user(client, "ada")
    assert changed is not None
    assert verify("another horse and staple", changed.password)
    assert changed.role == "dispatcher"
    assert "1 sessions ended" in capsys.readouterr().out
    assert ask("list") == 0
    assert PASSWORD not in capsys.readouterr().out


@pytest.mark.parametrize("action", ["disable", "delete"])
def test_who_leaves_has_no_sessions(ask, client: redis.Redis, action: str) -> None:  # type: ignore[no-untyped-def]
    ask("create", "ada", "--role", "viewer", stdin=f"{PASSWORD}\n")
    session(client, "a", "ada")
    session(client, "b", "bob")
    assert ask(action, "ada") == 0
    assert set(user_store.people(client).sessions) == {"b" * 64}
    found = user_store.user(client, "ada")
    assert found is None if action == "delete" else found is not None and found.is_disabled
    if action == "disable":
        assert ask("enable", "ada") == 0
        assert not user_store.people(client).users["ada"].is_disabled
    assert ask("disable", "bob") == 0, "one that the provider alone knows"
    assert user_store.people(client).users["bob"].is_disabled
    assert user_store.people(client).sessions == {}


def test_sessions(ask, client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    for at, user in (("a", "ada"), ("b", "ada"), ("c", "bob"), ("d", "bob")):
        session(client, at, user)
    assert ask("sessions", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["sessions"]
    assert [one["id"] for one in listed] == [at * 12 for at in "abcd"]
    assert ask("sessions", "list") == 0
    assert ask("sessions", "end", "a" * 12) == 0
    assert ask("sessions", "end", "b") == 1, "too short to be one"
    assert ask("sessions", "end", "") == 1
    assert ask("sessions", "end", "bob") == 0
    assert set(user_store.people(client).sessions) == {"b" * 64}
    assert ask("sessions", "end", "--all") == 0
    assert user_store.people(client).sessions == {}
