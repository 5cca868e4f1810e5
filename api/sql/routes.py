"""`POST /v1/sql`: a question in SQL over all records, answered by a process of its own (sandbox_process.py)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.execution.slots import SlotLimits, Slots
from api.formats import FORMATS
from api.formats.csv import SAFE
from api.requests import key_devices
from api.requests.asker import current_asker
from api.responses.negotiation import CSV_SAFE, chosen, kinds, parameter
from api.responses.page_response import VARY
from api.snapshot.snapshot import Snapshots, Wanted
from api.sql.sandbox import Answer, SqlProcesses
from api.sql.sandbox_process import COSTLY, FAILED, LENGTH_BYTES, WRONG, Outcome, Question
from telemetry.config.settings import Sql as SqlSection
from telemetry.http.operations import Content, Operation, names
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.model import problems
from telemetry.model.errors import NotTogether, StoreError
from telemetry.model.record import EARLIEST_US, LATEST_US

SPARE_BYTES = 2**20
FORMS = {"json": FORMATS["json"], "csv": FORMATS["csv"], "arrow": FORMATS["arrow"]}
TRUNCATED = "Truncated"

log = logging.getLogger(__name__)

_PROBLEMS = {COSTLY: problems.SQL_TOO_COSTLY, FAILED: problems.INTERNAL, WRONG: problems.INVALID_SQL}


class SqlQuestion(Struct, forbid_unknown_fields=True):
    """What is asked: one SELECT over `records` and `latest`, as DuckDB speaks SQL."""

    query: str


class SqlColumn(Struct):
    """A column of an answer, with DuckDB's type."""

    name: str
    type: str


class SqlAnswer(Struct):
    """Rows, with their values in the order of the columns; `truncated` says that there would be more."""

    columns: list[SqlColumn]
    rows: list[list[Any]]
    truncated: bool


FORMAT = parameter(FORMS)

SQL = Operation(
    "POST",
    "/v1/sql",
    "post_sql",
    "A question in SQL over all records and each device's newest",
    "records",
    {200: Content("The rows", {**kinds(FORMS), "application/json": SqlAnswer})},
    (FORMAT, CSV_SAFE),
    Content("The question", {"application/json": SqlQuestion}),
    problems=(
        problems.INVALID_PARAMETER,
        problems.INVALID_JSON,
        problems.INVALID_SQL,
        problems.SQL_OFF,
        problems.NOT_ACCEPTABLE,
        problems.BODY_TOO_LARGE,
        problems.UNSUPPORTED_TYPE,
        problems.UNSUPPORTED_ENCODING,
        problems.SQL_TOO_COSTLY,
        problems.NOT_TOGETHER,
    ),
    description="Only one SELECT is taken. An answer that was cut says `Truncated: true` in its head.",
)


def routes_off() -> list[Route]:
    """The route of a box without SQL."""
    return [SQL.route(off)]


async def off(request: Request) -> Response:
    """Reject a question on a box without SQL."""
    refuse_unknown(request, names(SQL.parameters))
    raise ProblemError(problems.SQL_OFF, "sql.enabled in the settings turns it on")


class Sql:
    """Answers questions, some at once, each with its process."""

    def __init__(self, snapshots: Snapshots, settings: SqlSection, archive_root: str, share_percent: int = 100) -> None:
        self._snapshots = snapshots
        self._settings = settings
        self._archive_root = archive_root
        terms = SlotLimits(settings.at_once, settings.queue, settings.timeout_s, share_percent)
        self._slots = Slots(terms, "questions in SQL")
        self._processes = SqlProcesses(settings.at_once)

    def routes(self) -> list[Route]:
        """The route."""
        return [SQL.route(self.post_sql)]

    async def post_sql(self, request: Request) -> Response:
        """The rows of one SELECT. A client that leaves ends it."""
        refuse_unknown(request, names(SQL.parameters))
        kind = chosen(request, FORMS)
        query = await _query(request)
        form = "csv_safe" if kind is SAFE else next(name for name, one in FORMS.items() if one is kind)
        slot = await self._slots.take(current_asker())
        try:
            outcome, data = await self._ask(request, query, form)
        finally:
            slot.free()
        if outcome.wrong:
            raise ProblemError(_PROBLEMS[outcome.wrong], self._without_paths(outcome))
        headers = {"Content-Type": kind.content_type, **VARY}
        if outcome.truncated:
            headers[TRUNCATED] = "true"
        return Response(data, headers=headers)

    def _without_paths(self, outcome: Outcome) -> str:
        if outcome.wrong == FAILED:
            log.error("a question in SQL failed: %s", outcome.detail or "its process ended")
            return "the records could not be read; the cause is in the log of the query program"
        return outcome.detail.replace(self._archive_root, "archive")

    async def _ask(self, request: Request, query: str, form: str) -> Answer:
        s, binding = self._settings, key_devices.binding_of(request.scope)
        wanted = Wanted(sorted(binding.devices), EARLIEST_US, LATEST_US, prefix=binding.prefix)
        try:
            files, tail = await asyncio.to_thread(self._records, wanted)
        except NotTogether as error:
            raise ProblemError(problems.NOT_TOGETHER, str(error), {"Retry-After": "5"}) from None
        except StoreError as error:
            raise ProblemError(problems.BUSY, str(error), {"Retry-After": "1"}) from None
        question = msgspec.msgpack.encode(
            Question(
                query,
                form,
                files,
                sorted(binding.devices),
                binding.prefix,
                s.timeout_s,
                s.memory_bytes,
                s.max_rows,
                s.max_answer_bytes,
            )
        )
        given = len(question).to_bytes(LENGTH_BYTES, "big") + question + tail
        try:
            return await asyncio.wait_for(self._processes.answer(given, s.max_answer_bytes + SPARE_BYTES), s.timeout_s)
        except TimeoutError:
            detail = f"the question took longer than sql.timeout_s, {s.timeout_s} s: ask for less"
            raise ProblemError(problems.SQL_TOO_COSTLY, detail) from None

    def _records(self, wanted: Wanted) -> tuple[list[str], bytes]:
        """The files of a snapshot, and its tail as an Arrow stream."""
        snapshot = self._snapshots.take(wanted)
        tail, out = snapshot.records, pa.BufferOutputStream()
        with pa.ipc.new_stream(out, tail.schema) as writer:
            writer.write_table(tail)
        return [file.path for file in snapshot.files], out.getvalue().to_pybytes()


async def _query(request: Request) -> str:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError(problems.UNSUPPORTED_ENCODING, "send the question as it is, not compressed")
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        detail = f'send {{"query": "SELECT …"}} as application/json, not {kind[:100]}'
        raise ProblemError(problems.UNSUPPORTED_TYPE, detail, {"Accept": "application/json"})
    try:
        return msgspec.json.decode(await request.body(), type=SqlQuestion).query
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProblemError(problems.INVALID_JSON, f'send {{"query": "SELECT …"}}: {error}') from None
