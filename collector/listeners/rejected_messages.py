"""Counts rejected messages and keeps them in quarantine, for the TCP and UDP collectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from collector.framing.decoder import Rejected
from collector.ingest.group_commit import Intake
from collector.inspection.protocol_metrics import Tally
from telemetry.coordination import rejection_counts
from telemetry.hot_store.entry_codec import Aside


def count_rejected(message: Rejected, tally: Tally) -> None:
    """Count a rejected message."""
    if message.kind is not None:
        rejection_counts.count(message.kind)
        tally.reject(message.kind)


def set_aside(intake: Intake, aside: Sequence[Aside]) -> None:
    """Store rejected messages in quarantine. Their senders do not wait for it."""
    if aside:
        intake.offer((), 0, aside=aside).add_done_callback(_retrieve_exception)


def _retrieve_exception(future: asyncio.Future[bool]) -> None:
    """Retrieve a failure. asyncio logs exceptions that are never retrieved."""
    if not future.cancelled():
        future.exception()
