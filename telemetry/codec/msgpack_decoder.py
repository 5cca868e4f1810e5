"""Decodes msgpack bytes with limits on their cost."""

from __future__ import annotations

import msgpack
import msgspec

from telemetry.model.errors import SyntaxFault

_HEADS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""Bytes that begin a map or an array. They may also occur inside texts and numbers."""

ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
"""Bytes that begin an array."""

BYTES_PER_CONTAINER = 8
"""Ratio of message size to allowed maps and arrays, bytes. The shortest valid record has 13 bytes."""

_decode = msgspec.msgpack.Decoder().decode


def read(data: bytes, max_containers: int) -> object:
    """Decode exactly one msgpack value. Raises `SyntaxFault`.

    Each map or array costs some 60 bytes of memory however short its encoding is. Input with more than
    `max_containers` is rejected before it is decoded.
    """
    _check_whole(data)
    if len(data) - len(data.translate(None, _HEADS)) > max_containers:
        _count(data, max_containers)
    try:
        return _decode(data)
    except UnicodeDecodeError as error:
        raise SyntaxFault(f"not UTF-8: {error.reason}") from None
    except RecursionError:
        raise SyntaxFault("nested too deeply") from None
    except msgspec.MsgspecError as error:
        reason = str(error).partition(" - at ")[0]
        raise SyntaxFault(reason.removeprefix("MessagePack data is malformed: ")) from None


def _check_whole(data: bytes) -> None:
    """Check that the value ends where the data end. A header may announce more elements than follow, and the decoder
    would allocate a list of that size at once."""
    unpacker = msgpack.Unpacker(read_size=len(data) + 1, max_buffer_size=len(data) + 1)
    unpacker.feed(data)
    skip(unpacker)
    if unpacker.tell() != len(data):
        raise SyntaxFault(f"{len(data) - unpacker.tell()} bytes after the value")


def skip(unpacker: msgpack.Unpacker) -> None:
    """Skip one value without decoding it. Raises `Truncated`, or `SyntaxFault` if the bytes are not valid."""
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        raise Truncated("cut short") from None
    except msgpack.StackError:
        raise SyntaxFault("nested too deeply") from None
    except ValueError:  # base class of FormatError
        raise SyntaxFault("a byte that cannot begin a value") from None


def _count(data: bytes, max_containers: int) -> None:
    left = max_containers

    def count(_container: object) -> None:  # the result replaces the container, so the containers are freed
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooMany

    try:
        msgpack.unpackb(data, raw=True, strict_map_key=False, list_hook=count, object_hook=count)
    except _TooMany:
        raise SyntaxFault(f"more than {max_containers} maps and arrays") from None
    except (ValueError, TypeError):  # the decoder reports other faults
        pass


class _TooMany(Exception):
    """The message has more containers than allowed."""


class Truncated(SyntaxFault):
    """The bytes end before their value does."""
