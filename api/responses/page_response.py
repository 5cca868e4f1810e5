"""A page of records in any format. Where the next one begins is said in the head, for a format has no place for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlencode

import duckdb
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from api.formats.format import Format

VARY = {"Vary": "Accept"}
CURSOR = "Next-Cursor"
NO_HEADERS: Mapping[str, str] = {}


def written(connection: duckdb.DuckDBPyConnection, records: pa.Table, kind: Format) -> bytes:
    """Records, in the archive's columns, as a format has them; tracks are put together device by device."""
    connection.register("page", records)
    order = " ORDER BY device_id, timestamp, id" if kind.has_tracks else ""
    with open(os.memfd_create("page"), "r+b") as file:
        try:
            kind.write(connection, f"SELECT * FROM page{order}", file.fileno())
        finally:
            connection.unregister("page")
        file.seek(0)
        return file.read()


def answer(
    request: Request, kind: Format, data: bytes, cursor: object = None, more_headers: Mapping[str, str] = NO_HEADERS
) -> Response:
    """A page's answer: `Link` and `Next-Cursor` say where the next one begins, if there is one (RFC 8288)."""
    headers = {"Content-Type": kind.content_type, **VARY, **more_headers}
    if cursor is not None:
        others = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        query = urlencode([*others, ("cursor", str(cursor))])
        headers |= {"Link": f'<{request.url.path}?{query}>; rel="next"', CURSOR: str(cursor)}
    return Response(data, headers=headers)
