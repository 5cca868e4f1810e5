"""Names of protocols: each decoder has the name that the registry and the settings use."""

from __future__ import annotations

import pytest

from collector.framing.frame_decoder import Options
from collector.protocols import PROTOCOLS, TRACKERS, MessageLimits

DECIDED_BY_BYTES = {"any"}


@pytest.mark.parametrize("name", sorted(PROTOCOLS.keys() - DECIDED_BY_BYTES))
def test_a_stream_bears_its_name(name: str) -> None:
    assert name == PROTOCOLS[name](MessageLimits(1_000, 10)).PROTOCOL


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_bears_its_name(name: str) -> None:
    assert name == TRACKERS[name](Options()).PROTOCOL
