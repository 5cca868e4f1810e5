"""Records of any range: archive and tail as one, in the order of (timestamp, id), page by page."""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.execution.query_pool import Queries
from api.formats import FORMATS
from api.formats.format import Format
from api.geo.area import PARAMETERS as AREA
from api.geo.area import area
from api.positions.parameters import OF_RECORDS, limits_of_records
from api.positions.plausibility import OFF, Limits
from api.positions.plausible_records import LeftOut, around, left_out
from api.records.device_page import OneDevice
from api.records.downsampling import PARAMETERS as THINNED
from api.records.downsampling import Thinned, thinned
from api.records.page_ranges import ranges
from api.records.row_group_reader import RowGroups
from api.requests import key_devices, params
from api.requests.params import CURSOR, DEVICE_ID, END, LIMIT, MAX_DEVICES, ORDER, START, Position
from api.responses import page_response, record_schema
from api.responses.json_columns import answers_of
from api.responses.negotiation import CSV_SAFE, FORMAT, MAX_GAP, chosen, kinds, segmented
from api.responses.page_response import VARY
from api.responses.record_schema import RecordAnswer
from api.snapshot.record_sql import records_in
from api.snapshot.snapshot import Snapshot, Snapshots, Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import COLUMNS
from telemetry.archive.text_bytes import TEXT_BYTES_SQL, TEXTS, fitting, fitting_rows
from telemetry.http.operations import Content, Operation, names
from telemetry.http.problem_responses import refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import iso

PAGE_BYTES = 2**24
"""Maximum of the texts of a page, bytes. A page of one record may have more: a record has up to 1 MB."""

SORTED_ROWS = 10_240
"""Rows that DuckDB may hold, each with its texts, to sort the first of them out."""

TEXT_BYTES = "text_bytes"
"""Column of the bytes of a row's texts."""

IMPLAUSIBLE = "Implausible"
"""Header with the number of implausible positions that a page leaves out."""

MANY_PAGES = 4
"""Files with so many pages of rows are first asked for the page's timestamps only."""


class RecordsPage(Struct, frozen=True):
    """Records in the order of (timestamp, id); `next_cursor` is null at the end. `implausible` positions of the page
    were left out; it is present only if they are looked for."""

    records: list[RecordAnswer]
    next_cursor: str | None
    implausible: int | UnsetType = UNSET


RECORDS = Operation(
    "GET",
    "/v1/records",
    "get_records",
    "Records of a range, page by page",
    "records",
    {200: Content("A page", {**kinds(FORMATS), "application/json": RecordsPage})},
    (DEVICE_ID, START, END, ORDER, LIMIT, CURSOR, FORMAT, CSV_SAFE, MAX_GAP, *AREA, *OF_RECORDS, *THINNED),
    problems=(problems.INVALID_PARAMETER, problems.NOT_ACCEPTABLE, problems.NOT_TOGETHER),
    description="One snapshot of archive and tail. In formats other than JSON the headers `Link` and `Next-Cursor` "
    "name the next page, and `Implausible` counts the positions that were left out.",
)


class Question(NamedTuple):
    """What one page asks for."""

    wanted: Wanted
    is_descending: bool = False
    limit: int = 1_000
    after: Position | None = None
    thinned: Thinned = Thinned()
    page_bytes: int = PAGE_BYTES
    limits: Limits = OFF
    left_out: LeftOut | None = None
    """Positions that are left out before tracks are simplified."""

    @property
    def is_whole(self) -> bool:
        """Whether no record is left out."""
        return self.thinned == Thinned()

    def shown_rows(self, found: pa.Table) -> int:
        """Number of the first records of `found` that a page shows: both `limit` and `page_bytes` end it."""
        return min(self.limit, fitting_rows(found, self.page_bytes))


def narrowed(question: Question) -> Wanted:
    """The range that is left behind the cursor, so that files and entries before it are not read again."""
    wanted, after = question.wanted, question.after
    if after is None:
        return wanted
    if question.is_descending:
        return wanted._replace(end_us=min(wanted.end_us, question.thinned.end_us(after.timestamp_us)))
    return wanted._replace(start_us=max(wanted.start_us, question.thinned.begin_us(after.timestamp_us)))


def page(
    connection: duckdb.DuckDBPyConnection,
    snapshots: Snapshots,
    question: Question,
    one_device: OneDevice | None = None,
) -> pa.Table:
    """The records of one page and, if there are more, one of the next, in the archive's columns."""
    wanted = narrowed(question)
    if wanted.start_us >= wanted.end_us:
        return COLUMNS.empty_table()
    if question.limits.is_on and question.thinned.simplify_m:
        question = question._replace(left_out=_left_out(connection, snapshots, question, wanted))
    snapshot = snapshots.take(wanted)
    if one_device is not None and question.is_whole:
        found = one_device.page(
            snapshot, wanted, question.after, question.is_descending, question.limit + 1, question.page_bytes
        )
        if found is not None:
            return found
    return _of_duckdb(connection, snapshot, question, wanted)


