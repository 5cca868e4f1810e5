"""Checks of settings that go beyond the type of each."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from telemetry.config.settings import Alert, Collector, Forward, Listen, Mqtt, Page, Redis, Settings
from telemetry.model.errors import ConfigError
from telemetry.model.mqtt_topics import Filter

FORWARD_SCHEMES = ("whimbrel", "whimbrels", "http", "https", "s3")

POSTED = ("osmand", "owntracks", "traccar", "influx")
"""Protocols that use HTTP."""

STREAMS = ("auto", "any", "json", "frames", "msgpack")
"""Protocols that use only TCP."""


def check(settings: Settings) -> None:
    """Raise `ConfigError` for values that are not valid, alone or in combination."""
    if set(str(settings.data_dir)) & set("*?[]"):
        raise ConfigError(
            f"data.dir = {settings.data.dir!r} must not contain * ? [ or ]: DuckDB reads them as patterns"
        )
    _check_host("api.host", settings.api.host, settings)
    _check_host("collector.host", settings.collector.host, settings)
    _check_ports(settings)
    _check_keepalive(settings.collector)
    _check_brokers(settings.collector.mqtt)
    _check_origins(settings.api.cors_origins)
    _check_public_url(settings.auth.public_url)
    _check_allowed_hosts(settings.http.allowed_hosts)
    _check_oidc(settings)
    _check_tiles(settings.page)
    if bool(settings.tls.certificate) != bool(settings.tls.key):
        raise ConfigError("tls.certificate and tls.key must be set together")
    _check_client_certificates(settings)
    _check_login(settings.redis)
    if settings.redis.resume_percent > settings.redis.full_percent:
        raise ConfigError("redis.resume_percent must not be above redis.full_percent")
    if settings.persist.flush_records > settings.persist.max_records:
        raise ConfigError("persist.flush_records must not be above persist.max_records")
    _check_entries(settings)


def _check_origins(origins: Sequence[str]) -> None:
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", origin):
            raise ConfigError(f"api.cors_origins: {origin!r} is not an origin like https://map.example.com, or *")


def _check_public_url(url: str) -> None:
    if url and not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", url):
        raise ConfigError(f"auth.public_url: cannot use {url!r}: it is not an origin like https://fleet.example.com")


def _check_allowed_hosts(names: Sequence[str]) -> None:
    for name in names:
        if name != "*" and not re.fullmatch(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ConfigError(
                f"http.allowed_hosts: {name!r} is not a host name like box.example.com, *.example.com or *"
            )


def _check_oidc(settings: Settings) -> None:
    oidc = settings.oidc
    if not oidc.issuer:
        return
    host = urlsplit(oidc.issuer).hostname or ""
    if not (oidc.issuer.startswith("https://") or (oidc.issuer.startswith("http://") and is_loopback(host))):
        raise ConfigError(f"oidc.issuer: cannot use {oidc.issuer!r}: it must begin with https://")
    missing = [name for name, is_set in _needed_by_oidc(settings).items() if not is_set]
    if missing:
        raise ConfigError(f"oidc.issuer needs {' and '.join(missing)}")
    if "openid" not in oidc.scopes.split():
        raise ConfigError("oidc.scopes must contain openid")


def _needed_by_oidc(settings: Settings) -> dict[str, bool]:
    return {
        "oidc.client_id": bool(settings.oidc.client_id),
        "auth.required = true": settings.auth.required,
        "auth.public_url": bool(settings.auth.public_url),
    }


def _check_tiles(page: Page) -> None:
    if page.tile_url and page.tile_file:
        raise ConfigError("page.tile_url and page.tile_file cannot both be set")
    placeholders = [f"{{{name}}}" in page.tile_url for name in "xyz"]
    if page.tile_url and not (re.match(r"https?://[A-Za-z0-9.\-\[\]:]+/", page.tile_url) and all(placeholders)):
        raise ConfigError(
            f"page.tile_url: {page.tile_url!r} is not a URL template like "
            "https://tiles.example.com/{z}/{x}/{y}.png"
        )


def _check_client_certificates(settings: Settings) -> None:
    tls = settings.tls
    if tls.client_crl and not tls.client_ca:
        raise ConfigError("tls.client_crl has no effect without tls.client_ca")
    if tls.client_ca and not (tls.certificate and settings.auth.required):
        raise ConfigError(
            "tls.client_ca needs tls.certificate and auth.required = true: client certificates replace keys"
        )


def _check_login(server: Redis) -> None:
    if (server.user or server.password) and not server.url:
        raise ConfigError("redis.user and redis.password need redis.url; Whimbrel's own Redis has its own users")
    if server.user and not server.password:
        raise ConfigError("redis.user needs redis.password")
    if server.password and "@" in server.url.partition("://")[2].partition("/")[0]:
        raise ConfigError("redis.url has a user or a password, and redis.password is set: use only one of them")


def _check_host(name: str, host: str, settings: Settings) -> None:
    if not (is_loopback(host) or settings.auth.required or settings.auth.allow_anonymous):
        raise ConfigError(
            f"{name} = {host!r} is reachable from other machines and requires no key: use 127.0.0.1, set "
            "auth.required = true, or auth.allow_anonymous = true if your network blocks access from outside"
        )


def _check_ports(settings: Settings) -> None:
    ports = (settings.api.port, settings.collector.http_port, settings.collector.tcp_port)
    if len(set(ports)) < len(ports):
        raise ConfigError("api.port, collector.http_port and collector.tcp_port must differ")
    taken = {("tcp", port): "api.port, collector.http_port or collector.tcp_port" for port in ports}
    for number, listen in enumerate(settings.collector.listen, 1):
        name = f"collector.listen[{number}]"
        port = ("udp" if listen.transport == "udp" else "tcp", listen.port)
        if port in taken:
            raise ConfigError(f"{name}.port = {listen.port} is already used by {taken[port]}")
        taken[port] = name
        _check_listener(name, listen, settings)


def _check_listener(name: str, listen: Listen, settings: Settings) -> None:
    if (listen.protocol in POSTED) != (listen.transport == "http"):
        transports = "http" if listen.protocol in POSTED else "tcp" if listen.protocol in STREAMS else "tcp or udp"
        raise ConfigError(f"{name}.transport = {listen.transport!r}: {listen.protocol} uses {transports}")
    if listen.transport == "udp" and listen.protocol in STREAMS:
        raise ConfigError(f"{name}.transport = 'udp': {listen.protocol} uses tcp")
    if "" in (*listen.devices, *listen.device_prefixes):
        raise ConfigError(f"{name}: cannot use an empty id or prefix, which would accept all devices; remove it")
    if listen.tls and listen.transport == "udp":
        raise ConfigError(f"{name}.tls = true: TLS needs the transport tcp or http")
    if listen.idle_timeout_s and listen.transport != "tcp":
        raise ConfigError(f"{name}.idle_timeout_s has no effect over {listen.transport}; it is for TCP connections")
    if listen.tls and not settings.tls.certificate:
        raise ConfigError(f"{name}.tls = true: set tls.certificate and tls.key")
    try:
        ZoneInfo(listen.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{name}.timezone = {listen.timezone!r} is not a time zone like Europe/Istanbul") from None
    can_prove = _carries_key(listen) or (listen.tls and bool(settings.tls.client_ca))
    if settings.auth.required and not listen.allow_anonymous and not can_prove:
        raise ConfigError(
            f"{name}: auth.required is set, but {listen.protocol} over {listen.transport} cannot carry an API key: "
            f"set allow_anonymous = true for this port if your network blocks access to port {listen.port} from outside"
        )
    if not listen.allow_anonymous:
        _check_host(f"{name}.host", listen.host or settings.collector.host, settings)


def _carries_key(listen: Listen) -> bool:
    """True if the protocol can carry a key. `auto` also detects trackers, whose protocols cannot."""
    return listen.protocol in POSTED or (listen.protocol in STREAMS and listen.protocol != "auto")


def _check_keepalive(collector: Collector) -> None:
    if 0 < collector.tcp_user_timeout_s <= collector.tcp_keepalive_s:
        raise ConfigError(
            "collector.tcp_user_timeout_s must be above collector.tcp_keepalive_s, because the first unanswered probe "
            "would end a connection; raise one or lower the other, or set it to 0"
        )


def _check_brokers(brokers: Sequence[Mqtt]) -> None:
    for number, broker in enumerate(brokers, 1):
        name = f"collector.mqtt[{number}]"
        for topic in broker.topics:
            try:
                Filter.of(topic)
            except ValueError as error:
                raise ConfigError(f"{name}.topics: {topic!r} is not a valid topic filter: {error}") from None
        if broker.ca_file and not broker.tls:
            raise ConfigError(f"{name}.ca_file has no effect without {name}.tls = true")
        if (broker.host, broker.port, broker.client_id) in {
            (b.host, b.port, b.client_id) for b in brokers[: number - 1]
        }:
            raise ConfigError(f"{name}.client_id = {broker.client_id!r} is used by another entry of this broker")


def _check_entries(settings: Settings) -> None:
    """Reject entries without a unique name or a valid destination."""
    kinds: tuple[tuple[str, Sequence[Forward | Alert], Sequence[str]], ...] = (
        ("forward", settings.forward, FORWARD_SCHEMES),
        ("alert", settings.alert, ("http", "https")),
    )
    for kind, entries, schemes in kinds:
        for name, count in Counter(entry.name for entry in entries).items():
            if count > 1:
                raise ConfigError(f"{kind}: {count} entries have the name {name!r}; names must be unique")
        for place, entry in enumerate(entries, 1):
            scheme, _, rest = entry.url.partition("://")
            if scheme not in schemes or not rest.strip("/"):
                raise ConfigError(f"{kind}[{place}].url must be one of {', '.join(f'{s}://…' for s in schemes)}")
            _check_proofs(f"{kind}[{place}]", entry, scheme)
    for place, alert in enumerate(settings.alert, 1):
        for number, rule in enumerate(alert.rules, 1):
            if bool(rule.device) == bool(rule.prefix):
                raise ConfigError(f"alert[{place}].rules[{number}] must name a device or a prefix")


def _check_proofs(name: str, entry: Forward | Alert, scheme: str) -> None:
    """Reject a client certificate or a signature that would never be sent."""
    if bool(entry.client_certificate) != bool(entry.client_key):
        raise ConfigError(f"{name}: client_certificate and client_key must be set together")
    if entry.client_certificate and scheme not in ("https", "whimbrels"):
        raise ConfigError(f"{name}.client_certificate has no effect over {scheme}://; use https:// or whimbrels://")
    if entry.secret and scheme not in ("http", "https"):
        raise ConfigError(f"{name}.secret signs HTTP requests; {scheme}:// does not use HTTP requests")


def is_loopback(host: str) -> bool:
    """True if only this machine can reach an address that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
