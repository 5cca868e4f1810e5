"""Schemathesis sends valid and invalid requests to a whole box: none fails, and all responses match the document."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.box import Box

EXAMPLES = 10
SEED = 8
MAX_SHOWN = 500
READY_S = 60

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
)
"""Without `positive_data_acceptance`: no schema describes valid pairs of parameters, or all formats of a time."""

PHASES = {False: "examples,coverage", True: "examples,coverage,fuzzing"}
"""Whether a box requires keys → phases. Both would generate the same requests, because the seed is the same."""

CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 413, 414, 415, 422, 431]
"""


def fill(box: Box) -> None:
    """Have records in the archive and in Redis, of a box that is ready."""
    for minute in range(20):
        sent = [
            {"device_id": device, "time": f"2026-01-24T10:{minute:02}:00Z", "lat": 53.4 + minute / 1_000, "lon": -2.97}
            for device in ("van-7", "bus 14")
        ]
        assert box.http.post("/v1/records", json=sent).status_code == 202
        if minute == 10:
            assert box.whimbrel("drain").returncode == 0
    stop_s = time.monotonic() + READY_S
    while box.http.get("/readyz").status_code != 200:
        assert time.monotonic() < stop_s
        time.sleep(0.5)


def log_in(box: Box) -> list[str]:
    """Give the box's client a new key with all permissions; returns Schemathesis's option for the same key."""
    key = box.new_key("--scope", "admin")
    box.http.headers["Authorization"] = f"Bearer {key}"
    return ["--header", f"Authorization: Bearer {key}"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "has_keys", [pytest.param(False, id="open", marks=pytest.mark.thorough), pytest.param(True, id="guarded")]
)
def test_the_api_does_what_its_document_says(has_keys: bool, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"auth__required": "true", "limits__address_wrong_keys_per_min": "0"} if has_keys else {}
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    with Box(tmp_path / "box", sql__enabled="true", **keys) as box:
        login = log_in(box) if has_keys else []
        fill(box)
        command = [
            *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config)),
            *("run", f"http://127.0.0.1:{box.api_port}/openapi.json"),
            *("--exclude-path", "/v1/live"),  # which never ends
            *("--phases", PHASES[has_keys], "--checks", ",".join(CHECKS)),
            *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--generation-database", "none"),
            *("--request-timeout", "30", "--warnings", "off", "--no-color", *login),
        ]
        done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
        said = "\n".join(line[:MAX_SHOWN] for line in (done.stdout + done.stderr).splitlines())
        assert done.returncode == 0, said
        assert box.stop() == 0
    assert "Traceback" not in "".join(box.output)
