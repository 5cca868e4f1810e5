"""Metrics of each protocol and transport: messages, records, and rejected messages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from collector.framing.decoder import Decoder
from collector.inspection.traffic_capture import speaker
from telemetry.model import problems
from telemetry.model.problems import Problem
from telemetry.observability import metrics

UNKNOWN = "unknown"
"""The protocol of a connection before it is detected."""

REASONS = (
    problems.INVALID_JSON,
    problems.INVALID_MSGPACK,
    problems.INVALID_FRAME,
    problems.INVALID_RECORD,
    problems.BODY_TOO_LARGE,
    problems.DEVICE_REFUSED,
)
"""Most common reasons for rejected messages; their counters exist from the start, at 0."""


class Tally:
    """Counters of one protocol over one transport."""

    def __init__(self, protocol: str, transport: str) -> None:
        self.is_known = protocol != UNKNOWN
        self._labels = protocol.lower(), transport
        self._messages = metrics.MESSAGES.of(*self._labels)
        self._records = metrics.DECODED.of(*self._labels)
        for kind in REASONS:
            metrics.REJECTED.of(*self._labels, kind.name)

    def count(self, messages: int, records: int) -> None:
        """Count decoded messages and their records."""
        self._messages.value += messages
        self._records.value += records

    def reject(self, kind: Problem, number: int = 1) -> None:
        """Count rejected messages, or rejected records of messages."""
        if number:
            metrics.REJECTED.of(*self._labels, kind.name).add(number)


tally_of = lru_cache(128)(Tally)
"""The cached counters of a protocol and a transport; there are few of both."""


def count_from_zero(protocols: Iterable[str], transport: str) -> None:
    """Create the counters of protocols over a transport, with the value 0."""
    for protocol in protocols:
        tally_of(protocol, transport)
    if transport == "tcp":
        tally_of(UNKNOWN, transport)


def tally_for(decoder: Decoder, transport: str) -> Tally:
    """The counters of a decoder's protocol."""
    protocol, _ = speaker(decoder)
    return tally_of(protocol or UNKNOWN, transport)
