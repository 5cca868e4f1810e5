"""Names by which a box may be reached: which there are by default, by which address a port is bound to."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from telemetry.browsers.host_names import MAX_KNOWN_HOSTS, Hosts, name_and_port
from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.model.errors import ConfigError

ALWAYS = (
    "127.0.0.1",
    "127.0.0.1:8000",
    "10.0.0.7:80",
    "[::1]",
    "[2001:db8::1]:8000",
    "localhost",
    "a.b.localhost:1",
    "",
)
NEIGHBOURS = (
    "whimbrel:8001",
    "box",
    "box.local",
    "whimbrel.default.svc.cluster.local",
    "a.internal",
    "b.home.arpa:8000",
)
STRANGE = (
    "evil.example.com",
    "evil.example.com:8000",
    "localhost.evil.com",
    "127.0.0.1.nip.io",
    "xlocalhost.com",
    "xlocal.x",
)
NO_HOSTS = ("a b", "a@localhost", "localhost/x", "localhost:x", "localhost:123456", "[::1", "::1", 'a"b', "a,localhost")


def of(host: str, is_open: bool = True, **more: str) -> Hosts:
    return Hosts.of(load(environ={f"WHIMBREL__{name.upper()}": value for name, value in more.items()}), host, is_open)


def has(hosts: Hosts, *names: str) -> list[bool]:
    return [hosts.has(name.encode("latin-1")) for name in names]


def test_on_loopback_only_names_of_this_machine() -> None:
    found = of("127.0.0.1")
    assert all(has(found, *ALWAYS, socket.gethostname(), f"{socket.gethostname().partition('.')[0]}.LOCAL.:80"))
    assert not any(has(found, *(set(NEIGHBOURS) - {socket.gethostname()}), *STRANGE, *NO_HOSTS, "evil"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", ""])
def test_beyond_loopback_also_those_that_no_public_dns_holds(host: str) -> None:
    found = of(host, auth__allow_anonymous="true")
    assert all(has(found, *ALWAYS, *NEIGHBOURS))
    assert not any(has(found, *STRANGE, *NO_HOSTS))


def test_names_that_the_settings_say_elsewhere() -> None:
    found = of("127.0.0.1", api__host="localhost", courier__api_url="http://Box.Example.com:8000/")
    assert has(found, "box.example.com:8000", "example.com") == [True, False]
    found = of("box.example.org", auth__allow_anonymous="true", api__host="box.example.org")
    assert has(found, "box.example.org:1", "other.example.org") == [True, False]


def test_names_of_the_setting() -> None:
    found = of("127.0.0.1", http__allowed_hosts=json.dumps(["Box.example.com", "*.fleet.example.com"]))
    assert all(has(found, *ALWAYS, "BOX.example.com.:80", "a.b.fleet.example.com"))
    assert not any(has(found, "fleet.example.com", "x.box.example.com", "example.com", *STRANGE))
    assert all(has(of("127.0.0.1", http__allowed_hosts='["*"]'), *ALWAYS, *STRANGE))


def test_a_port_that_is_not_open_takes_any_name_until_some_are_allowed() -> None:
    assert all(has(of("127.0.0.1", is_open=False), *ALWAYS, *STRANGE))
    assert not any(has(of("127.0.0.1", is_open=False), *NO_HOSTS))
    assert not any(has(of("127.0.0.1", is_open=False, http__allowed_hosts='["box.example.com"]'), *STRANGE))


def test_verdicts_are_remembered_within_bounds() -> None:
    found = Hosts(["box"])
    for number in range(2 * MAX_KNOWN_HOSTS):
        assert not found.has(b"evil%d" % number)
    assert found.has.cache_info().currsize == MAX_KNOWN_HOSTS


@pytest.mark.parametrize(
    "name", ["https://box.example.com", "box.example.com:8000", "a/b", "", "*.*.example.com", "a b", "*a"]
)
def test_what_is_no_name_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match=r"http.allowed_hosts: .* is not a host name"):
        load(environ={"WHIMBREL__HTTP__ALLOWED_HOSTS": json.dumps([name])})


def test_name_and_port() -> None:
    assert name_and_port(b"Box.:80") == ("box", 80)
    assert name_and_port(b"[::1]") == ("[::1]", None)
    assert name_and_port(b"box:") == ("box", None)
    assert name_and_port(b"\xe9\x00/") is None


def test_defaults(tmp_path: Path) -> None:
    settings = Settings(base=str(tmp_path))
    assert settings.http.allowed_hosts == ()