def plausible(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question, shown: pa.Table
) -> tuple[pa.Table, int | UnsetType]:
    """The records of a page without implausible positions, and how many these are, if they are looked for."""
    if not question.limits.is_on:
        return shown, UNSET
    if shown.num_rows == 0:
        return shown, 0
    us, ids = shown.column("timestamp").cast(pa.int64()), pc.unique(shown.column("device_id")).to_pylist()
    ends = pc.min_max(us).as_py()
    devices = tuple(ids) if len(ids) <= MAX_DEVICES else question.wanted.devices
    span = question.wanted._replace(devices=devices, start_us=ends["min"], end_us=ends["max"] + 1)
    return _left_out(connection, snapshots, question, span).page(connection, shown)


def _left_out(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question, wanted: Wanted
) -> LeftOut:
    limits, snapshot = question.limits, snapshots.take(around(wanted, question.limits))
    return left_out(connection, snapshot, wanted, limits, drops_records=bool(wanted.where))


def _of_duckdb(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, question: Question, wanted: Wanted
) -> pa.Table:
    """The page out of ranges of time, one after another until it is full; thinned records depend on those around."""
    if snapshot.records.num_rows:
        connection.register("tail", snapshot.records)
    in_turn = ranges(snapshot.files, wanted, question.is_descending) if question.is_whole else (wanted,)
    found = COLUMNS.empty_table()
    for part in in_turn:
        missing = question.limit - found.num_rows
        found = pa.concat_tables([found, _of_range(connection, snapshot, question._replace(limit=missing), part)])
        if question.shown_rows(found) < found.num_rows:
            break
    return found


def _of_range(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, question: Question, wanted: Wanted
) -> pa.Table:
    files = _files(snapshot, wanted)
    if not files and not snapshot.records.num_rows:
        return COLUMNS.empty_table()
    rows = sum(file.rows or 0 for file in files)
    if question.is_whole and not wanted.devices and rows > MANY_PAGES * question.limit:
        wanted = _of_page(connection, snapshot, question, wanted)
    return _within_bytes(connection, snapshot, question, wanted)


def _within_bytes(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, question: Question, wanted: Wanted
) -> pa.Table:
    """The first records: at most those of a page and one of the next.

    The first query sorts the lengths of long texts instead of the texts. If the page has any, a second query reads
    the page's records by their ids: to sort rows takes as much memory as the texts of thousands of them.
    """
    most = question.page_bytes // max(question.limit + 1, SORTED_ROWS)
    files, has_tail = _files(snapshot, wanted), snapshot.records.num_rows > 0
    records = records_in(files, wanted, has_tail=has_tail)
    rows = f"SELECT {shortened(most, question.thinned.is_distinct)} FROM ({records})"
    found = connection.sql(_ordered(connection, rows, question, "*")).to_arrow_table()
    sizes = found.column(TEXT_BYTES)
    found = found.slice(0, fitting(sizes, question.page_bytes) + 1)
    if (pc.max(sizes).as_py() or 0) > most:
        connection.register("chosen", found.select(["id"]))
        chosen = f"SELECT * FROM ({records}) SEMI JOIN chosen USING (id)"
        statement = f"SELECT {', '.join(COLUMNS.names)} FROM ({chosen}) {_order(question)}"
        found = connection.sql(statement).to_arrow_table()
    return found.select(COLUMNS.names).cast(COLUMNS)  # the zone that times are shown in is the session's


def shortened(most: int, is_distinct: bool = False) -> str:
    """SQL of all columns and of the bytes of a row's texts.

    Of a text of more than `most` bytes there is only the beginning, which is enough for areas and tracks, and a digest
    if `is_distinct`.
    """
    end = "|| sha256({0})" if is_distinct else ""
    cut = f"CASE WHEN strlen({{0}}) <= {most} THEN {{0}} ELSE left({{0}}, {most}) {end} END AS {{0}}"
    shown = {name: cut.format(name) for name in TEXTS}
    return ", ".join([*(shown.get(name, name) for name in COLUMNS.names), f"{TEXT_BYTES_SQL} AS {TEXT_BYTES}"])


def _files(snapshot: Snapshot, wanted: Wanted) -> list[LiveFile]:
    return [file for file in snapshot.files if file.may_hold(wanted.start_us, wanted.end_us, wanted.devices)]


