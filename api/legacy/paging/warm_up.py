"""Fills the cache for the first pages at the start, so that the first request does not wait."""

from __future__ import annotations

import logging

from api.execution.query_pool import Queries
from api.legacy.paging.pages import Pages
from api.legacy.paging.row_blocks import List
from api.legacy.wire.serializers import TCP_TRACKING, TRACKING
from telemetry.model.record import EARLIEST_US, LATEST_US

log = logging.getLogger(__name__)


async def warm_up(queries: Queries, pages: Pages) -> None:
    """Prepare the lists of both record sets. Does nothing with a single query thread, which requests would wait for.

    Errors are only logged: a request for a page reports them again.
    """
    if queries.threads < 2:
        return
    for records in (TRACKING, TCP_TRACKING):
        every = List(records, "", EARLIEST_US, LATEST_US)
        try:
            await queries.run(lambda connection: pages.prepare(connection, every))  # noqa: B023
        except Exception as error:
            log.debug("cannot prepare the list of %s: %s", records.path, error)
