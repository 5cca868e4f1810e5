"""What the first page after a start would wait for, done before anybody asks."""

from __future__ import annotations

import logging

from api.execution.query_pool import Queries
from api.legacy.paging.pages import Pages
from api.legacy.paging.row_blocks import List
from api.legacy.wire.serializers import TCP_TRACKING, TRACKING
from telemetry.model.record import EARLIEST_US, LATEST_US

log = logging.getLogger(__name__)


async def warm_up(queries: Queries, pages: Pages) -> None:
    """Prepare both record sets' lists, unless others had to wait for it. What fails is told to who asks for a page."""
    if queries.threads < 2:
        return
    for records in (TRACKING, TCP_TRACKING):
        every = List(records, "", EARLIEST_US, LATEST_US)
        try:
            await queries.run(lambda connection: pages.prepare(connection, every))  # noqa: B023
        except Exception as error:
            log.debug("the list of %s is not prepared: %s", records.path, error)
