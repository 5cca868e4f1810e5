"""What the collectors of TCP and UDP do alike with what decoders return."""

from __future__ import annotations

import asyncio

from collector.intake import Intake
from collector.protocols.contract import Rejected
from collector.tally import Tally
from telemetry import refusals


def note_rejected(intake: Intake, message: Rejected, tally: Tally) -> None:
    """Count a message that can't be used, and keep what of it is worth a look; who sent it waits for nothing."""
    if message.kind is not None:
        refusals.count(message.kind)
        tally.reject(message.kind)
    if message.aside:
        intake.offer((), 0, aside=message.aside).add_done_callback(heard)


def heard(future: asyncio.Future[bool]) -> None:
    """Take note of a failure, of which asyncio complains where nobody does."""
    if not future.cancelled():
        future.exception()
