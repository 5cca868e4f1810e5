"""`whimbrel decode`: decodes frames of a tracker, and reports why a frame cannot be used."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from cli.command import FAILED, OK, Command
from cli.stdout import output, print_json
from cli.trackers.message_text import message_lines
from collector.framing.decoder import Decoder, Message, Received
from collector.framing.frame_decoder import Framed, Options
from collector.inspection.message_view import line_of
from collector.protocols import PROTOCOLS, TRACKERS, MessageLimits
from telemetry.codec.record_parser import KMH, Arrival
from telemetry.config.settings import Settings
from telemetry.model.errors import WhimbrelError

DESCRIPTION = """\
Decode frames of a tracker. A frame is hex, with or without spaces between the bytes, or text; `-` reads frames from
standard input, one per line. All frames are decoded in this order as if received over one connection: put a login
before the frames that need it, or use --device instead. For each message, the command prints its records and the reply
that the device would receive after they are stored, or the reason why the message cannot be used. Nothing is stored.

  whimbrel decode --protocol gt06 78780d010356307042441013... 787822221a03010c0000c9...
  whimbrel decode --protocol h02 '*HQ,4106012736,V1,120000,A,4100.4920,N,02858.7040,E,019.44,270,010326,FFFFFBFF#'

The exit status is 1 if a message cannot be used.
"""

HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = (*TRACKERS, *PROTOCOLS)
    parser.add_argument("--protocol", required=True, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--device", default="", metavar="ID", help="device ID, instead of a login")
    parser.add_argument("--udp", action="store_true", help="decode each frame as a UDP datagram")
    parser.add_argument("--text", action="store_true", help="treat frames as text even if they look like hex")
    parser.add_argument(
        "--timezone", default="UTC", metavar="ZONE", help="time zone of devices that send local time (default: UTC)"
    )
    parser.add_argument(
        "--speed-unit", choices=sorted(KMH), default="", help="unit of speeds without a unit (default: the protocol's)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per message")
    parser.add_argument("frame", nargs="+", metavar="FRAME", help="hex or text; - reads standard input")


def run(args: argparse.Namespace, _settings: Settings) -> int:
    """Print the decoded messages; returns 1 if one cannot be used."""
    status = OK
    with output():
        for frame in _frames(args):
            for message in _decoded(args, frame):
                print_json(_as_json(message)) if args.json else print(_as_text(message))
                status = status if _is_good(message) else FAILED
        for message in [] if args.udp else _decoder(args).eof(_arrival()):
            print_json(_as_json(message)) if args.json else print(_as_text(message))
            status = FAILED
    return status


# Input -----------------------------------------------------------------------------------------------


def _frames(args: argparse.Namespace) -> Iterator[bytes]:
    for argument in args.frame:
        lines: Iterable[str] = (line.rstrip("\r\n") for line in sys.stdin) if argument == "-" else (argument,)
        yield from (frame_of(line, args.text) for line in lines if line.strip())


def frame_of(text: str, is_text: bool = False) -> bytes:
    """The bytes of an argument: hex, or text in which `\\r`, `\\n` and `\\0` are escapes, hard to type in a shell."""
    digits = "".join(text.split()).replace(":", "").removeprefix("0x")
    if not is_text and digits and set(digits) <= HEX_DIGITS and len(digits) % 2 == 0:
        return bytes.fromhex(digits)
    return text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").encode()


def _decoded(args: argparse.Namespace, frame: bytes) -> list[Message]:
    if not args.udp:
        return _decoder(args).feed(frame, _arrival())
    decoder = _new_decoder(args)
    return decoder.datagram(frame, _arrival()) if isinstance(decoder, Framed) else decoder.feed(frame, _arrival())


def _decoder(args: argparse.Namespace) -> Decoder:
    """The decoder of the connection, made on first use."""
    if not hasattr(args, "decoder"):
        args.decoder = _new_decoder(args)
    decoder: Decoder = args.decoder
    return decoder


def _new_decoder(args: argparse.Namespace) -> Decoder:
    if args.protocol in PROTOCOLS:
        return PROTOCOLS[args.protocol](MessageLimits(2**20, 100_000))
    try:
        zone = UTC if args.timezone == "UTC" else ZoneInfo(args.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise WhimbrelError(
            f"cannot use --timezone {args.timezone}: there is no such time zone; a valid name is Europe/Istanbul"
        ) from None
    options = Options(transport="udp" if args.udp else "tcp", timezone=zone, speed_unit=args.speed_unit)
    decoder = TRACKERS[args.protocol](options)
    decoder.device_id = args.device
    return decoder


def _arrival() -> Arrival:
    return Arrival(time.time_ns() // 1_000)


# Output ----------------------------------------------------------------------------------------------


def _is_good(message: Message) -> bool:
    return isinstance(message, Received) and not message.aside


def _as_json(message: Message) -> str:
    return msgspec.json.encode(line_of(message)).decode()


def _as_text(message: Message) -> str:
    return "\n".join(message_lines(line_of(message)))


COMMAND = Command("Decode frames of a tracker.", add_arguments, run)
