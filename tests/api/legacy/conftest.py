"""What tests of the older service's lists have in common."""

from __future__ import annotations

import duckdb
import pytest

from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from tests.api.stores import Stores


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    """Both stores, empty."""
    return Stores([shard], archive, connection)
