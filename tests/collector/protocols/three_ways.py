"""Shared by tests of decoders: the same bytes in any number of pieces, and the replies to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack

from collector.framing.decoder import Decoder, Message, Received, Rejected
from telemetry.codec.record_parser import Arrival

NOW_US = 1_795_500_000_000_000
ARRIVAL = Arrival(NOW_US, NOW_US + 86_400_000_000)


class Outcome(NamedTuple):
    """Outcome of a message: its reply once its records are stored, their devices, whether it is the last message."""

    answer: Any
    devices: list[str]
    last: bool = False


def single(data: bytes) -> list[bytes]:
    """Byte by byte."""
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """In pieces between these places."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def feed(decoder: Decoder, pieces: Iterable[bytes]) -> list[Message]:
    """All messages of some pieces."""
    return [message for piece in pieces for message in decoder.feed(piece, ARRIVAL)]


def apart(message: Message) -> list[Message]:
    """JSON lines that were read at once, as if they had not been; and no message knows how large it was."""
    if isinstance(message, Rejected):
        return [message]
    alone = message._replace(size_bytes=0, not_stored=str.encode)
    if message.parts is None:
        return [alone]
    parts = message.parts()
    assert message.stored == b"".join(part.stored for part in parts)
    assert message.records == [sent for part in parts for sent in part.records]
    return [one for part in parts for one in apart(part)]


def answer(message: Message) -> bytes:
    """The answer once all is stored."""
    return message.stored if isinstance(message, Received) else message.answer


def devices(message: Message) -> list[str]:
    return [sent.device_id for sent in message.records] if isinstance(message, Received) else []


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data
