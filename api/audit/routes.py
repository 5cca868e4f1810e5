"""`GET /v1/audit`: the audit log in pages."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.requests.params import moment
from api.responses import record_schema
from telemetry.audit.entry import OUTCOMES, Entry
from telemetry.audit.entry import moment as text_of
from telemetry.audit.reader import PLACE, Wanted, entries
from telemetry.http.operations import Content, InvalidValue, Operation, Parameter, choice, names, whole
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import DAY_US

DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000
MAX_CHARACTERS = 255

SINCE = moment("since", "First moment, inclusive: ISO 8601, an epoch in seconds, or a date.", None)
UNTIL = moment("until", "Last moment, exclusive; a bare date includes that whole day.", None, DAY_US)
LIMIT = whole("limit", "Maximum entries in a page.", DEFAULT_LIMIT, 1, MAX_LIMIT)


def _text(name: str, sentence: str) -> Parameter[str]:
    def read(text: str) -> str:
        if len(text) > MAX_CHARACTERS:
            raise InvalidValue(f"must have at most {MAX_CHARACTERS} characters")
        return text

    return Parameter(name, sentence, {"type": "string", "maxLength": MAX_CHARACTERS}, read, "")


def _place(text: str) -> str:
    if text and PLACE.fullmatch(text) is None:
        raise InvalidValue("must be the next_cursor of an earlier response")
    return text


KEY = _text("key", "Id of the key that was used, also in a rejected request.")
DEVICE = _text("device", "The device that was changed or requested.")
ACTION = _text("action", "An action, like `device.delete`, or the first part of several, like `keys`.")
OUTCOME = choice("outcome", "The outcome.", OUTCOMES, None)
CURSOR = Parameter(
    "cursor",
    "`next_cursor` of the previous page, with the same other parameters.",
    {"type": "string", "pattern": f"^({PLACE.pattern})?$"},
    _place,
    "",
)


class AuditPage(Struct, frozen=True):
    """Entries, oldest first. More may follow if `next_cursor` is not null."""

    entries: list[Entry]
    next_cursor: str | None


AUDIT = Operation(
    "GET",
    "/v1/audit",
    "get_audit",
    "Changes, SQL queries, exports and rejected requests",
    "box",
    {200: Content("A page of the audit log", {"application/json": AuditPage})},
    (SINCE, UNTIL, KEY, DEVICE, ACTION, OUTCOME, LIMIT, CURSOR),
    problems=(problems.INVALID_PARAMETER,),
    description="A change has two entries with the same `id`: `begun`, then its outcome. An entry of "
    "refusals stands for `count` requests. Fields with their default value are left out.",
)


class AuditRoutes:
    """The route `GET /v1/audit` over the log files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._one_read = asyncio.Semaphore(1)

    def routes(self) -> list[Route]:
        """The route."""
        return [AUDIT.route(self.get_audit)]

    async def get_audit(self, request: Request) -> Response:
        """A page of entries."""
        refuse_unknown(request, names(AUDIT.parameters))
        wanted = Wanted(
            _moment(SINCE.of(request)),
            _moment(UNTIL.of(request)),
            CURSOR.of(request),
            KEY.of(request),
            DEVICE.of(request),
            ACTION.of(request),
            OUTCOME.of(request) or "",
        )
        limit = LIMIT.of(request)
        try:
            async with self._one_read:
                page = await asyncio.to_thread(lambda: list(islice(entries(self._folder, wanted), limit)))
        except OSError as error:
            raise ProblemError(problems.BUSY, f"cannot read the audit log: {error.strerror}") from None
        return record_schema.json(AuditPage(page, page[-1].place if len(page) == limit else None))


def _moment(at_us: int | None) -> str:
    return "" if at_us is None else text_of(at_us / 1_000_000)
