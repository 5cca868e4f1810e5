"""`whimbrel sniff`: what comes to a port, as it comes."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from cli.command import OK, Command
from cli.stdout import output, print_json
from cli.trackers.message_text import lines_of
from collector.inspection.traffic_capture import Seen
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.model.errors import WhimbrelError
from telemetry.model.terminal_text import printable
from telemetry.system import clock

DESCRIPTION = """\
What comes to a port of the collector while the command runs: each piece of a stream, each datagram and each request of
a phone as it came (hex, or text where it is text), what it means, and what the device hears once that is stored.
Connections that are opened and closed are shown, too. Nothing of it is kept.

  whimbrel sniff 5027
  whimbrel sniff 5023 --device 356307042441013 --json

Of HTTP the posts of phones, Traccar and InfluxDB are shown, on ports of their own and on the common ones. Ctrl-C ends.
"""

ASKED_FOR_MS = 6_000
RENEWED_S = 2.0
TEXT = frozenset(b"\t\r\n") | frozenset(range(0x20, 0x7F))

decode = msgspec.json.Decoder(Seen).decode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("port", type=int, metavar="PORT", help="a port of the collector")
    parser.add_argument("--device", default="", metavar="ID", help="only what is of this device")
    parser.add_argument("--peer", default="", metavar="ADDRESS", help="only what comes from this address")
    parser.add_argument("--seconds", type=float, default=0, metavar="S", help="end after so long (Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="one JSON object a piece")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print what comes until told to end."""
    ports = ports_of(settings)
    if args.port not in ports:
        known = "\n".join(f"  {port}  {what}" for port, what in sorted(ports.items()))
        raise WhimbrelError(f"port {args.port} is not the collector's; these are:\n{known}")
    print(f"listening to port {args.port}, {ports[args.port]}; Ctrl-C ends", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with output():
        try:
            for raw in pieces(settings, args.port, args.seconds):
                seen = decode(raw)
                if is_wanted(seen, args.device, args.peer):
                    print_json(raw) if args.json else print(text_of(seen))
                    sys.stdout.flush()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return OK


def ports_of(settings: Settings) -> dict[int, str]:
    """The ports that can be listened to, and what is spoken there."""
    c = settings.collector
    ports = {c.tcp_port: "JSON and msgpack over TCP", c.http_port: "HTTP", settings.api.port: "HTTP"}
    for one in c.listen:
        spoken = f"{one.protocol} over {one.transport.upper()}"
        ports[one.port] = f"{ports[one.port]} and {spoken}" if one.port in ports else spoken
    return ports


def pieces(settings: Settings, port: int, seconds: float) -> Iterator[bytes]:
    """What the collectors publish of a port; for so long, or for ever."""
    with connect(settings) as client:
        frames = shared_state.Frames(client, port)
        try:
            start_s = renew_at_s = time.monotonic()
            while not seconds or time.monotonic() < start_s + seconds:
                if time.monotonic() >= renew_at_s:
                    shared_state.request_frames(client, port, clock.now_ms(), ASKED_FOR_MS)
                    renew_at_s = time.monotonic() + RENEWED_S
                frame = frames.next(0.2)
                if frame is not None:
                    yield frame
        finally:
            frames.close()


def is_wanted(seen: Seen, device: str, peer: str) -> bool:
    """Whether it is of the device and from the address; of pieces that are lost nobody knows."""
    if seen.event == "lost":
        return True
    if peer and seen.peer != peer and seen.peer.rpartition(":")[0].strip("[]") != peer:
        return False
    devices = {seen.device_id, *(str(record["device_id"]) for line in seen.lines for record in line.records)}
    return not device or device in devices


def text_of(seen: Seen) -> str:
    """A piece for people: a line that says when, who and what, then its bytes, then what they mean."""
    at = datetime.fromtimestamp(seen.at_ms / 1_000, UTC).strftime("%H:%M:%S.%f")[:-3]
    if seen.event == "lost":
        return f"{at}  {seen.raw_bytes} pieces came too fast to be shown"
    head = "  ".join(filter(None, (at, seen.peer, seen.connection, seen.protocol, printable(seen.device_id))))
    if seen.event != "frame":
        return f"{head}  {seen.event}"
    said = [text for line in seen.lines for text in lines_of(line)]
    if seen.held_bytes:
        said.append(f"{seen.held_bytes} bytes wait for the rest of a message")
    elif not said:
        said.append("says nothing")
    if seen.status is not None:
        said[-1] = f"answered {seen.status}"
    return "\n".join((head, *_bytes(seen), *(f"    {text}" for text in said)))


def _bytes(seen: Seen) -> Iterator[str]:
    raw = bytes.fromhex(seen.raw)
    if not raw:
        return
    left_out = f" ({len(raw)} of {seen.raw_bytes} bytes)" if seen.raw_bytes > len(raw) else ""
    text = printable(raw.decode("ascii").encode("unicode_escape").decode()) if TEXT.issuperset(raw) else raw.hex()
    yield f"  < {text}{left_out}"


COMMAND = Command("Show what comes to a port, as it comes.", add_arguments, run)
