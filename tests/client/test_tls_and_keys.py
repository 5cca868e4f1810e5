"""A client of a box with TLS and keys: it believes its own authority alone, and a key opens what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.box import Box
from tests.certificates import Authority
from tests.client.conftest import Kind
from whimbrel_client import BoxUnavailable, KeyRefused, Sent

pytestmark = pytest.mark.slow


def test_a_box_with_tls_and_keys(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    authority = Authority(tmp_path / "ca").issue()
    files = {"tls__certificate": str(authority.certificate), "tls__key": str(authority.key)}
    with Box(tmp_path / "box", auth__required="true", **files) as box:  # type: ignore[arg-type]
        url = f"https://127.0.0.1:{box.api_port}"
        key = box.new_key("--scope", "ingest", "--scope", "read")
        with kind(url, key, retry_for_s=0) as stranger, pytest.raises(BoxUnavailable, match="certificate"):
            stranger.send([{"device_id": "d"}])
        with kind(url, key, ca_file=authority.ca_file, spool=tmp_path / "spool") as client:
            assert client.send([{"device_id": "d", "altitude_m": 1}]) == Sent(accepted=1)
            assert client.latest("d")["altitude_m"] == 1
            assert next(client.live())["device_id"] == "d"
            with pytest.raises(KeyRefused, match="sql"):
                client.sql("SELECT 1")
