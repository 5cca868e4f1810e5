"""Frames as senders use them: how to encode a frame, and the box's answer (docs/devices.md, "Frames")."""

from __future__ import annotations

import msgspec

HEAD_BYTES = 4

encode = msgspec.msgpack.Encoder().encode


class Detail(msgspec.Struct):
    """Why a batch was rejected: the reason and, if one record is at fault, its index and field."""

    reason: str = ""
    index: int | None = None
    field: str | None = None


class FrameAnswer(msgspec.Struct, array_like=True):
    """The box's answer to a batch."""

    number: int | None
    status: int
    accepted: int
    detail: Detail | None


decode = msgspec.msgpack.Decoder(FrameAnswer).decode


def frame(content: object) -> bytes:
    """Encode a value as a frame: its length, then msgpack."""
    data = encode(content)
    return len(data).to_bytes(HEAD_BYTES, "big") + data
