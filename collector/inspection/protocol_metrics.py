"""What came of each protocol over each transport: messages, their records, and what of them could not be used."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from collector.framing.decoder import Decoder
from collector.inspection.traffic_capture import speaker
from telemetry.model import problems
from telemetry.model.problems import Problem
from telemetry.observability import metrics

UNKNOWN = "unknown"
"""The protocol of a connection whose first bytes have not told it."""

REASONS = (
    problems.INVALID_JSON,
    problems.INVALID_MSGPACK,
    problems.INVALID_FRAME,
    problems.INVALID_RECORD,
    problems.BODY_TOO_LARGE,
    problems.DEVICE_REFUSED,
)
"""Why messages are mostly rejected: these are counted from 0 on."""


class Tally:
    """The counters of one protocol over one transport."""

    def __init__(self, protocol: str, transport: str) -> None:
        self.is_known = protocol != UNKNOWN
        self._labels = protocol.lower(), transport
        self._messages = metrics.MESSAGES.of(*self._labels)
        self._records = metrics.DECODED.of(*self._labels)
        for kind in REASONS:
            metrics.REJECTED.of(*self._labels, kind.name)

    def count(self, messages: int, records: int) -> None:
        """Count messages that were decoded, and records in them."""
        self._messages.value += messages
        self._records.value += records

    def reject(self, kind: Problem, number: int = 1) -> None:
        """Count messages, or records of them, that could not be used."""
        if number:
            metrics.REJECTED.of(*self._labels, kind.name).add(number)


tally_of = lru_cache(128)(Tally)
"""The tally of a protocol and a transport: there are few of both."""


def count_from_zero(protocols: Iterable[str], transport: str) -> None:
    """Have protocols over a transport counted from 0 on."""
    for protocol in protocols:
        tally_of(protocol, transport)
    if transport == "tcp":
        tally_of(UNKNOWN, transport)


def tally_for(decoder: Decoder, transport: str) -> Tally:
    """The tally of what a decoder reads."""
    protocol, _ = speaker(decoder)
    return tally_of(protocol or UNKNOWN, transport)
