"""What tests of backups share."""

from __future__ import annotations

import pytest

from tests.worker.conftest import Ledger


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger()
