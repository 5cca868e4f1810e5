"""Limits of open connections, in total and per address, counted from accept to close; their names in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count

from telemetry.coordination import rejection_counts
from telemetry.limits.client_address import Addresses, owner
from telemetry.limits.concurrency import Share
from telemetry.model import problems
from telemetry.observability.log_setup import of_connection

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
"""Minimum interval of log lines about refused connections, s."""

MAX_ANSWERED = 64
"""Refused connections that may be open to read the answer 503. Any further one is closed without an answer."""

NOBODY_TRUSTED = Addresses((), "x-forwarded-for")


class Ticket:
    """One accepted connection. With a `refusal` it is open only to receive that answer."""

    __slots__ = ("_leave", "name", "owner", "refusal")

    def __init__(self, name: str, owner: str, refusal: str, leave: Callable[[Ticket], None] | None) -> None:
        self.name = name
        self.owner = owner
        self.refusal = refusal
        self._leave = leave

    def close(self) -> None:
        """Count the connection out. Further calls have no effect."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave(self)


UNCOUNTED = Ticket("", "", "", None)
"""A ticket that counts towards no limit."""


class Connections:
    """Admits connections of one kind on all ports of a process. `process` is the number of the process."""

    def __init__(
        self,
        share: Share,
        clock: Callable[[], float],
        process: int = 0,
        addresses: Addresses = NOBODY_TRUSTED,
        answers: bool = False,
    ) -> None:
        """`addresses` finds proxies, which have no limit of their own; `answers`: refused peers can read an answer."""
        self.share = share
        self.refused = 0
        self._names = (f"c{process or ''}{'.' if process else ''}{number:x}" for number in count(1))
        self._clock = clock
        self._addresses = addresses
        self._answers = answers
        self._answered = 0
        self._unlogged = 0
        self._logged_s = -LOG_EVERY_S

    def admit(self, address: str, handshakes: Share | None = None) -> Ticket | None:
        """Count a connection in; None if it must be closed at once. With `handshakes` a handshake must fit, too."""
        of = "" if not address or self._addresses.is_trusted(address) else owner(address)
        why = self.share.refusal(of) or (handshakes.refusal(of) if handshakes else "")
        name = next(self._names)
        if not why:
            self.share.enter(of)
            return Ticket(name, of, "", self._leave)
        self._note(name, why)
        if handshakes or not self._answers or self._answered >= MAX_ANSWERED:
            rejection_counts.count(problems.BUSY)
            return None
        self._answered += 1
        return Ticket(name, of, why, self._leave_refused)

    def _leave(self, ticket: Ticket) -> None:
        self.share.leave(ticket.owner)

    def _leave_refused(self, _ticket: Ticket) -> None:
        self._answered -= 1

    def _note(self, name: str, why: str) -> None:
        self.refused += 1
        self._unlogged += 1
        now_s = self._clock()
        if now_s - self._logged_s >= LOG_EVERY_S:
            log.warning("closed %d connections at once: %s", self._unlogged, why, extra=of_connection(name))
            self._logged_s, self._unlogged = now_s, 0
