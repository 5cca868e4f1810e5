"""`whimbrel keys`, as its user types it."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import time

import pytest
import redis

from cli import main as cli_main
from cli.admin import keys as command
from telemetry.audit import reader
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.client import url
from telemetry.model.api_keys import Caller, Denied, KeyRequest, check, device_token, make


@pytest.fixture(autouse=True)
def _box(client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL__REDIS__URL", url(settings))
    monkeypatch.setenv("WHIMBREL__DATA__DIR", str(settings.data_dir))
    monkeypatch.delenv("WHIMBREL_KEY", raising=False)


def whimbrel(*arguments: str) -> int:
    return cli_main.main(["keys", *arguments])


def created(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert whimbrel("create", *arguments) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_a_key_is_made_listed_and_revoked(client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    text = created(
        capsys, "--scope", "ingest", "--scope", "read", "--prefix", "van-", "--expires", "90d", "--name", "A"
    )
    caller = check(text, shared_state.keys(client).get, time.time())
    assert isinstance(caller, Caller)
    assert caller.binding.covers("van-7")
    assert not caller.binding.covers("bus-7")
    assert whimbrel("list", "--json") == 0
    out = capsys.readouterr().out
    [line] = json.loads(out)["keys"]
    assert (line["scopes"], line["prefix"], line["name"], line["expired"]) == (["ingest", "read"], "van-", "A", False)
    assert line["last_used_at"] is None
    assert text.split("_")[2] not in out
    shared_state.note_used(client, [caller.key_id], 1_795_500_000)
    assert whimbrel("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["keys"][0]["last_used_at"] == "2026-11-24T06:00:00.000000Z"
    assert whimbrel("list") == 0
    assert "devices whose id begins with 'van-'" in capsys.readouterr().out
    assert whimbrel("revoke", caller.key_id) == 0
    assert shared_state.keys(client) == {}
    assert whimbrel("revoke", caller.key_id) == 1
    assert "there is no key" in capsys.readouterr().err


def test_a_fleets_devices_have_tokens(
    client: redis.Redis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = created(capsys, "--scope", "ingest", "--fleet")
    monkeypatch.setenv("WHIMBREL_KEY", fleet)
    assert whimbrel("token", "van-7", "van-8") == 0
    tokens = capsys.readouterr().out.split()
    assert whimbrel("revoke", fleet.split("_")[1], "--device", "van-7") == 0
    revoked, good = [check(token, shared_state.keys(client).get, time.time()) for token in tokens]
    assert isinstance(revoked, Denied)
    assert isinstance(good, Caller)
    assert good.device == "van-8"


def test_the_whole_key_revokes_it_and_is_shown_nowhere(
    client: redis.Redis, settings: Settings, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    text, other = created(capfd, "--scope", "read"), created(capfd, "--scope", "ingest")
    key_id, secret = text.split("_")[1:]
    wrong = (f"wk_{key_id}_{26 * 'a'}", f"wk_{key_id}_{secret[:-1]}", f"wk_{26 * 'a'}", secret, f"Bearer {text}")
    for given in wrong:
        assert whimbrel("revoke", given) == 1
        said = capfd.readouterr()
        assert "whimbrel keys: " in said.err
        assert not {secret, secret[:-1], 26 * "a"} & set(re.split(r"[\s_]+", said.out + said.err))
    assert key_id in shared_state.keys(client)
    assert whimbrel("revoke", text) == 0
    assert shared_state.keys(client).keys() == {other.split("_")[1]}
    said = capfd.readouterr()
    assert said.out == f"key {key_id} is revoked\n"
    assert whimbrel("revoke", text) == 1
    said = capfd.readouterr()
    assert f"there is no key {key_id}" in said.err
    logged = b"".join(path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file())
    assert key_id.encode() in logged  # in the audit log
    for shown in (logged.decode(errors="replace"), said.out, said.err, caplog.text):
        assert secret[:-1] not in shown
        assert 26 * "a" not in shown


def test_an_expired_key_is_revoked_by_its_text(client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    text, key = make(KeyRequest(("read",), expires_s=2), 1, secrets.token_bytes)
    shared_state.add_key(client, key)
    assert whimbrel("revoke", text) == 0
    assert shared_state.keys(client) == {}


def test_a_devices_token_revokes_that_device_alone(client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = created(capsys, "--scope", "ingest", "--fleet")
    seven, eight = (device_token(fleet, device) for device in ("van-7", "van-8"))
    assert whimbrel("revoke", seven, "--device", "van-8") == 1
    assert "--device" in capsys.readouterr().err
    assert whimbrel("revoke", seven) == 0
    assert capsys.readouterr().out == "the token of device van-7 is revoked\n"
    revoked, good = [check(token, shared_state.keys(client).get, time.time()) for token in (seven, eight)]
    assert isinstance(revoked, Denied)
    assert isinstance(good, Caller)
    assert whimbrel("revoke", seven) == 1
    assert "revoked already" in capsys.readouterr().err
    assert whimbrel("revoke", fleet, "--device", "van-8") == 0
    assert isinstance(check(eight, shared_state.keys(client).get, time.time()), Denied)


def test_what_is_no_key_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert whimbrel("create", "--scope", "admin", "--device", "van-7") == 1
    assert "cannot be bound" in capsys.readouterr().err
    assert whimbrel("token", "van-7") == 1
    assert "WHIMBREL_KEY" in capsys.readouterr().err
    text = created(capsys, "--scope", "ingest")
    assert whimbrel("revoke", text.split("_")[1], "--device", "van-7") == 1
    assert "not made with --fleet" in capsys.readouterr().err


def test_an_expiry_is_a_length_or_an_instant() -> None:
    assert abs(command.expiry("2h") - time.time() - 7_200) < 5
    assert command.expiry("2027-06-01T00:00:00Z") == 1_811_808_000
    assert command.expiry("2027-06-01") == 1_811_808_000
    for wrong in ("soon", "90", "90x", "-1d"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be like"):
            command.expiry(wrong)


def test_the_first_key_is_made_and_recorded_once(
    client: redis.Redis, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("create", "--first", "--scope", "admin")
    assert whimbrel(*first) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("wk_")
    assert whimbrel(*first) == 0
    assert capsys.readouterr().out == ""
    assert len(shared_state.keys(client)) == 1
    entries = reader.entries(settings.audit_dir, reader.Wanted())
    assert [(one.action, one.outcome) for one in entries] == [("keys.create", "begun"), ("keys.create", "done")]
