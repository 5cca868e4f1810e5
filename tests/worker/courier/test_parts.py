"""The courier's small parts: patience, pace, secrets, URLs, signatures."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.config.loader import load
from telemetry.config.secret_values import value_of, values_of
from telemetry.model.errors import ConfigError
from tests.box import PROJECT
from tests.worker.courier.receiver import Receiver
from worker.courier.alerts.events import SIGNATURE, TIMESTAMP, body_of, signed
from worker.courier.delivery.backoff import LONGEST_ASKED_S, Patience
from worker.courier.delivery.bandwidth_limit import Pace
from worker.courier.delivery.http_client import Peer, port_of, retry_after_s, shown


def test_waits_double_up_to_the_longest_for_ever() -> None:
    patience = Patience(60, lambda: 1.0)
    assert [patience.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    patience.succeeded()
    assert patience.failed() == 1
    assert patience.failed(asked_s=30) == 30
    assert patience.failed(asked_s=10**9) == LONGEST_ASKED_S


@given(st.floats(0, 1), st.integers(1, 3_600))
@settings(deadline=None)
def test_no_wait_is_longer_than_the_longest_or_nothing(draw: float, longest_s: int) -> None:
    patience = Patience(longest_s, lambda: draw)
    assert all(0.5 <= patience.failed() <= longest_s for _ in range(20))


def test_a_pace_holds_back_and_ends_at_a_stop() -> None:
    stopped = threading.Event()
    begun_s = time.monotonic()
    Pace(0, stopped)(10**12)
    assert time.monotonic() - begun_s < 0.05
    pace = Pace(1_000, stopped)
    pace(100)
    pace(100)
    assert time.monotonic() - begun_s >= 0.2
    stopped.set()
    pace(10**9)
    assert time.monotonic() - begun_s < 5


def test_secrets_come_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hush\n")
    assert value_of("plain", {}) == "plain"
    assert value_of("env:KEY", {"KEY": "x"}) == "x"
    assert value_of(f"file:{tmp_path}/key", {}) == "hush"
    assert values_of({"Authorization": "env:KEY"}, {"KEY": "Bearer x"}) == {"Authorization": "Bearer x"}
    for text in ("env:KEY", f"file:{tmp_path}/none"):
        with pytest.raises(ConfigError, match="cannot read a secret"):
            value_of(text, {})
    with pytest.raises(ConfigError, match="cannot use the header 'A'") as caught:
        values_of({"A": "hush\r\nB: c"}, {})
    assert "hush" not in str(caught.value)


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert shown("https://me:hush@a.example:8443/hooks/hush?key=hush") == "https://a.example:8443"
    assert shown("s3://bucket/prefix") == "s3://bucket/prefix"


@pytest.mark.parametrize("url", ["http://", "http://a:x/", "http://a:99999/"])
def test_a_url_that_leads_nowhere(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot use the URL"):
        port_of(url)


def test_retry_after() -> None:
    assert retry_after_s("17", 0) == 17
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 20) == 40
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 90) == 0
    assert retry_after_s("soon", 0) == retry_after_s("", 0) == 0
    assert retry_after_s("9" * 400, 0) == retry_after_s("Fri, 31 Dec 9999 23:59:59 -2359", 0) == LONGEST_ASKED_S


@settings(deadline=None)
@given(st.text())
def test_any_retry_after_is_a_number(value: str) -> None:
    assert 0 <= retry_after_s(value, 1.0) <= LONGEST_ASKED_S


def test_control_characters_around_the_seconds_do_not_matter() -> None:
    assert retry_after_s("7\x1f", 0) == 7, "str.strip takes it away, float does not"


def test_a_signature_is_what_the_documentation_says() -> None:
    body = body_of("box", [b'{"id":"1"}'])
    headers = signed("key", body, 1_795_000_000)
    assert body == b'{"host":"box","events":[{"id":"1"}]}'
    assert headers[TIMESTAMP] == "1795000000"
    message = headers[TIMESTAMP].encode() + b"." + body
    assert headers[SIGNATURE] == "sha256=" + hmac.new(b"key", message, hashlib.sha256).hexdigest()
    assert signed("", body, 1) == {}


def test_a_kept_connection_that_was_closed_meanwhile_is_made_anew(receiver: Receiver) -> None:
    receiver.answer = lambda _: (200, {"Connection": "close"} if not receiver.posts else {})
    peer = Peer(receiver.url, 5, {"X": "y"})
    assert [peer.post(b"1", {}).status, peer.post(b"2", {}).status] == [200, 200]
    receiver.answer = lambda post: (200, {}) if post.body != b"3" or len(receiver.posts) > 5 else (0, {})
    with pytest.raises(OSError, match="cannot reach 127"):
        peer.post(b"3", {})
    assert peer.post(b"4", {}).is_good
    assert [post.body for post in receiver.posts] == [b"1", b"2", b"4"]
    assert receiver.posts[0].headers["X"] == "y"
    peer.close()


def test_the_settings_of_the_documentation_are_taken(tmp_path: Path) -> None:
    part = (PROJECT / "docs" / "operations" / "forward.md").read_text(encoding="utf-8")
    (tmp_path / "config.toml").write_text("\n".join(re.findall(r"```toml\n(.*?)```", part, re.DOTALL)))
    found = load(str(tmp_path / "config.toml"), {})
    assert [one.scheme for one in found.forward] == ["whimbrels", "s3", "https"]
    assert [len(one.rules) for one in found.alert] == [2]
