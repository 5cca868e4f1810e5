"""Frames as their senders see them: how one is put together, and what the box answers (docs/devices.md, "Frames")."""

from __future__ import annotations

import msgspec

HEAD_BYTES = 4

encode = msgspec.msgpack.Encoder().encode


class Detail(msgspec.Struct):
    """Why a batch was not taken: its reason and, where one record is at fault, its place and field."""

    reason: str = ""
    index: int | None = None
    field: str | None = None


class FrameAnswer(msgspec.Struct, array_like=True):
    """What the box says of a batch."""

    number: int | None
    status: int
    accepted: int
    detail: Detail | None


decode = msgspec.msgpack.Decoder(FrameAnswer).decode


def frame(content: object) -> bytes:
    """The frame of a value: its length, then msgpack."""
    data = encode(content)
    return len(data).to_bytes(HEAD_BYTES, "big") + data
