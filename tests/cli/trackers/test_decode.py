"""`whimbrel decode`: frames as arguments or lines, their records, and the reasons why they cannot be used."""

from __future__ import annotations

import io
import json

import pytest

from cli.trackers.decode import COMMAND, frame_of
from telemetry.config.settings import Settings
from telemetry.model.errors import WhimbrelError
from tests.cli.conftest import Run

LOGIN = "78780f0103563070424410130036000101ff0d0a"
PLACE = "78781f121a03010c0000c9046652e8031bea6024150e011e01123400abcd000218590d0a"
SETTINGS = Settings()


def test_frames_of_one_connection(call: Run) -> None:
    ran = call(COMMAND, SETTINGS, "--protocol", "gt06", LOGIN, PLACE)
    assert ran.status == 0
    assert ran.lines == [
        "nothing to store",
        "reply 787805010001d9dc0d0a",
        "2026-03-01T12:00:00.000000Z  356307042441013  41.0082, 28.9784  36 km/h  270 deg  "
        '{"satellites":9,"cells":[{"mcc":286,"mnc":1,"lac":4660,"cid":43981}]}',
        "reply 78780512000281b60d0a",
    ]


def test_a_device_stands_in_for_its_login(call: Run) -> None:
    ran = call(COMMAND, SETTINGS, "--protocol", "gt06", "--device", "7", "--json", PLACE)
    assert ran.json["records"][0]["device_id"] == "7"
    assert ran.json["records"][0]["latitude"] == 41.0082
    assert ran.json["answer"] == "78780512000281b60d0a"


def test_an_invalid_frame_is_reported_and_ends_with_1(call: Run) -> None:
    ran = call(COMMAND, SETTINGS, "--protocol", "gt06", "--device", "7", PLACE.replace("1859", "0000"))
    assert ran.status == 1
    assert ran.out == "cannot be used: the checksum is 1859, the frame contains 0000; no reply\n"


def test_a_truncated_frame_is_reported(call: Run) -> None:
    ran = call(COMMAND, SETTINGS, "--protocol", "gt06", "--json", LOGIN, PLACE[:-8])
    assert ran.status == 1
    assert [json.loads(line)["reason"] for line in ran.lines] == [None, "cut short"]


def test_lines_of_standard_input(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{LOGIN}\n\n{PLACE}\n"))
    assert call(COMMAND, SETTINGS, "--protocol", "gt06", "-").status == 0


def test_a_datagram(call: Run) -> None:
    data = (
        "0049cafe0122000f33353734353430373237313339373508010000015d3766f6a800003eef961ec6215e0063006d0900310007"
        "0401000200f001c8000242381c18003201c7000000e10001"
    )
    ran = call(COMMAND, SETTINGS, "--protocol", "teltonika", "--udp", "--json", data)
    assert ran.json["answer"] == "00050000012201"
    assert ran.json["records"][0]["transport"] == "udp"


def test_our_own_protocols(call: Run) -> None:
    ran = call(COMMAND, SETTINGS, "--protocol", "json", "--json", '{"device_id": "a", "lat": 1, "lon": 2}\\n')
    assert ran.json["records"][0]["longitude"] == 2


def test_an_unknown_time_zone(call: Run) -> None:
    with pytest.raises(WhimbrelError, match="no such time zone"):
        call(COMMAND, SETTINGS, "--protocol", "gt06", "--timezone", "Mars/Base", LOGIN)


@pytest.mark.parametrize(
    ("text", "is_text", "frame"),
    [
        ("78 78:0D", False, b"\x78\x78\x0d"),
        ("0x7878", False, b"\x78\x78"),
        ("7878", True, b"7878"),
        ("787", False, b"787"),
        ("*HQ#\\r\\n", False, b"*HQ#\r\n"),
    ],
)
def test_hex_or_text(text: str, is_text: bool, frame: bytes) -> None:
    assert frame_of(text, is_text) == frame
