"""Connections that the limit of open files leaves room for."""

from __future__ import annotations

import logging
import resource

import pytest

from telemetry.config.settings import Collector, Settings
from telemetry.limits import open_files
from telemetry.limits.open_files import Cap, api_caps, api_wants, collector_caps, collector_wants

DEFAULT = Settings()


@pytest.mark.parametrize("files", [64, 256, 1_024, 4_096, 20_000])
def test_connections_leave_a_reserve_and_one_address_leaves_half(files: int) -> None:
    caps = collector_caps(DEFAULT, files)
    assert files // 4 <= caps.tcp.maximum + caps.http.maximum <= files - min(168, files // 2)
    assert caps.tcp.per_address * 2 <= caps.tcp.maximum
    assert caps.http.per_address * 2 <= caps.http.maximum
    api = api_caps(DEFAULT, files, 256).http
    assert (api.maximum, api.per_address * 2) <= (files - min(424, files // 2), api.maximum)


def test_enough_files_leave_the_settings_as_they_are() -> None:
    caps = collector_caps(DEFAULT, collector_wants(DEFAULT))
    assert (caps.tcp, caps.http) == (Cap(20_000, 10_000), Cap(4_000, 2_000))
    assert api_caps(DEFAULT, api_wants(DEFAULT, 256), 256).http == Cap(4_000, 2_000)


def test_a_limit_that_fits_is_left_alone_and_http_gets_what_tcp_leaves() -> None:
    few = Settings(collector=Collector(max_connections=10, max_connections_per_address=10))
    caps = collector_caps(few, 800)
    assert (caps.tcp, caps.http) == (Cap(10, 10), Cap(622, 311))


def test_no_limit_per_address_stays_none() -> None:
    assert Cap(100, 0).within(10) == Cap(10, 0)


def test_too_few_files_are_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(open_files, "allow_open_files", lambda _wanted: 800)
    with caplog.at_level(logging.WARNING):
        open_files.allow_collector(DEFAULT)
        open_files.allow_api(DEFAULT, 256)
    collector, api = (record.getMessage() for record in caplog.records)
    assert collector == (
        "800 files may be open: at most 474 TCP connections (237 per address) and 158 over HTTP (79 per address); "
        "raise ulimit -Hn to 24168 for the limits of the settings"
    )
    assert api.startswith("800 files may be open: at most 400 HTTP connections (200 per address);")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 800
