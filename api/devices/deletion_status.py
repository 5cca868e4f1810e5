"""`GET /v1/deletions/{id}`: how far a deletion is, what it removed, and when its last bytes leave the disk."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.devices.delete_device import RETRY_AFTER, State, asked, url_of
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
    """How far a deletion is, and what it has removed: `records`, of which `waiting_records` were not saved yet and
    `archived_records` were, of so many `days`, out of so many `files`; and entries of the quarantine.

    `files_to_look_at` may still hold some. Once it is done, no answer shows any; `files_on_disk` are files that nobody
    reads any more and that may have held some, until they are swept, at the latest by `off_disk_by`, unless a forward
    has yet to read them. `trouble` says why the last attempt failed; there will be another.
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
    "How far a deletion is",
    "deletions",
    {200: Content("Its state, and what it has removed", {"application/json": DeletionAnswer})},
    (
        Parameter(
            "deletion_id", "Its id, as the answer to DELETE has it.", {"type": "string"}, str, default="", place="path"
        ),
    ),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DELETION),
    description="`Retry-After` is there until it is done. It is remembered for 30 days.",
)


class DeletionRoutes:
    """`GET /v1/deletions/{id}`."""

    def __init__(self, client: redis.Redis, shards: int, archive: Archive, held: Held, grace_s: float) -> None:
        self._client, self._shards, self._archive = client, shards, archive
        self._held, self._grace_s = held, grace_s

    async def get_deletion(self, request: Request) -> Response:
        """How far it is."""
        refuse_unknown(request, ())
        name = request.path_params["deletion_id"]
        found = await run_in_threadpool(asked, lambda: self._read(name))
        if found is None:
            raise ProblemError(
                problems.UNKNOWN_DELETION, f"there is no deletion {name}, or it was done more than 30 days ago"
            )
        return record_schema.json(found, headers={} if found.state == DONE else RETRY_AFTER)

    def _read(self, name: str) -> DeletionAnswer | None:
        shard = deletions.shard_named(name)
        if shard is None or shard >= self._shards:
            return None
        found = deletions.read(hot.attach(self._client, self._shards)[shard], name)
        return None if found is None else self._answer(found)

    def _answer(self, found: Deletion) -> DeletionAnswer:
        on_disk = self._on_disk(found.left)
        held = self._held() if on_disk else None
        until_ms = None if found.done_ms is None else found.done_ms + int((self._grace_s + SWEPT_WITHIN_S) * 1_000)
        return DeletionAnswer(
            id=found.name,
            state=found.state,  # type: ignore[arg-type]
            status_url=url_of(found.name),
            asked_at=iso(found.asked_ms * 1_000),
            done_at=None if found.done_ms is None else iso(found.done_ms * 1_000),
            records=found.waiting_records + found.archived_records,
            waiting_records=found.waiting_records,
            archived_records=found.archived_records,
            quarantined=found.quarantined,
            days=len(found.days),
            files=found.files,
            files_to_look_at=found.to_look_at,
            files_on_disk=None if found.done_ms is None else len(on_disk),
            off_disk_by=None if until_ms is None else iso(until_ms * 1_000),
            waits_for_forward=held is not None and held < (found.version or 0),
            trouble=found.trouble or None,
        )

    def _on_disk(self, left: Sequence[str]) -> set[str]:
        """Those that are there still, and are not in the table: one was being written as the deletion ended."""
        found = {str(path) for name in left if (path := self._archive.root / name).exists()}
        table = self._archive.open_existing() if found else None
        return found if table is None else found - set(self._archive.files(table))
