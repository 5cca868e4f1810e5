"""`whimbrel sniff`: shows data that a port of the collector receives."""

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
from cli.trackers.message_text import message_lines
from collector.inspection.traffic_capture import Seen
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.model.errors import WhimbrelError
from telemetry.model.terminal_text import printable
from telemetry.system import clock

DESCRIPTION = """\
Show data that a port of the collector receives while this command runs: each chunk of a stream, each datagram and each
request of a phone (as hex, or as text if it is text), its decoded messages, and the reply that the device receives
after they are stored. Opened and closed connections are shown, too. Nothing is kept.

  whimbrel sniff 5027
  whimbrel sniff 5023 --device 356307042441013 --json

HTTP requests of phones, Traccar and InfluxDB are shown, on their own ports and on the common ones. Ctrl-C stops the
command.
"""

REQUEST_MS = 6_000
RENEWAL_S = 2.0
TEXT = frozenset(b"\t\r\n") | frozenset(range(0x20, 0x7F))

decode = msgspec.json.Decoder(Seen).decode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("port", type=int, metavar="PORT", help="port of the collector")
    parser.add_argument("--device", default="", metavar="ID", help="show only this device")
    parser.add_argument(
        "--peer", default="", metavar="ADDRESS", help="show only this peer address, with or without its port"
    )
    parser.add_argument(
        "--seconds", type=float, default=0, metavar="S", help="stop after this time, seconds (default: Ctrl-C)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per chunk")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print received data until the time is over, or until SIGINT or SIGTERM."""
    ports = protocols_by_port(settings)
    if args.port not in ports:
        known = "\n".join(f"  {port}  {protocols}" for port, protocols in sorted(ports.items()))
        raise WhimbrelError(
            f"cannot listen to port {args.port}: it is no port of the collector; its ports are:\n{known}"
        )
    print(f"listening to port {args.port}, {ports[args.port]}; Ctrl-C stops", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with output():
        try:
            for raw in chunks(settings, args.port, args.seconds):
                seen = decode(raw)
                if is_wanted(seen, args.device, args.peer):
                    print_json(raw) if args.json else print(as_text(seen))
                    sys.stdout.flush()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return OK


def protocols_by_port(settings: Settings) -> dict[int, str]:
    """Protocols by port, of the ports that can be listened to."""
    c = settings.collector
    ports = {c.tcp_port: "JSON and msgpack over TCP", c.http_port: "HTTP", settings.api.port: "HTTP"}
    for listen in c.listen:
        protocol = f"{listen.protocol} over {listen.transport.upper()}"
        ports[listen.port] = f"{ports[listen.port]} and {protocol}" if listen.port in ports else protocol
    return ports


def chunks(settings: Settings, port: int, seconds: float) -> Iterator[bytes]:
    """JSON of `Seen` that the collectors publish about a port, for `seconds`; 0 = without end."""
    with connect(settings) as client:
        frames = shared_state.Frames(client, port)
        try:
            start_s = renew_at_s = time.monotonic()
            while not seconds or time.monotonic() < start_s + seconds:
                if time.monotonic() >= renew_at_s:
                    shared_state.request_frames(client, port, clock.now_ms(), REQUEST_MS)
                    renew_at_s = time.monotonic() + RENEWAL_S
                frame = frames.next(0.2)
                if frame is not None:
                    yield frame
        finally:
            frames.close()


def is_wanted(seen: Seen, device: str, peer: str) -> bool:
    """True if the chunk is of the device and from the address. Lost chunks, whose device is unknown, always are."""
    if seen.event == "lost":
        return True
    if peer and seen.peer != peer and seen.peer.rpartition(":")[0].strip("[]") != peer:
        return False
    devices = {seen.device_id, *(str(record["device_id"]) for line in seen.lines for record in line.records)}
    return not device or device in devices


def as_text(seen: Seen) -> str:
    """A chunk as text: a line with time, peer, connection, protocol and device, then its bytes, then its messages."""
    at = datetime.fromtimestamp(seen.at_ms / 1_000, UTC).strftime("%H:%M:%S.%f")[:-3]
    if seen.event == "lost":
        return f"{at}  {seen.raw_bytes} chunks were received too fast to be shown"
    head = "  ".join(filter(None, (at, seen.peer, seen.connection, seen.protocol, printable(seen.device_id))))
    if seen.event != "frame":
        return f"{head}  {seen.event}"
    details = [text for line in seen.lines for text in message_lines(line)]
    if seen.held_bytes:
        details.append(f"{seen.held_bytes} bytes wait for the rest of a message")
    elif not details:
        details.append("no message")
    if seen.status is not None:
        details[-1] = f"response {seen.status}"
    return "\n".join((head, *_bytes(seen), *(f"    {text}" for text in details)))


def _bytes(seen: Seen) -> Iterator[str]:
    raw = bytes.fromhex(seen.raw)
    if not raw:
        return
    note = f" ({len(raw)} of {seen.raw_bytes} bytes)" if seen.raw_bytes > len(raw) else ""
    text = printable(raw.decode("ascii").encode("unicode_escape").decode()) if TEXT.issuperset(raw) else raw.hex()
    yield f"  < {text}{note}"


COMMAND = Command("Show data that a port of the collector receives.", add_arguments, run)
