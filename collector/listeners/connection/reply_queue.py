"""The replies to a TCP connection's messages, in the order of the messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from collector.framing.decoder import Message, Received, Rejected
from collector.ingest.shard_writer import Outcome
from telemetry.coordination import rejection_counts
from telemetry.http.problem_responses import busy_kind
from telemetry.model.errors import BusyError

MAX_PENDING = 1_000
"""Maximum messages of one connection that wait for their reply; reading pauses above it."""


class Reply:
    """The reply to one message: due once the message's outcome is known, immediately if the message was rejected."""

    __slots__ = ("_on_outcome", "message", "outcome")

    def __init__(self, message: Message, on_outcome: Callable[[], None]) -> None:
        self._on_outcome = on_outcome
        self.message = message
        self.outcome: Outcome | None = None if isinstance(message, Received) else False

    def resolve(self, outcome: Outcome) -> None:
        """Set the outcome of the message."""
        self.outcome = outcome
        self._on_outcome()

    def encode(self) -> bytes:
        """Return the bytes for the sender."""
        message, outcome = self.message, self.outcome
        if isinstance(message, Rejected):
            return message.answer
        if isinstance(outcome, Exception):
            rejection_counts.count(busy_kind(outcome))
            return message.not_stored(str(outcome) if isinstance(outcome, BusyError) else "the store failed")
        return message.repeated if outcome and message.sender else message.stored


class ReplyQueue(deque[Reply]):
    """Replies of one connection that were not written yet. `on_outcome` is called whenever an outcome is known."""

    __slots__ = ("_on_outcome",)

    def __init__(self, on_outcome: Callable[[], None]) -> None:
        super().__init__()
        self._on_outcome = on_outcome

    def add(self, message: Message) -> Reply:
        """Add the reply to the message that came last."""
        reply = Reply(message, self._on_outcome)
        self.append(reply)
        return reply

    def take_due(self) -> bytes:
        """Remove the replies whose outcome is known, up to the first whose isn't, and return their bytes."""
        due = []
        while self and self[0].outcome is not None:
            due.append(self.popleft().encode())
        return due[0] if len(due) == 1 else b"".join(due)
