"""msgpack bytes to values, with bounds on what they may cost."""

from __future__ import annotations

import msgpack
import msgspec

from telemetry.model.errors import SyntaxFault

_HEADS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""The bytes that begin a map or an array. Texts and numbers may hold them too."""

ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
"""The bytes that begin an array."""

BYTES_PER_CONTAINER = 8
"""A message may hold a map or array for each 8 bytes that it may have: the shortest good record has 13."""

_decode = msgspec.msgpack.Decoder().decode


def read(data: bytes, max_containers: int) -> object:
    """Decode one msgpack value that takes up all of `data`. Raises `SyntaxFault`.

    Each map or array costs some 60 bytes of memory however short it is written: more than `max_containers` are
    refused before they are made.
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
    """See that the value ends where the data do. A header may announce more than follows, and a list of that
    size would be made at once."""
    unpacker = msgpack.Unpacker(read_size=len(data) + 1, max_buffer_size=len(data) + 1)
    unpacker.feed(data)
    skip(unpacker)
    if unpacker.tell() != len(data):
        raise SyntaxFault(f"{len(data) - unpacker.tell()} bytes behind the value")


def skip(unpacker: msgpack.Unpacker) -> None:
    """Go over one value, making nothing of it. Raises `Truncated`, or `SyntaxFault` if none can follow."""
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        raise Truncated("cut short") from None
    except msgpack.StackError:
        raise SyntaxFault("nested too deeply") from None
    except ValueError:  # FormatError, of which it is the base
        raise SyntaxFault("a byte that begins no value") from None


def _count(data: bytes, max_containers: int) -> None:
    left = max_containers

    def count(_container: object) -> None:  # what it returns takes the container's place, so that nothing is kept
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooMany

    try:
        msgpack.unpackb(data, raw=True, strict_map_key=False, list_hook=count, object_hook=count)
    except _TooMany:
        raise SyntaxFault(f"more than {max_containers} maps and arrays") from None
    except (ValueError, TypeError):  # what else is wrong with it is for the decoder to say
        pass


class _TooMany(Exception):
    """More containers than may be."""


class Truncated(SyntaxFault):
    """The bytes end before their value does."""
