"""Notes of stored MQTT messages in Redis, by which a retained message is stored once, and one that comes again.

A broker delivers the last retained message of a topic after each subscription, so after each new connection, with the
flag "retained". It may have been stored before: when it was published, without that flag, or after an earlier
subscription. So the digest of each stored message is noted by its topic, before the message is acknowledged. One is
noted for messages with the flag and one for those without: a topic may have both kinds, and MQTT 3.1.1 does not
tell of a message that it was retained when it was published.

A broker that gets no acknowledgement delivers a message again, with the flag "duplicate" and under the same packet id.
If its records have times of their own the store knows them (docs/decisions/0041-resent-records.md). Of a message
without, the digest is noted by the packet id: equal messages without the flag are meant, and all stored.

A program that dies between storing and noting stores such a message a second time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping

import redis

from telemetry.coordination import shared_state

DIGEST_BYTES = 8
"""Two messages of one topic have the same digest once in 10^19."""

GATHER_S = 0.01
"""How long notes are gathered that are written together: 10,000 notes of 1,000 concurrent messages take 57 writes
instead of 1,600, and half of the CPU time."""


class Retained:
    """The notes of one session at a broker. Belongs to an event loop; Redis is asked from threads."""

    def __init__(self, connect: Callable[[], redis.Redis], session: str) -> None:
        self._client = connect()
        self._session = session
        self._pending: dict[bytes, bytes] = {}
        self._writing = asyncio.Lock()

    async def subscriptions(self) -> frozenset[str]:
        """Topic filters that the session may have. Raises as `notes`."""
        return await asyncio.to_thread(shared_state.subscriptions, self._client, self._session)

    async def note_subscriptions(self, filters: frozenset[str]) -> None:
        """Note the topic filters that the session may have. Raises as `notes`."""
        await asyncio.to_thread(shared_state.note_subscriptions, self._client, self._session, filters)

    def slot(self, topic: str, is_retained: bool) -> bytes:
        """Where the last message of a topic is noted, of those with or without the flag."""
        return _digest(f"{self._session}\0{topic}\0{is_retained:d}".encode())

    def slots(self, topic: str) -> list[bytes]:
        """Both slots of a topic."""
        return [self.slot(topic, is_retained) for is_retained in (False, True)]

    async def is_stored(self, topic: str, payload: bytes) -> bool:
        """Return whether the last stored message of a topic, of either kind, was this one. Raises as `notes`."""
        return payload_digest(payload) in await asyncio.to_thread(
            shared_state.stored_messages, self._client, self.slots(topic)
        )

    def packet_slot(self, packet_id: int) -> bytes:
        """Where the last message with a packet id is noted. No topic is empty, so it is no other slot."""
        return _digest(f"{self._session}\0\0{packet_id}".encode())

    async def is_packet_stored(self, packet_id: int, topic: str, payload: bytes) -> bool:
        """Return whether the last stored message with a packet id was this one. Raises as `notes`."""
        slot = self.packet_slot(packet_id)
        return await asyncio.to_thread(shared_state.stored_messages, self._client, [slot]) == [
            packet_digest(topic, payload)
        ]

    async def note(self, digests: Mapping[bytes, bytes]) -> None:
        """Note that messages are stored, by slot; return when that is on disk. Raises as `notes`.

        Notes that come while others are written are written together.
        """
        self._pending |= digests
        async with self._writing:
            if not self._pending:
                return
            await asyncio.sleep(GATHER_S)
            batch, self._pending = self._pending, {}
            try:
                await asyncio.to_thread(shared_state.note_stored_messages, self._client, batch)
            except BaseException:
                self._pending = batch | self._pending
                raise

    def close(self) -> None:
        """Close the connections to Redis."""
        self._client.close()


def payload_digest(payload: bytes) -> bytes:
    """What a topic's slot has."""
    return _digest(payload)


def packet_digest(topic: str, payload: bytes) -> bytes:
    """What a packet id's slot has."""
    return _digest(topic.encode() + b"\0" + payload)


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()
