"""Rules that decide which devices are silent and which are back, computed from the times they were last seen.

A device is silent once no record arrived within its timeout while the box could receive. Time in which the box could
not receive, was not running or had a wrong clock does not count. A device is back with its next record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from telemetry.config.settings import SilenceRule


class TimeOuts:
    """Silence timeout of each device."""

    def __init__(self, silent_after_s: int, rules: Iterable[SilenceRule]) -> None:
        rules = tuple(rules)
        self._usual_ms = silent_after_s * 1_000
        self._devices = {rule.device.encode(): rule.silent_after_s * 1_000 for rule in rules if rule.device}
        prefixes = [(rule.prefix.encode(), rule.silent_after_s * 1_000) for rule in rules if rule.prefix]
        self._prefixes = sorted(prefixes, key=lambda rule: -len(rule[0]))
        timeouts = [ms for ms in (self._usual_ms, *self._devices.values(), *(ms for _, ms in self._prefixes)) if ms]
        self.shortest_ms = min(timeouts, default=0)
        """0 if no device has a timeout."""

    def of(self, device: bytes) -> int:
        """Timeout of a device, ms; 0 = never silent."""
        if (own := self._devices.get(device)) is not None:
            return own
        return next((ms for prefix, ms in self._prefixes if device.startswith(prefix)), self._usual_ms)


class Turn(NamedTuple):
    """A device that became silent or is back; its last and previous time of a record, ms since epoch."""

    device: bytes
    is_silent: bool
    seen_ms: int
    before_ms: int = 0
    time_out_ms: int = 0


def turns(
    seen: Iterable[tuple[bytes, int]],
    silent: Mapping[bytes, int],
    time_outs: TimeOuts,
    now_ms: int,
    hearing_since_ms: int | None,
) -> list[Turn]:
    """Changes. `silent` are the devices known as silent; while the box cannot receive, no device becomes silent."""
    changes = []
    heard_ms = now_ms if hearing_since_ms is None else hearing_since_ms
    latest_ms = now_ms - time_outs.shortest_ms
    is_watched = time_outs.shortest_ms > 0 and heard_ms < latest_ms
    for device, seen_ms in seen:
        if device in silent:
            if seen_ms > silent[device]:
                changes.append(Turn(device, False, seen_ms, silent[device]))
        elif is_watched and seen_ms < latest_ms:
            time_out_ms = time_outs.of(device)
            if time_out_ms and now_ms - max(seen_ms, heard_ms) > time_out_ms:
                changes.append(Turn(device, True, seen_ms, time_out_ms=time_out_ms))
    return changes


class Hearing(NamedTuple):
    """Time since when the box can receive from devices, and time of the last check; ms since epoch."""

    since_ms: int | None
    looked_ms: int


def hearing(before: Hearing | None, now_ms: int, can_hear: bool, longest_ms: int) -> Hearing:
    """The state after another check. The time between two checks further apart than `longest_ms` is unknown."""
    if not can_hear:
        return Hearing(None, now_ms)
    is_gap = before is None or before.since_ms is None or not 0 <= now_ms - before.looked_ms <= longest_ms
    return Hearing(now_ms if is_gap or before is None else before.since_ms, now_ms)
