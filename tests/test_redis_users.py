"""A whole box whose programs have separate Redis users: each has the permissions that it needs, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from telemetry.config.loader import load
from telemetry.coordination import job_allowlist, shared_state
from telemetry.hot_store.client import connect
from tests.box import Box
from tests.senders import wait_until

pytestmark = pytest.mark.slow

WAIT_S = 30
EXPECTED = {("config|get", "whimbrel-query"), ("config|get", "whimbrel-api")}
"""Expected denials: the programs send these once, because a Redis with other users may allow them."""


def work(box: Box) -> None:
    """Send, refuse, save, merge, ask, export, and run the commands that ask Redis."""
    for number in range(5):
        sent = {"device_id": f"van-{number}", "latitude": 53.4, "longitude": -2.9}
        headers = {"Idempotency-Key": f"key-{number}"}
        assert box.http.post("/v1/records", json=sent, headers=headers).status_code == 202
        url = f"http://127.0.0.1:{box.http_port}/v1/records"
        assert box.http.post(url, json=sent).status_code == 202
        assert box.http.post(url, json={"device_id": "x", "latitude": 999, "longitude": 0}).status_code == 400
    assert box.whimbrel("simulate", "--devices", "3", "--records", "50", "--tcp").returncode in (0, 2)
    assert box.http.get("/v1/devices/van-1/latest").status_code == 200
    assert box.http.get("/v1/records?device_id=van-1").json()["records"]
    assert box.http.get("/v1/export?format=ndjson").status_code == 200
    assert box.http.get("/status").status_code == 200
    assert box.http.delete("/v1/devices/van-1").status_code == 202
    for command in ("drain", "status", "doctor", "compact", "files"):
        assert "NOPERM" not in box.whimbrel(command).stderr
    assert box.whimbrel("quarantine", "list").returncode == 0


def test_each_program_may_do_what_it_needs(tmp_path: Path) -> None:
    with Box(tmp_path, persist__flush_seconds="1") as box, connect(load(None, box.environ)) as admin:
        work(box)
        proof = tmp_path / "proof"
        strange = Queue(job_allowlist.QUEUE, connection=admin, serializer=JSONSerializer)
        strange.enqueue_call("os.system", args=(f"touch {proof}",), timeout=60)
        wait_until(lambda: shared_state.refused(admin).get("job-not-allowed") == 1, WAIT_S)
        assert not proof.exists()
        wait_until(lambda: any("rejected job" in line and "os.system" in line for line in list(box.output)))
        denied = {(found["object"], found["username"]) for found in admin.acl_log()}
        assert denied <= EXPECTED
        connected = {found["user"] for found in admin.client_list()}
        assert connected >= {f"whimbrel-{role}" for role in ("collector", "api", "query", "worker", "scheduler")}
        assert "default" not in connected
        assert box.stop() == 0
