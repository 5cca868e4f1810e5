"""Protocols over HTTP other than Whimbrel's own: OsmAnd, OwnTracks, Traccar, InfluxDB line protocol.

A new one is a file here and a line in `BY_NAME`; one in `POSTS` gives it a path.
"""

from __future__ import annotations

from collector.http_protocols import influx, osmand, owntracks, traccar
from collector.http_protocols.protocol import Read

BY_NAME: dict[str, Read] = {
    "osmand": osmand.read,
    "owntracks": owntracks.read,
    "traccar": traccar.read,
    "influx": influx.read,
}
"""Protocol → what reads its requests."""

POSTS: dict[str, Read] = {
    "/osmand": BY_NAME["osmand"],
    "/owntracks": BY_NAME["owntracks"],
    "/pub": BY_NAME["owntracks"],
    "/traccar": BY_NAME["traccar"],
    "/api/v2/write": BY_NAME["influx"],
    "/write": BY_NAME["influx"],
    "/query": influx.query,
    "/ping": influx.ping,
}
"""Path on the common ports → what reads its requests."""

NAMES: dict[Read, str] = {influx.query: "influx", influx.ping: "influx"} | {
    read: name for name, read in BY_NAME.items()
}
"""What reads requests → its protocol."""