def _of_page(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, question: Question, wanted: Wanted) -> Wanted:
    """The range of one page's timestamps, found by these alone: to sort whole rows would decode all of them."""
    records = records_in(_files(snapshot, wanted), wanted, has_tail=snapshot.records.num_rows > 0)
    keys = _ordered(connection, records, question, "timestamp")
    [(first_us, last_us)] = connection.execute(
        f"SELECT epoch_us(min(timestamp)), epoch_us(max(timestamp)) FROM ({keys})"
    ).fetchall()
    return wanted if first_us is None else wanted._replace(start_us=first_us, end_us=last_us + 1)


def _ordered(connection: duckdb.DuckDBPyConnection, records: str, question: Question, names: str) -> str:
    """SQL that selects columns of the first records behind the question's cursor, one more than its limit."""
    if question.left_out is not None:
        records = question.left_out.without_outliers(connection, records)
    records = question.thinned.simplified(connection, question.thinned.sql(records))
    behind = ""
    if question.after is not None:
        sign = "<" if question.is_descending else ">"
        at = f"TIMESTAMPTZ '{iso(question.after.timestamp_us)}'"
        behind = f"WHERE timestamp {sign} {at} OR (timestamp = {at} AND id {sign} {question.after.id})"
    return f"SELECT {names} FROM ({records}) {behind} {_order(question)} LIMIT {question.limit + 1}"


def _order(question: Question) -> str:
    direction = "DESC" if question.is_descending else "ASC"
    return f"ORDER BY timestamp {direction}, id {direction}"


class Shown(NamedTuple):
    """The records of a page, how many positions were left out if they are looked for, and the end if there are more."""

    records: pa.Table
    implausible: int | UnsetType
    end: Position | None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a page in a format that has no place for the number."""
        return {} if self.implausible is UNSET else {IMPLAUSIBLE: str(self.implausible)}


def shown_page(
    connection: duckdb.DuckDBPyConnection,
    snapshots: Snapshots,
    question: Question,
    one_device: OneDevice | None = None,
) -> Shown:
    """The page that a question asks for."""
    found = page(connection, snapshots, question, one_device)
    shown = found.slice(0, question.shown_rows(found))
    end = ended(shown) if found.num_rows > shown.num_rows else None
    return Shown(*plausible(connection, snapshots, question, shown), end)


def body(shown: Shown) -> bytes:
    """The JSON of one page."""
    more = None if shown.end is None else str(shown.end)
    return record_schema.encode(RecordsPage(answers_of(shown.records), more, shown.implausible))


class History:
    """`GET /v1/records`."""

    def __init__(self, snapshots: Snapshots, queries: Queries, max_page_records: int, row_groups: RowGroups) -> None:
        self._snapshots = snapshots
        self._queries = queries
        self._max_page_records = max_page_records
        self._one_device = OneDevice(row_groups)

    def routes(self) -> list[Route]:
        """The route."""
        return [RECORDS.route(self.get_records)]

    async def get_records(self, request: Request) -> Response:
        """Records of a range, of the devices named or of all, in JSON or another format."""
        refuse_unknown(request, names(RECORDS.parameters))
        kind = chosen(request, FORMATS)
        limits = limits_of_records(request, kind.is_map)
        written = segmented(request, kind, limits)
        where, devices = area(request), key_devices.devices(request)
        question = Question(
            Wanted(devices.named, *params.span(request), where.sql if where else "", devices.prefix),
            params.is_descending(request),
            params.limit(request, self._max_page_records),
            params.cursor(request),
            thinned(request),
            limits=limits,
        )
        if kind is FORMATS["json"]:
            data = await self._queries.run(lambda connection: body(self._shown(connection, question)))
            return Response(data, headers=VARY, media_type="application/json")
        data, shown = await self._queries.run(lambda connection: self._written(connection, question, written))
        return page_response.answer(request, kind, data, shown.end, shown.headers)

    def _shown(self, connection: duckdb.DuckDBPyConnection, question: Question) -> Shown:
        return shown_page(connection, self._snapshots, question, self._one_device)

    def _written(self, connection: duckdb.DuckDBPyConnection, question: Question, kind: Format) -> tuple[bytes, Shown]:
        shown = self._shown(connection, question)
        return page_response.written(connection, shown.records, kind), shown


def ended(shown: pa.Table) -> Position:
    """Where a page ends."""
    last = shown.select(["timestamp", "id"]).slice(shown.num_rows - 1)
    return Position(last.column(0).cast(pa.int64())[0].as_py(), last.column(1)[0].as_py())
