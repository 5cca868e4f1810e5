from __future__ import annotations

import msgspec
import pytest

from telemetry.config.flat_settings import flat, holds_secret, is_secret, shown
from telemetry.config.settings import Alert, Auth, Forward, Settings, Tls


def test_names_of_entries_count_from_one() -> None:
    found = dict(flat({"a": {"b": 1, "c": [1, 2]}, "d": [{"e": {"f": 2}}, {"e": {}}]}))
    assert found == {"a.b": 1, "a.c": [1, 2], "d[1].e.f": 2}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("redis.password", "hunter2", "(secret)"),
        ("redis.password", "env:REDIS_PASSWORD", "env:REDIS_PASSWORD"),
        ("redis.password", "", ""),
        ("courier.key", "wk_a_b", "(secret)"),
        ("tls.key", "key.pem", "key.pem"),
        ("forward[1].headers.X-Whatever", "hunter2", "(secret)"),
        ("forward[1].s3_secret_access_key", "hunter2", "(secret)"),
        ("redis.url", "redis://me:hunter2@host:6379/0", "redis://host:6379"),
        ("alert[1].url", "https://hooks.example.com/T0/hunter2?x=1", "https://hooks.example.com"),
        ("api.port", 8000, 8000),
    ],
)
def test_what_may_be_shown(name: str, value: object, expected: object) -> None:
    assert shown(name, value) == expected


def test_no_setting_that_may_be_secret_is_shown() -> None:
    entry = Forward(name="a", url="https://u:hunter2@h/hunter2", key="hunter2", headers={"A": "hunter2"})
    alert = Alert(name="b", url="https://h/hunter2", secret="hunter2", headers={"B": "hunter2"})
    settings = Settings(forward=(entry,), alert=(alert,), tls=Tls(key="key.pem"), auth=Auth(required=True))
    pairs = [(name, shown(name, value)) for name, value in flat(msgspec.to_builtins(settings))]
    assert "hunter2" not in repr(pairs)
    assert ("auth.required", True) in pairs


def test_what_a_file_must_hide() -> None:
    assert holds_secret("redis.url", "redis://a:b@h")
    assert not holds_secret("redis.url", "redis://h")
    assert is_secret("collector.mqtt[1].password")
    assert not is_secret("collector.max_idempotency_keys")
