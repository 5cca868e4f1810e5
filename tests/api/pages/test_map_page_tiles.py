"""Map tiles over the page's own map: of another host, for which the policy is widened, or of a file on the box."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import pytest

from api.pages.map_page import PageRoutes, policy
from telemetry.config.loader import load
from telemetry.model.errors import ConfigError
from tests.api.conftest import box_on
from tests.api.page import DESK, DRAWN, DRAWN_S, show
from tests.browser import running_browser
from tests.conftest import RedisServer

IDS = """import('/static/page/pmtiles.js').then(({tileId}) =>
  [[0,0,0],[1,0,0],[1,0,1],[1,1,1],[1,1,0],[2,0,0],[12,3423,1763]].map(place => tileId(...place)))"""
"""The numbers of some tiles; the last is the specification's example."""

SIZES = """import('/static/page/pmtiles.js').then(({Tiles}) =>
  Promise.all([[0,0,0],[1,1,1],[2,0,0]].map(place => new Tiles('/page/tiles').tile(...place))))
  .then(found => found.map(one => one?.byteLength ?? null))"""

URL = "https://tiles.example.com:8443/{z}/{x}/{y}.png?key=1"


def test_the_policy_is_widened_for_exactly_the_host_of_the_tiles() -> None:
    assert "http" not in policy()
    host = "https://tiles.example.com:8443"
    widened = (
        policy(host).replace(f"connect-src 'self' blob: {host};", "").replace(f"img-src 'self' data: blob: {host};", "")
    )
    assert "http" not in widened


@pytest.mark.parametrize(
    "named", ["tiles", "https://tiles.example.com", "https://tiles.example.com/{z}/{x}.png", "ftp://a/{z}/{x}/{y}"]
)
def test_what_is_no_address_of_tiles_stops_the_start(named: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL template"):
        load(environ={"WHIMBREL__PAGE__TILE_URL": named})


def test_there_are_tiles_of_one_kind() -> None:
    with pytest.raises(ConfigError, match="cannot both be set"):
        load(environ={"WHIMBREL__PAGE__TILE_URL": URL, "WHIMBREL__PAGE__TILE_FILE": "x.pmtiles"})


def test_a_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    for content, reason in (
        (None, "cannot read page.tile_file .+: No such file"),
        (b"PMTiles\x02", "no PMTiles file of version 3"),
    ):
        path = tmp_path / "map.pmtiles"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=reason):
            PageRoutes.of(load(environ={"WHIMBREL__PAGE__TILE_FILE": str(path)}))


@pytest.mark.slow
def test_a_browser_reads_tiles_out_of_the_file(shared_redis: RedisServer, tmp_path: Path) -> None:
    path = tmp_path / "map.pmtiles"
    tiles = {0: png(200, 0, 0), 1: png(0, 200, 0), 2: png(0, 0, 200), 3: png(9, 9, 9), 4: png(90, 90, 90)}
    path.write_bytes(pmtiles(tiles))
    more = {"page__tile_file": str(path), "page__tile_credit": "<b>Somebody</b> & sons"}
    with box_on(shared_redis.url, tmp_path, **more) as box, running_browser() as browser:
        part = box.http.get("/page/tiles", headers={"Range": "bytes=0-6"})
        assert (part.status_code, part.content) == (206, b"PMTiles")
        browser.look_at(*DESK)
        show(box, browser, "#at=0,0,1")
        browser.wait_for(DRAWN, DRAWN_S)
        assert browser.run(IDS) == [0, 1, 2, 3, 4, 5, 19078479]
        assert browser.run(SIZES) == [len(tiles[0]), len(tiles[3]), None]
        assert "<b>Somebody</b> & sons" in browser.text()
        assert browser.hosts() == {f"127.0.0.1:{box.port}"}
        assert browser.complaints() == []


def test_without_a_file_there_are_no_tiles(shared_redis: RedisServer, tmp_path: Path) -> None:
    with box_on(shared_redis.url, tmp_path, page__tile_url=URL) as box:
        assert box.http.get("/page/tiles").status_code == 404
        answer = box.http.get("/")
        assert f'data-tile-url="{URL}"' in answer.text
        assert "connect-src 'self' blob: https://tiles.example.com:8443;" in answer.headers["content-security-policy"]


def png(red: int, green: int, blue: int, side: int = 256) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * side) * side
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pmtiles(tiles: dict[int, bytes]) -> bytes:
    """A file of PMTiles with pictures, by the number of each; their directory is in two floors."""

    def directory(entries: list[tuple[int, int, int, int]]) -> bytes:
        ids = [entry[0] for entry in entries]
        steps = [one - before for one, before in zip(ids, [0, *ids], strict=False)]
        columns = [steps, *([entry[n] for entry in entries] for n in (1, 2))]
        offsets = [entry[3] + 1 for entry in entries]
        return gzip.compress(
            b"".join(map(varint, [len(entries), *(one for part in (*columns, offsets) for one in part)]))
        )

    at, entries = 0, []
    for number, data in tiles.items():
        entries.append((number, 1, len(data), at))
        at += len(data)
    leaf = directory(entries)
    root = directory([(0, 0, len(leaf), 0)])
    places = [127, len(root), 127 + len(root), 0, 127 + len(root), len(leaf), 127 + len(root) + len(leaf), at]
    kinds = bytes((1, 2, 1, 2, 0, 1))
    bounds = struct.pack("<4i", -1_800_000_000, -850_000_000, 1_800_000_000, 850_000_000)
    counts = (len(tiles),) * 3
    head = b"PMTiles\x03" + struct.pack("<11Q", *places, *counts) + kinds + bounds + struct.pack("<B2i", 0, 0, 0)
    assert len(head) == 127
    return head + root + leaf + b"".join(tiles.values())


def varint(number: int) -> bytes:
    """Seven bits a byte, the least first."""
    found = b""
    while number >= 0x80:
        found += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return found + bytes((number,))
