"""Clients that generators make of `/openapi.json`, and readers of server-sent events, used against a box."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.model.record import Sent
from tests.api.conftest import Box, box_on, record
from tests.api.records.test_range_query import MIDNIGHT_US
from tests.browser import running_browser
from tests.conftest import RedisServer
from tests.third_party import FOLDER, NODE_MODULES, PYTHON, needs_node_modules, needs_third_party

pytestmark = needs_third_party
TYPESCRIPT = Path(__file__).parents[1] / "data" / "clients" / "use.ts"

TSC = {
    "strict": True,
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "types": [],
    "lib": ["es2022", "dom"],
    "skipLibCheck": True,
}

LOSSES = ("Unable to process schema", "will not be generated", "will be omitted")
"""What a generator says of parts of a document that it leaves out."""

USE_PYTHON = """\
import json, sys
from made import Client, models
from made.api.intake import post_records
from made.api.latest import get_device, get_devices, get_latest
from made.api.records import get_records, post_sql
from made.api.analytics import get_summary
from made.models import GetSummaryFieldsItem as Field

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
page = get_records.sync(client=client, device_id=["van", "bus"], bbox=[1, 1, 3, 3])
near = get_latest.sync(client=client, near=[1, 2, 1000], device_id=["van"])
stored = post_records.sync(client=client, body=[models.SentRecord(device_id="made", latitude=1, longitude=2)])
answer = post_sql.sync(client=client, body=models.SqlQuestion("SELECT device_id FROM records WHERE device_id = 'van'"))
summary = get_summary.sync(client=client, device_id=["van"], fields=[Field.COUNT, Field.FIRST]).summaries[0]
print(json.dumps({
    "devices": [one.device_id for one in page.records],
    "times": [one.timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z") for one in page.records],
    "device": get_device.sync("a/b", client=client).device_id,
    "accepted": stored.accepted,
    "rows": answer.rows,
    "count": summary.count,
    "event": near.records[0].device_id,
    "known": [one.device_id for one in get_devices.sync(client=client).devices],
}))
"""

USE_MODELS = """\
import json, sys
import httpx, models
http = httpx.Client(base_url=sys.argv[1])
page = models.RecordsPage.model_validate_json(http.get("/v1/records?device_id=van").content)
query = {"query": "SELECT device_id FROM records WHERE device_id = 'van'"}
answer = models.SqlAnswer.model_validate_json(http.post("/v1/sql", json=query).content)
device = models.DeviceAnswer.model_validate_json(http.get("/v1/devices/a%2Fb").content)
print(json.dumps({"devices": [one.device_id for one in page.records], "rows": answer.rows, "device": device.device_id}))
"""

READ_EVENTS = """\
import json, sys
import httpx, sseclient
from httpx_sse import connect_sse
url = sys.argv[1] + "/v1/live?device_id=van"
with httpx.Client() as http:
    with connect_sse(http, "GET", url) as source:
        first = next(source.iter_sse())
    with http.stream("GET", url) as answer:
        other = next(sseclient.SSEClient(answer.iter_bytes()).events())
print(json.dumps([[one.event, json.loads(one.data)["records"][0]["device_id"]] for one in (first, other)]))
"""


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("box"), sql__enabled="true") as found:
        found.append(Sent("van", record(MIDNIGHT_US)), Sent("van", record(MIDNIGHT_US + 1)))
        found.append(Sent("bus", record(MIDNIGHT_US + 2, latitude=50.0)), Sent("a/b", record(MIDNIGHT_US)))
        yield found


@pytest.fixture(scope="module")
def folder(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the document as the box answers it."""
    found = tmp_path_factory.mktemp("clients")
    (found / "openapi.json").write_bytes(box.get("/openapi.json").content)
    return found


def run(folder: Path, *command: str) -> str:
    """What a program of `.third-party` prints."""
    path = os.pathsep.join([str(FOLDER / "bin"), os.environ["PATH"]])
    environ = os.environ | {"PATH": path}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def printed(folder: Path, *command: str) -> Any:
    return json.loads(run(folder, *command))


EXPECTED = {
    "devices": ["van", "van"],
    "times": ["2026-01-10T00:00:00.000000Z", "2026-01-10T00:00:00.000001Z"],
    "device": "a/b",
    "accepted": 1,
    "rows": [["van"], ["van"]],
    "count": 2,
    "event": "van",
}


def test_openapi_python_client(box: Box, folder: Path) -> None:
    made = run(folder, "openapi-python-client", "generate", "--path=openapi.json", "--output-path=made", "--meta=none")
    assert [line for line in made.splitlines() if any(loss in line for loss in LOSSES)] == []
    found = printed(folder, str(PYTHON), "-c", USE_PYTHON, f"http://127.0.0.1:{box.port}")
    assert {"a/b", "bus", "made", "van"} <= set(found.pop("known"))
    assert found == EXPECTED


def test_datamodel_code_generator(box: Box, folder: Path) -> None:
    run(
        folder,
        "datamodel-codegen",
        "--input=openapi.json",
        "--input-file-type=openapi",
        "--output=models.py",
        "--output-model-type=pydantic_v2.BaseModel",
    )
    found = printed(folder, str(PYTHON), "-c", USE_MODELS, f"http://127.0.0.1:{box.port}")
    assert found == {name: EXPECTED[name] for name in ("devices", "rows", "device")}


@needs_node_modules
def test_openapi_typescript(box: Box, folder: Path) -> None:
    """Types are right, and lists, which this client sends as repeated parameters, are understood."""
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": TSC, "files": [TYPESCRIPT.name]}))
    shutil.copy(TYPESCRIPT, folder)
    node = str(NODE_MODULES / ".bin")
    run(folder, f"{node}/openapi-typescript", "openapi.json", "--output=schema.d.ts")
    run(folder, f"{node}/tsc", "--project", ".")
    assert printed(folder, "node", "use.js", f"http://127.0.0.1:{box.port}") == EXPECTED


FIRST_EVENT = """\
new Promise((resolve, reject) => {
  const source = new EventSource("/v1/live?device_id=van");
  const take = (event) => { source.close(); resolve([event.type, JSON.parse(event.data).records[0].device_id]); };
  for (const type of ["message", "latest"]) source.addEventListener(type, take);
  source.onerror = () => reject(new Error("the stream ended"));
})
"""


def test_a_browser_reads_server_sent_events(box: Box) -> None:
    with running_browser() as browser:
        browser.open(f"http://127.0.0.1:{box.port}/")
        assert browser.run(FIRST_EVENT) == ["latest", "van"]


def test_readers_of_server_sent_events(box: Box, folder: Path) -> None:
    """The first event that httpx-sse and sseclient hand out has data."""
    found = printed(folder, str(PYTHON), "-c", READ_EVENTS, f"http://127.0.0.1:{box.port}")
    assert found == [["latest", "van"], ["latest", "van"]]
