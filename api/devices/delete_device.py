"""`DELETE /v1/devices/{id}`, which begins a deletion. deletion_status.py says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import redis
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.latest.routes import DEVICE_IN_PATH
from api.responses import record_schema
from telemetry.hot_store import shard as hot
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations import deletions
from telemetry.http.operations import Content, Operation
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError

RETRY_AFTER = {"Retry-After": "2"}

T = TypeVar("T")
State = Literal["queued", "running", "done", "failed"]


class DeletionAsked(Struct, frozen=True):
    """A deletion that was begun: `status_url` says how far it is."""

    id: str
    state: State
    status_url: str


DELETE_DEVICE = Operation(
    "DELETE",
    "/v1/devices/{device_id:device}",
    "delete_device",
    "Delete a device and all its records",
    "deletions",
    {
        202: Content(
            "It has gone from latest and from what waits; the archive follows", {"application/json": DeletionAsked}
        )
    },
    (DEVICE_IN_PATH,),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DEVICE),
    description="`Location` is where its status is. What was accepted before goes, what comes later stays.",
)


def url_of(name: str) -> str:
    """Where the status of a deletion is."""
    return f"/v1/deletions/{name}"


class Deleting:
    """`DELETE /v1/devices/{id}`."""

    def __init__(self, client: redis.Redis, shards: int) -> None:
        self._client = client
        self._shards = shards

    async def delete_device(self, request: Request) -> Response:
        """Begin to delete a device."""
        refuse_unknown(request, ())
        device_id = request.path_params["device_id"]
        name = await run_in_threadpool(asked, lambda: self._ask(device_id))
        if name is None:
            detail = f"there is no device {device_id}: no record of it was ever received, or it is deleted already"
            raise ProblemError(problems.UNKNOWN_DEVICE, detail)
        found = DeletionAsked(name, "queued", url_of(name))
        return record_schema.json(found, 202, {"Location": found.status_url, **RETRY_AFTER})

    def _ask(self, device_id: str) -> str | None:
        shard = hot.attach(self._client, self._shards)[shard_of(device_id, self._shards)]
        return deletions.ask(shard, device_id)


def asked(question: Callable[[], T]) -> T:
    """What Redis and the archive answer; that they can't be asked becomes a problem."""
    try:
        return question()
    except (StoreError, BusyError) as error:
        raise ProblemError(problems.BUSY, str(error), {"Retry-After": "1"}) from None
