"""Device filter of a port: accepts listed ids, prefixes, or known devices; all others are rejected."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from collector.framing.decoder import Message, Received, Rejected
from collector.ingest.device_lookup import DeviceLookups
from telemetry.config.settings import Listen
from telemetry.hot_store.entry_codec import Aside
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.model.errors import BusyError, StoreError
from telemetry.model.record import Sent

log = logging.getLogger(__name__)

NOT_LISTED = "its id is not in `devices` and begins with none of `device_prefixes`"
NOT_KNOWN = "it has no records and was not added; to accept it: whimbrel devices add"


class DeviceFilter:
    """Filters devices for a port. With `lookups` only known devices are accepted."""

    def __init__(
        self, port: int, devices: Sequence[str], prefixes: Sequence[str], lookups: DeviceLookups | None = None
    ) -> None:
        self._port = port
        self._devices = frozenset(devices)
        self._prefixes = tuple(prefixes)
        self._lookups = lookups

    @classmethod
    def of(cls, one: Listen, lookups: DeviceLookups | None) -> DeviceFilter | None:
        """The filter of a listener; None if it accepts all devices."""
        if not (one.devices or one.device_prefixes or one.known_devices_only):
            return None
        return cls(one.port, one.devices, one.device_prefixes, lookups if one.known_devices_only else None)

    def undecided(self, messages: Sequence[Message], named: str) -> list[str]:
        """Devices to look up before messages can be judged. `named` is the connection's device."""
        if self._lookups is None:
            return []
        found = dict.fromkeys(device for one in messages for device in _devices_of(one, named))
        return [one for one in found if self._is_listed(one) and self._lookups.is_known(one) is None]

    async def look_up(self, devices: Sequence[str]) -> None:
        """Look devices up. Raises `StoreError`, `BusyError`."""
        if self._lookups is not None and devices:
            await self._lookups.look_up(devices)

    def judged(self, messages: Sequence[Message], named: str, peer: str, ends: bool = False) -> list[Message]:
        """The messages, rejected ones as `Rejected`. If `ends`, the first rejected one ends the connection."""
        found: list[Message] = []
        for message in messages:
            found += self._judged(message, named, peer, ends)
            if found and found[-1].last:
                break
        return found

    def refusal(self, records: Sequence[Sent], aside: Sequence[Aside], peer: str) -> Denied | None:
        """Why the records of a request are rejected; None if they are accepted."""
        for place, sent in enumerate(records):
            if why := self._why_refused(sent.device_id):
                return self._denied(sent.device_id, why, peer, place)
        for one in aside:
            if one.device_id and (why := self._why_refused(one.device_id)):
                return self._denied(one.device_id, why, peer)
        return None

    def _judged(self, message: Message, named: str, peer: str, ends: bool) -> Iterator[Message]:
        refused = next((one for one in _devices_of(message, named) if self._why_refused(one)), None)
        if refused is None:
            yield message
        elif isinstance(message, Rejected):
            yield message._replace(aside=())  # rejected devices must not fill the quarantine
        elif message.parts is not None:
            for part in message.parts():
                yield from self._judged(part, named, peer, ends)
        else:
            places = [at for at, sent in enumerate(message.records) if sent.device_id == refused]
            denied = self._denied(refused, self._why_refused(refused), peer, places[0] if places else None)
            yield Rejected(denied.kind, denied.reason, message.denied(denied), last=ends or message.last)

    def _denied(self, device_id: str, why: str, peer: str, place: int | None = None) -> Denied:
        log.warning("%s, port %d: refused device %r: %s", peer, self._port, device_id, why)
        at = "" if place is None else f"record {place}: "
        return Denied(problems.DEVICE_REFUSED, f"{at}this port does not take device {device_id!r}: {why}", place)

    def _why_refused(self, device_id: str) -> str:
        if not self._is_listed(device_id):
            return NOT_LISTED
        return "" if self._lookups is None or self._lookups.was_known(device_id) else NOT_KNOWN

    def _is_listed(self, device_id: str) -> bool:
        if not (self._devices or self._prefixes):
            return True
        return device_id in self._devices or device_id.startswith(self._prefixes)


def not_now(messages: Sequence[Message], error: StoreError | BusyError) -> list[Message]:
    """Answers to messages whose devices could not be looked up: senders must keep them. A numbered batch ends its
    connection, so that no later one is stored before it.
    """
    return [
        Rejected(problems.BUSY, str(error), one.not_stored(str(error)), last=one.last or bool(one.sender))
        if isinstance(one, Received)
        else one
        for one in messages
    ]


def _devices_of(message: Message, named: str) -> dict[str, None]:
    """The devices of a message: from its records, or else the device named by the connection."""
    found = dict.fromkeys(sent.device_id for sent in message.records) if isinstance(message, Received) else {}
    found |= dict.fromkeys(one.device_id for one in message.aside if one.device_id)
    return found or ({named: None} if named else {})
