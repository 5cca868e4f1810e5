"""HTTP client of commands for the box."""

from __future__ import annotations

import argparse
import ssl

import httpx

from telemetry.config.settings import Settings
from telemetry.config.validation import is_loopback
from telemetry.network.tls import trusting, trusting_files


def add_ca_file(parser: argparse.ArgumentParser) -> None:
    """Declare `--ca-file`."""
    parser.add_argument("--ca-file", default="", metavar="FILE", help="certificates to trust, PEM (else the system's)")


def client(url: str, timeout_s: float, tls: ssl.SSLContext | None = None, key: str = "") -> httpx.Client:
    """One keep-alive connection to `url`, with a key if there is one. On this machine it uses no proxy of the
    environment, and no compressed responses, which would only cost CPU time.
    """
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    is_local = is_loopback(httpx.URL(url).host)
    verify = True if tls is None else tls
    headers = {"Accept-Encoding": "identity"} if is_local else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.Client(
        base_url=url, timeout=timeout_s, limits=limits, trust_env=not is_local, verify=verify, headers=headers
    )


def trusted(args: argparse.Namespace, settings: Settings, is_own: bool) -> ssl.SSLContext | None:
    """What to trust: the file that was named, else of the box itself its very certificate; None: the system's."""
    if args.ca_file:
        return trusting_files(args.ca_file)
    if is_own and settings.tls_paths is not None:
        return trusting(settings.tls_paths[0])
    return None
