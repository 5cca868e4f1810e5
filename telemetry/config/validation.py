"""What has to hold of settings beside the type of each."""

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
"""Protocols over HTTP."""

STREAMS = ("auto", "any", "json", "frames", "msgpack")
"""Protocols over TCP alone."""


def check(settings: Settings) -> None:
    """Raise `ConfigError` where values are wrong together, or where only their content makes one wrong."""
    if set(str(settings.data_dir)) & set("*?[]"):
        raise ConfigError(f"data.dir = {settings.data.dir!r} must not hold * ? [ or ]: DuckDB reads them as patterns")
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
            raise ConfigError(f"api.cors_origins: {origin!r} is no origin: write it like https://map.example.com, or *")


def _check_public_url(url: str) -> None:
    if url and not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", url):
        raise ConfigError(
            f"auth.public_url: cannot use {url!r}: it is no origin; write it like https://fleet.example.com"
        )


def _check_allowed_hosts(names: Sequence[str]) -> None:
    for name in names:
        if name != "*" and not re.fullmatch(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ConfigError(
                f"http.allowed_hosts: {name!r} is no host name: write it like box.example.com, *.example.com or *"
            )


def _check_oidc(settings: Settings) -> None:
    found = settings.oidc
    if not found.issuer:
        return
    host = urlsplit(found.issuer).hostname or ""
    if not (found.issuer.startswith("https://") or (found.issuer.startswith("http://") and is_loopback(host))):
        raise ConfigError(f"oidc.issuer: cannot use {found.issuer!r}: it must begin with https://")
    missing = [name for name, is_set in _needed_by_oidc(settings).items() if not is_set]
    if missing:
        raise ConfigError(f"oidc.issuer needs {' and '.join(missing)}")
    if "openid" not in found.scopes.split():
        raise ConfigError("oidc.scopes must contain openid")


def _needed_by_oidc(settings: Settings) -> dict[str, bool]:
    return {
        "oidc.client_id": bool(settings.oidc.client_id),
        "auth.required = true": settings.auth.required,
        "auth.public_url": bool(settings.auth.public_url),
    }


def _check_tiles(page: Page) -> None:
    if page.tile_url and page.tile_file:
        raise ConfigError("page.tile_url and page.tile_file can't both be set")
    places = [f"{{{name}}}" in page.tile_url for name in "xyz"]
    if page.tile_url and not (re.match(r"https?://[A-Za-z0-9.\-\[\]:]+/", page.tile_url) and all(places)):
        raise ConfigError(
            f"page.tile_url: {page.tile_url!r} is no address of tiles: write it like "
            "https://tiles.example.com/{z}/{x}/{y}.png"
        )


def _check_client_certificates(settings: Settings) -> None:
    tls = settings.tls
    if tls.client_crl and not tls.client_ca:
        raise ConfigError("tls.client_crl is of no use without tls.client_ca")
    if tls.client_ca and not (tls.certificate and settings.auth.required):
        raise ConfigError(
            "tls.client_ca needs tls.certificate and auth.required = true: client certificates take the place of keys"
        )


def _check_login(found: Redis) -> None:
    if (found.user or found.password) and not found.url:
        raise ConfigError("redis.user and redis.password are for a Redis that redis.url names; our own makes its users")
    if found.user and not found.password:
        raise ConfigError("redis.user needs redis.password")
    if found.password and "@" in found.url.partition("://")[2].partition("/")[0]:
        raise ConfigError("redis.url names a user or a password, and so does redis.password: use one of the two")


def _check_host(name: str, host: str, settings: Settings) -> None:
    if not (is_loopback(host) or settings.auth.required or settings.auth.allow_anonymous):
        raise ConfigError(
            f"{name} = {host!r} lets other machines in, and no key is asked for: use 127.0.0.1, set "
            "auth.required = true, or auth.allow_anonymous = true if your network keeps strangers out"
        )


def _check_ports(settings: Settings) -> None:
    ports = (settings.api.port, settings.collector.http_port, settings.collector.tcp_port)
    if len(set(ports)) < len(ports):
        raise ConfigError("api.port, collector.http_port and collector.tcp_port must differ")
    taken = {("tcp", port): "api.port, collector.http_port or collector.tcp_port" for port in ports}
    for place, one in enumerate(settings.collector.listen, 1):
        name = f"collector.listen[{place}]"
        port = ("udp" if one.transport == "udp" else "tcp", one.port)
        if port in taken:
            raise ConfigError(f"{name}.port = {one.port} is that of {taken[port]}, too")
        taken[port] = name
        _check_listener(name, one, settings)


def _check_listener(name: str, one: Listen, settings: Settings) -> None:
    if (one.protocol in POSTED) != (one.transport == "http"):
        spoken = "http" if one.protocol in POSTED else "tcp" if one.protocol in STREAMS else "tcp or udp"
        raise ConfigError(f"{name}.transport = {one.transport!r}: {one.protocol} is spoken over {spoken}")
    if one.transport == "udp" and one.protocol in STREAMS:
        raise ConfigError(f"{name}.transport = 'udp': {one.protocol} is spoken over tcp")
    if "" in (*one.devices, *one.device_prefixes):
        raise ConfigError(f"{name}: cannot use an empty id or prefix, which would let all devices in; remove it")
    if one.tls and one.transport == "udp":
        raise ConfigError(f"{name}.tls = true: TLS is spoken over tcp and http")
    if one.idle_timeout_s and one.transport != "tcp":
        raise ConfigError(f"{name}.idle_timeout_s is of no use over {one.transport}: it is for TCP connections")
    if one.tls and not settings.tls.certificate:
        raise ConfigError(f"{name}.tls = true: set tls.certificate and tls.key")
    try:
        ZoneInfo(one.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{name}.timezone = {one.timezone!r} is no time zone; one is Europe/Istanbul") from None
    can_prove = _can_say_key(one) or (one.tls and bool(settings.tls.client_ca))
    if settings.auth.required and not one.allow_anonymous and not can_prove:
        raise ConfigError(
            f"{name}: auth.required is set, and who speaks {one.protocol} over {one.transport} can't say a key: "
            f"set allow_anonymous = true in its table if your network keeps strangers off port {one.port}"
        )
    if not one.allow_anonymous:
        _check_host(f"{name}.host", one.host or settings.collector.host, settings)


def _can_say_key(one: Listen) -> bool:
    """Whether a protocol has a place for a key; behind auto are trackers, whose have none."""
    return one.protocol in POSTED or (one.protocol in STREAMS and one.protocol != "auto")


def _check_keepalive(collector: Collector) -> None:
    if 0 < collector.tcp_user_timeout_s <= collector.tcp_keepalive_s:
        raise ConfigError(
            "collector.tcp_user_timeout_s must be above collector.tcp_keepalive_s: the first probe without an answer "
            "would end a connection; raise one or lower the other, or set it to 0"
        )


def _check_brokers(brokers: Sequence[Mqtt]) -> None:
    for place, one in enumerate(brokers, 1):
        name = f"collector.mqtt[{place}]"
        for topic in one.topics:
            try:
                Filter.of(topic)
            except ValueError as error:
                raise ConfigError(f"{name}.topics: {topic!r} is no filter of topics: {error}") from None
        if one.ca_file and not one.tls:
            raise ConfigError(f"{name}.ca_file is of no use without {name}.tls = true")
        if (one.host, one.port, one.client_id) in {(b.host, b.port, b.client_id) for b in brokers[: place - 1]}:
            raise ConfigError(f"{name}.client_id = {one.client_id!r} is that of another entry of the same broker")


def _check_entries(settings: Settings) -> None:
    """Refuse entries whose names are not their own, or that lead nowhere."""
    kinds: tuple[tuple[str, Sequence[Forward | Alert], Sequence[str]], ...] = (
        ("forward", settings.forward, FORWARD_SCHEMES),
        ("alert", settings.alert, ("http", "https")),
    )
    for kind, entries, schemes in kinds:
        for name, count in Counter(one.name for one in entries).items():
            if count > 1:
                raise ConfigError(f"{kind}: {count} entries have the name {name!r}; each needs its own")
        for place, one in enumerate(entries, 1):
            scheme, _, rest = one.url.partition("://")
            if scheme not in schemes or not rest.strip("/"):
                raise ConfigError(f"{kind}[{place}].url must be one of {', '.join(f'{s}://…' for s in schemes)}")
            _check_proofs(f"{kind}[{place}]", one, scheme)
    for place, alert in enumerate(settings.alert, 1):
        for number, rule in enumerate(alert.rules, 1):
            if bool(rule.device) == bool(rule.prefix):
                raise ConfigError(f"alert[{place}].rules[{number}] must name a device or a prefix")


def _check_proofs(name: str, one: Forward | Alert, scheme: str) -> None:
    """Refuse a client certificate or a signature that would never be shown."""
    if bool(one.client_certificate) != bool(one.client_key):
        raise ConfigError(f"{name}: client_certificate and client_key need each other; set both or neither")
    if one.client_certificate and scheme not in ("https", "whimbrels"):
        raise ConfigError(f"{name}.client_certificate is of no use over {scheme}://; use https:// or whimbrels://")
    if one.secret and scheme not in ("http", "https"):
        raise ConfigError(f"{name}.secret signs HTTP requests; {scheme}:// has none")


def is_loopback(host: str) -> bool:
    """True if only this machine can reach an address that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
