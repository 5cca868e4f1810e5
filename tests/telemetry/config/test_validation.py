"""What is wrong with settings together stops the start by name."""

from pathlib import Path

import msgspec
import pytest

from telemetry.config.loader import load
from telemetry.config.validation import is_loopback
from tests.settings_file import refused, written


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("protocol = 'gt06'\nport = 8000", "collector.listen[1].port = 8000 is already used by api.port"),
        ("protocol = 'gt06'\nport = 9999", "is already used by api.port, collector.http_port or collector.tcp_port"),
        (
            "protocol = 'gt06'\nport = 5\n[[collector.listen]]\nprotocol = 'auto'\nport = 5",
            "used by collector.listen[1]",
        ),
        ("protocol = 'osmand'\nport = 5", "osmand uses http"),
        ("protocol = 'gt06'\nport = 5\ntransport = 'http'", "gt06 uses tcp or udp"),
        ("protocol = 'json'\nport = 5\ntransport = 'udp'", "json uses tcp"),
        ("protocol = 'gt06'\nport = 5\ntimezone = 'Mars'", "collector.listen[1].timezone = 'Mars' is not a time zone"),
        (
            "protocol = 'gt06'\nport = 5\nhost = '0.0.0.0'",
            "listen[1].host = '0.0.0.0' is reachable from other machines",
        ),
        ("protocol = 'gt07'\nport = 5", "cannot use collector.listen[1].protocol"),
        ("port = 5", "collector.listen[1]"),
        (
            "protocol = 'h02'\nport = 5\ntransport = 'udp'\nidle_timeout_s = 9",
            "listen[1].idle_timeout_s has no effect over udp",
        ),
    ],
)
def test_a_wrong_listener_is_refused_by_its_place(tmp_path: Path, entry: str, names: str) -> None:
    assert names in refused(tmp_path, f"[[collector.listen]]\n{entry}\n")


@pytest.mark.parametrize(
    ("name", "value_s"), [("tcp_user_timeout_s", 0), ("tcp_keepalive_s", 0), ("tcp_user_timeout_s", 301)]
)
def test_keepalive_and_user_timeout_each_alone(tmp_path: Path, name: str, value_s: int) -> None:
    defaults = load(environ={}).collector
    changed = load(written(tmp_path, f"[collector]\n{name} = {value_s}\n"), {}).collector
    assert changed == msgspec.structs.replace(defaults, **{name: value_s})


def test_udp_may_have_the_number_of_a_tcp_port(tmp_path: Path) -> None:
    both = "".join(
        f"[[collector.listen]]\nprotocol = 'teltonika'\nport = 5027\ntransport = '{name}'\n" for name in ("tcp", "udp")
    )
    assert len(load(written(tmp_path, both), {}).collector.listen) == 2


@pytest.mark.parametrize("section", ["api", "collector"])
def test_other_machines_get_in_only_on_purpose(tmp_path: Path, section: str) -> None:
    text = f'[{section}]\nhost = "0.0.0.0"\n'
    assert f"{section}.host = '0.0.0.0' is reachable from other machines" in refused(tmp_path, text)
    allowed = load(written(tmp_path, text), {"WHIMBREL__AUTH__ALLOW_ANONYMOUS": "true"})
    assert getattr(allowed, section).host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "box.example", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[api]\nport = 8001\n", "api.port, collector.http_port and collector.tcp_port must differ"),
        ("[redis]\nresume_percent = 90\n", "redis.resume_percent must not be above redis.full_percent"),
        (
            "[collector]\ntcp_user_timeout_s = 300\n",
            "collector.tcp_user_timeout_s must be above",
        ),
        ("[persist]\nmax_records = 10\n", "persist.flush_records must not be above persist.max_records"),
    ],
)
def test_values_that_are_wrong_together(tmp_path: Path, text: str, names: str) -> None:
    assert names in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("protocol", "transport"), [("h02", "tcp"), ("gt06", "udp"), ("teltonika", "tcp"), ("auto", "tcp")]
)
def test_who_can_not_say_a_key_is_let_in_by_its_own_port_alone(tmp_path: Path, protocol: str, transport: str) -> None:
    entry = f"[[collector.listen]]\nprotocol = '{protocol}'\ntransport = '{transport}'\nport = 5027\n"
    said = refused(tmp_path, f"[auth]\nrequired = true\nallow_anonymous = true\n{entry}")
    assert f"collector.listen[1]: auth.required is set, but {protocol} over {transport} cannot carry an API key" in said
    load(written(tmp_path, f"[auth]\nrequired = true\n{entry}allow_anonymous = true\nhost = '0.0.0.0'\n"), {})


def test_others_let_in_by_a_key(tmp_path: Path) -> None:
    entries = [
        ("osmand", "http"),
        ("influx", "http"),
        ("any", "tcp"),
        ("json", "tcp"),
        ("frames", "tcp"),
        ("msgpack", "tcp"),
    ]
    text = "[auth]\nrequired = true\n[api]\nhost = '0.0.0.0'\n[collector]\nhost = '::'\n"
    for number, (protocol, transport) in enumerate(entries):
        text += f"[[collector.listen]]\nprotocol = '{protocol}'\ntransport = '{transport}'\nport = {5_000 + number}\n"
    assert len(load(written(tmp_path, text), {}).collector.listen) == len(entries)
    assert "auth.required = true" in refused(tmp_path, "[api]\nhost = '0.0.0.0'\n")


OIDC = """
[auth]
required = true
public_url = "https://fleet.example.com"
[oidc]
client_id = "box"
"""


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ('issuer = "http://login.example.com"', "must begin with https://"),
        ('issuer = "https://x"\nscopes = "email"', "oidc.scopes must contain openid"),
        ('issuer = "https://x"\nroles = ["a=king"]', "cannot use oidc.roles[1]"),
        ('issuer = "https://x"\nroles = ["=admin"]', "cannot use oidc.roles[1]"),
    ],
)
def test_a_provider_that_cannot_be_used(tmp_path: Path, more: str, names: str) -> None:
    assert names in refused(tmp_path, f"{OIDC}{more}\n")


def test_a_provider_needs_keys_to_be_required_and_the_address_of_the_page(tmp_path: Path) -> None:
    said = refused(tmp_path, '[oidc]\nissuer = "https://x"\n')
    assert "oidc.issuer needs oidc.client_id and auth.required = true and auth.public_url" in said
    assert load(written(tmp_path, f'{OIDC}issuer = "http://127.0.0.1:9/realm"\n'), {}).oidc.client_id == "box"


@pytest.mark.parametrize("url", ["fleet.example.com", "https://fleet.example.com/", "https://a/b", "ftp://a"])
def test_a_public_url_is_an_origin(tmp_path: Path, url: str) -> None:
    assert "auth.public_url: cannot use" in refused(tmp_path, f'[auth]\npublic_url = "{url}"\n')
