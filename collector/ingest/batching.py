"""Packs the records of requests to batches for `append`.

A request with many records of few devices is packed when it arrives, while its records are in the processor's cache.
Records of many devices wait for their group, so that records of one device from several requests share an entry:
an entry costs more than a record (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from telemetry.hot_store.entry_codec import Entry, by_device, pack_devices
from telemetry.hot_store.operations.append import Batch, Bringer, Owner
from telemetry.model.record import Sent

MANY = 4
"""Average number of records per device from which they are not joined with records of other requests."""


class Load(NamedTuple):
    """The `size` records of a request for one shard: either as entries, or by device."""

    size: int
    entries: Sequence[Entry]
    devices: dict[str, list[Sent]]

    @classmethod
    def of(cls, records: Sequence[Sent]) -> Load:
        """The load of a request's records."""
        devices, size = by_device(records), len(records)
        return cls(size, pack_devices(devices), {}) if size >= MANY * len(devices) else cls(size, (), devices)

    @property
    def most_entries(self) -> int:
        """Maximum number of entries; shared devices make fewer."""
        return len(self.entries) + len(self.devices)

    def packed(self) -> Sequence[Entry]:
        """The entries."""
        return self.entries or pack_devices(self.devices)


NO_LOAD = Load(0, (), {})
"""The load of a part without records."""


class Bringing(Protocol):
    """A request with a load. A repeated `name` is recognised: an Idempotency-Key or, with a `number`, a sender's id."""

    @property
    def load(self) -> Load: ...

    @property
    def name(self) -> str: ...

    @property
    def body_hash(self) -> bytes: ...

    @property
    def number(self) -> int: ...

    @property
    def owner(self) -> Owner: ...


def together(requests: Iterable[Bringing]) -> list[Batch]:
    """The batches of requests: the first has all records, in each device's order; each named request adds one without
    records.
    """
    entries: list[Entry] = []
    devices: dict[str, list[Sent]] = {}
    named = []
    for one in requests:
        if devices:
            earlier = dict.fromkeys(entry.device_id for entry in one.load.entries if entry.device_id in devices)
            entries += pack_devices({device: devices.pop(device) for device in earlier})
        entries += one.load.entries
        for device, records in one.load.devices.items():
            found = devices.get(device)
            if found is None:
                devices[device] = records.copy()
            else:
                found += records
        if one.name:
            named.append(Batch((), one.name, one.body_hash, one.number, one.owner))
    return [Batch(entries + pack_devices(devices)), *named]


def apart(requests: Sequence[Bringing]) -> list[Batch]:
    """The same, with the records of each named request in its own batch."""
    unnamed = together(one for one in requests if not one.name)
    named = [Batch(one.load.packed(), one.name, one.body_hash, one.number, one.owner) for one in requests if one.name]
    return [*unnamed, *named]


def prefixes_of(requests: Iterable[Bringing]) -> dict[str, int]:
    """The prefixes that the requests' keys are bound to, with their maximum numbers of devices."""
    return {one.owner.prefix: one.owner.max_devices for one in requests if one.owner.prefix and one.owner.max_devices}


def have_bringers(requests: Iterable[Bringing]) -> bool:
    """True if the owner of a request has a share of devices without a prefix."""
    for one in requests:  # `any` of a generator takes twice as long
        owner = one.owner
        if owner.max_devices and not owner.prefix:
            return True
    return False


def bringers_of(requests: Iterable[Bringing]) -> list[Bringer]:
    """These owners, and the devices whose records they send."""
    found: dict[Owner, dict[str, None]] = {}
    for one in requests:
        if one.owner.max_devices and not one.owner.prefix:
            devices = found.setdefault(one.owner, {})
            devices |= dict.fromkeys(one.load.devices)
            devices |= dict.fromkeys(entry.device_id for entry in one.load.entries)
    return [Bringer(owner, devices) for owner, devices in found.items()]
