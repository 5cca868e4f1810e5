"""A Prometheus that scrapes a box, with the rules of docs/operations/alerts.yml on a faster clock."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.box import free_ports, plain_http
from tests.promtool import ALERTS

PROMETHEUS = shutil.which("prometheus") or ""
needs_prometheus = pytest.mark.skipif(not PROMETHEUS, reason="prometheus is not installed (scripts/install-promtool)")

FASTER = 360
"""Factor by which the rules' durations are shorter: an hour in 10 s."""

MIN_WINDOW_S = 30
"""Minimum range of the shorter rules: a program takes seconds to start again, and the rule counts its starts."""

SCRAPE_S = 2
"""While Redis is silent a page takes over a second, and it must arrive before the next scrape."""

START_S = 30
UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(duration: str) -> int:
    """Seconds of a duration of Prometheus such as 15m."""
    return int(duration[:-1]) * UNIT_S[duration[-1]]


def window_s(duration_s: int) -> int:
    """Shorter range, seconds, at least `MIN_WINDOW_S`."""
    return max(MIN_WINDOW_S, duration_s // FASTER)


def faster(rules: str) -> str:
    """Rules with `for`, ranges, offsets and ages of programs and boxes divided by `FASTER`; the thresholds stay."""
    for pattern, shorter in (
        (r"\bfor: (\d+[smhd])\b", lambda found: f"for: {1_000 * seconds(found[1]) // FASTER}ms"),
        (r"\[(\d+[smhd])\]", lambda found: f"[{window_s(seconds(found[1]))}s]"),
        (r"\boffset (\d+[smhd])\b", lambda found: f"offset {window_s(seconds(found[1]))}s"),
        (r"(?<=\], )(\d+)\)", lambda found: f"{int(found[1]) // FASTER})"),  # the horizon of predict_linear
        (r"(_(?:start_time|archive_age)_seconds < )(\d+)", lambda found: f"{found[1]}{window_s(int(found[2]))}"),
    ):
        rules, count = re.subn(pattern, shorter, rules)
        assert count, f"no rule has {pattern}"
    return rules


class Prometheus:
    """A server that scrapes one box over TLS."""

    def __init__(self, folder: Path, target: str, ca_file: Path) -> None:
        [port] = free_ports(1)
        self.http = plain_http(f"http://127.0.0.1:{port}")
        rules = folder / ALERTS.name
        rules.write_text(faster(ALERTS.read_text(encoding="utf-8")), encoding="utf-8")
        scrape = {
            "job_name": "whimbrel",
            "scheme": "https",
            "tls_config": {"ca_file": str(ca_file)},
            "static_configs": [{"targets": [target]}],
        }
        times = {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s", "evaluation_interval": "1s"}
        config = {"global": times, "rule_files": [rules.name], "scrape_configs": [scrape]}
        (folder / "prometheus.json").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML, too
        self._command = [
            PROMETHEUS,
            f"--config.file={folder / 'prometheus.json'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        self._process = subprocess.Popen(self._command)
        stop_s = time.monotonic() + START_S
        try:
            while not self._is_ready():
                assert time.monotonic() < stop_s, "Prometheus is not ready"
                assert self._process.poll() is None, "Prometheus has ended"
                time.sleep(0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.http.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def firing(self) -> set[str]:
        """Names of the alarms that fire now."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def fired_since(self, began_s: float) -> set[str]:
        """Names of the alarms that have fired since then (`time.monotonic`), also those that are quiet again."""
        past_s = int(time.monotonic() - began_s)
        if past_s < 1:
            return set()
        fired = self._get("/api/v1/query", query=f'last_over_time(ALERTS{{alertstate="firing"}}[{past_s}s])')["result"]
        return {alert["metric"]["alertname"] for alert in fired}

    def value(self, expression: str) -> float:
        """Value of an expression that yields one series; NaN if it yields none."""
        found = self._get("/api/v1/query", query=expression)["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else float("nan")

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self.http.get(path, params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]
