"""Digests of stored MQTT messages in Redis, so that a message that the broker delivers again is stored once.

A broker delivers the last retained message of a topic after each subscription, so after each new connection, with the
flag "retained". It may have been stored before: when it was published, without that flag, or after an earlier
subscription. So the digest of each stored message is saved under its topic, before the message is acknowledged. A topic
has two digests, one for messages with the flag and one for messages without. It may have both kinds, and MQTT 3.1.1
does not mark a message as retained when it is published.

A broker that gets no acknowledgement delivers a message again, with the flag "duplicate" and under the same packet id.
If its records have times of their own, Redis recognises them (docs/decisions/0041-resent-records.md). For a message
without times, the digest is saved under the packet id. Equal messages without the flag are new messages, and all are
stored.

If a program dies after storing a message and before saving its digest, the message is stored a second time.
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
"""Time for which digests are gathered before they are written together: fewer writes to Redis, and less CPU time."""


class Retained:
    """Digests of one session at a broker. Used in one event loop; Redis is called in threads."""

    def __init__(self, connect: Callable[[], redis.Redis], session: str) -> None:
        self._client = connect()
        self._session = session
        self._pending: dict[bytes, bytes] = {}
        self._writing = asyncio.Lock()

    async def subscriptions(self) -> frozenset[str]:
        """Topic filters that the session may have. Raises as `shared_state`."""
        return await asyncio.to_thread(shared_state.subscriptions, self._client, self._session)

    async def note_subscriptions(self, filters: frozenset[str]) -> None:
        """Save the topic filters that the session may have. Raises as `shared_state`."""
        await asyncio.to_thread(shared_state.note_subscriptions, self._client, self._session, filters)

    def slot(self, topic: str, is_retained: bool) -> bytes:
        """Key of the last message of a topic, with the flag "retained" or without."""
        return _digest(f"{self._session}\0{topic}\0{is_retained:d}".encode())

    def slots(self, topic: str) -> list[bytes]:
        """Both slots of a topic."""
        return [self.slot(topic, is_retained) for is_retained in (False, True)]

    async def is_stored(self, topic: str, payload: bytes) -> bool:
        """Return whether this was the last stored message of a topic, of either kind. Raises as `shared_state`."""
        return payload_digest(payload) in await asyncio.to_thread(
            shared_state.stored_messages, self._client, self.slots(topic)
        )

    def packet_slot(self, packet_id: int) -> bytes:
        """Key of the last message with a packet id. No topic is empty, so it differs from all keys of topics."""
        return _digest(f"{self._session}\0\0{packet_id}".encode())

    async def is_packet_stored(self, packet_id: int, topic: str, payload: bytes) -> bool:
        """Return whether this was the last stored message with a packet id. Raises as `shared_state`."""
        slot = self.packet_slot(packet_id)
        return await asyncio.to_thread(shared_state.stored_messages, self._client, [slot]) == [
            packet_digest(topic, payload)
        ]

    async def note(self, digests: Mapping[bytes, bytes]) -> None:
        """Save the digests of stored messages, by slot; return when they are on disk. Raises as `shared_state`.

        Digests that come during a write are gathered for the next one.
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
    """The digest for a topic's slot."""
    return _digest(payload)


def packet_digest(topic: str, payload: bytes) -> bytes:
    """The digest for a packet id's slot."""
    return _digest(topic.encode() + b"\0" + payload)


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()
