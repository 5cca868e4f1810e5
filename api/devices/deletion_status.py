"""`GET /v1/deletions/{id}`: the progress of a deletion, its counts, and when its last bytes leave the disk."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.devices.delete_device import RETRY_AFTER, State, call_stores, status_url
from api.responses import record_schema
from telemetry.archive.log_retention import Held
from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.deletions import DONE, SWEPT_WITHIN_S, Deletion
from telemetry.http.operations import Content, Operation, Parameter
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import TimeText, iso


class DeletionAnswer(Struct, frozen=True):
    """The progress of a deletion. `records` is the sum of `waiting_records`, deleted before they were saved, and
    `archived_records`, deleted from the archive; `days` and `files` count the days and files that contained them, and
    `quarantined` the deleted entries of the quarantine.

    `files_to_look_at` counts files that may still contain records of the device. When the deletion is done, no response
    contains any. `files_on_disk` counts files that are no longer read and may contain some; they are removed at the
    latest by `off_disk_by`, unless a forward has yet to read them. `trouble` is the error of the last attempt, which
    is repeated.
    """

    id: str
    state: State
    status_url: str
    asked_at: TimeText
    done_at: TimeText | None
    records: int
    waiting_records: int
    archived_records: int
    quarantined: int
    days: int
    files: int
    files_to_look_at: int | None
    files_on_disk: int | None
    off_disk_by: TimeText | None
    waits_for_forward: bool
    trouble: str | None


DELETION = Operation(
    "GET",
    "/v1/deletions/{deletion_id}",
    "get_deletion",
    "The progress of a deletion",
    "deletions",
    {200: Content("Its state, and counts of deleted records", {"application/json": DeletionAnswer})},
    (
        Parameter(
            "deletion_id", "Its id, from the response to DELETE.", {"type": "string"}, str, default="", place="path"
        ),
    ),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DELETION),
    description="Has `Retry-After` until the deletion is done. Its status is kept for 30 days.",
)


class DeletionRoutes:
    """The route `GET /v1/deletions/{id}`."""

    def __init__(self, client: redis.Redis, shards: int, archive: Archive, held: Held, grace_s: float) -> None:
        self._client, self._shards, self._archive = client, shards, archive
        self._held, self._grace_s = held, grace_s

    def routes(self) -> list[Route]:
        """The route."""
        return [DELETION.route(self.get_deletion)]

    async def get_deletion(self, request: Request) -> Response:
        """The progress of a deletion; 404 if it is unknown."""
        refuse_unknown(request, ())
        name = request.path_params["deletion_id"]
        answer = await run_in_threadpool(call_stores, lambda: self._read(name))
        if answer is None:
            raise ProblemError(problems.UNKNOWN_DELETION, f"no deletion {name}, or it was done more than 30 days ago")
        return record_schema.json(answer, headers={} if answer.state == DONE else RETRY_AFTER)

    def _read(self, name: str) -> DeletionAnswer | None:
        shard = deletions.shard_named(name)
        if shard is None or shard >= self._shards:
            return None
        deletion = deletions.read(hot.attach(self._client, self._shards)[shard], name)
        return None if deletion is None else self._answer(deletion)

    def _answer(self, deletion: Deletion) -> DeletionAnswer:
        on_disk = self._on_disk(deletion.left)
        held = self._held() if on_disk else None
        until_ms = (
            None if deletion.done_ms is None else deletion.done_ms + int((self._grace_s + SWEPT_WITHIN_S) * 1_000)
        )
        return DeletionAnswer(
            id=deletion.name,
            state=deletion.state,  # type: ignore[arg-type]
            status_url=status_url(deletion.name),
            asked_at=iso(deletion.asked_ms * 1_000),
            done_at=None if deletion.done_ms is None else iso(deletion.done_ms * 1_000),
            records=deletion.waiting_records + deletion.archived_records,
            waiting_records=deletion.waiting_records,
            archived_records=deletion.archived_records,
            quarantined=deletion.quarantined,
            days=len(deletion.days),
            files=deletion.files,
            files_to_look_at=deletion.to_look_at,
            files_on_disk=None if deletion.done_ms is None else len(on_disk),
            off_disk_by=None if until_ms is None else iso(until_ms * 1_000),
            waits_for_forward=held is not None and held < (deletion.version or 0),
            trouble=deletion.trouble or None,
        )

    def _on_disk(self, left: Sequence[str]) -> set[str]:
        """Files that exist and are not in the table. One may have been committed while the deletion ended."""
        existing = {str(path) for name in left if (path := self._archive.root / name).exists()}
        table = self._archive.open_existing() if existing else None
        return existing if table is None else existing - set(self._archive.files(table))
