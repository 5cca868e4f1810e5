"""`DELETE /v1/devices/{id}`: begins a deletion. `deletion_status` reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import redis
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.latest.routes import DEVICE_IN_PATH
from api.requests.device_path import DeviceRoute
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
    """A deletion that has begun; `status_url` is the address of its status."""

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
            "The device is removed from `latest` and from unsaved records; the archive follows",
            {"application/json": DeletionAsked},
        )
    },
    (DEVICE_IN_PATH,),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DEVICE),
    description="`Location` is the address of its status. Records accepted before the request are deleted, later ones "
    "stay.",
)


def status_url(name: str) -> str:
    """Path of a deletion's status."""
    return f"/v1/deletions/{name}"


class Deleting:
    """The route `DELETE /v1/devices/{id}`."""

    def __init__(self, client: redis.Redis, shards: int) -> None:
        self._client = client
        self._shards = shards

    def routes(self) -> list[Route]:
        """The route."""
        return [DeviceRoute(DELETE_DEVICE.path, self.delete_device, methods=["DELETE"])]

    async def delete_device(self, request: Request) -> Response:
        """Begin a deletion: 202, or 404 for a device without records."""
        refuse_unknown(request, ())
        device_id = request.path_params["device_id"]
        name = await run_in_threadpool(call_stores, lambda: self._begin(device_id))
        if name is None:
            detail = f"no device {device_id}: the box never received a record of it, or it was already deleted"
            raise ProblemError(problems.UNKNOWN_DEVICE, detail)
        deletion = DeletionAsked(name, "queued", status_url(name))
        return record_schema.json(deletion, 202, {"Location": deletion.status_url, **RETRY_AFTER})

    def _begin(self, device_id: str) -> str | None:
        shard = hot.attach(self._client, self._shards)[shard_of(device_id, self._shards)]
        return deletions.ask(shard, device_id)


def call_stores(call: Callable[[], T]) -> T:
    """The result of a call to Redis and the archive. Raises `ProblemError` (`busy`) if they cannot be used."""
    try:
        return call()
    except (StoreError, BusyError) as error:
        raise ProblemError(problems.BUSY, str(error), {"Retry-After": "1"}) from None
