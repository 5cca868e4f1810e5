"""What the collectors of TCP and UDP do alike with what decoders return."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from collector.framing.decoder import Rejected
from collector.ingest.group_commit import Intake
from collector.inspection.protocol_metrics import Tally
from telemetry.coordination import rejection_counts
from telemetry.hot_store.entry_codec import Aside


def count_rejected(message: Rejected, tally: Tally) -> None:
    """Count a message that can't be used."""
    if message.kind is not None:
        rejection_counts.count(message.kind)
        tally.reject(message.kind)


def set_aside(intake: Intake, aside: Sequence[Aside]) -> None:
    """Keep what of such messages is worth a look, of all that were read at once; their sender waits for nothing."""
    if aside:
        intake.offer((), 0, aside=aside).add_done_callback(heard)


def heard(future: asyncio.Future[bool]) -> None:
    """Take note of a failure, of which asyncio complains where nobody does."""
    if not future.cancelled():
        future.exception()
