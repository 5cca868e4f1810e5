"""Sends positions in numbered batches over TCP, each stored once; device.c for MicroPython and Python.

    micropython device.py box.example.com 9999 gateway-3 < positions.csv

Lines have the format described in device.c. On a board, import this module and pass records of its GPS receiver to
`Sender.send`. It needs `socket`, `struct`, `time` and `os.urandom`, and no library. Numbers may be given as text: many
boards compute with 32-bit floats, whose error is 1 m in a longitude.
"""

import os
import socket
import struct
import sys
import time

TIMEOUT_S = 30
LONGEST_PAUSE_S = 30.0
BATCH_RECORDS = 32
STORED, REPEATED, REFUSED, BUSY = range(4)


def pack(value):
    """Encode None, an integer from 0 on, a float, text, list or dict as msgpack."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return b"\xda" + struct.pack(">H", len(data)) + data
    if isinstance(value, dict):
        items = b"".join([pack(name) + pack(one) for name, one in value.items()])
        return b"\xde" + struct.pack(">H", len(value)) + items
    return b"\xdc" + struct.pack(">H", len(value)) + b"".join([pack(one) for one in value])


def unpack(data, at=0):
    """Decode the msgpack value at a position; return it and the next position. Only types that responses contain."""
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag == 0xC0:
        return None, at
    if 0xCC <= tag <= 0xCF:
        width = 1 << (tag - 0xCC)
        return int.from_bytes(data[at : at + width], "big"), at + width
    if 0xA0 <= tag <= 0xBF or 0xD9 <= tag <= 0xDB:
        width = 0 if tag < 0xC0 else 1 << (tag - 0xD9)
        size = int.from_bytes(data[at : at + width], "big") if width else tag & 0x1F
        at += width
        return bytes(data[at : at + size]).decode(), at + size
    if 0x80 <= tag <= 0x9F:
        found, members = [], {}
        for _ in range(tag & 0x0F):
            one, at = unpack(data, at)
            if tag >= 0x90:
                found.append(one)
            else:
                members[one], at = unpack(data, at)
        return (found if tag >= 0x90 else members), at
    raise ValueError("not a response of Whimbrel")


class Sender:
    """Sends batches one after another. A restarted sender numbers from 1 and therefore has a new id."""

    def __init__(self, host, port, name, key=None):
        self._place = (host, port)
        self._key = key
        self._id = name[:40] + "-" + "".join(["{:02x}".format(one) for one in os.urandom(8)])
        self._number = 0
        self._socket = None

    def send(self, records):
        """Send records until all are on the box's disk or rejected; return the rejected ones with the box's reasons.

        Raises `ValueError` if a retry would not help, for example with a wrong key.
        """
        records, refused = list(records), []
        while records:
            self._number += 1
            detail = self._deliver(pack([1, self._id, self._number, records]))
            if detail is None:
                break
            if detail["index"] is None:
                raise ValueError(detail["reason"])
            refused.append((records.pop(detail["index"]), detail["reason"]))
        return refused

    def _deliver(self, frame):
        """Send a frame until the box has acknowledged or rejected it; return None or the reason for its rejection."""
        pause_s = 0.25
        while True:
            try:
                if self._socket is None:
                    self._connect()
                _, status, _, detail = self._ask(frame)
                if status in (STORED, REPEATED):
                    return None
                if status == REFUSED:
                    return detail
                if status != BUSY:
                    raise ValueError(detail["reason"])
            except OSError:
                self.close()
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _connect(self):
        address = socket.getaddrinfo(self._place[0], self._place[1], 0, socket.SOCK_STREAM)[0]
        self._socket = socket.socket(address[0], address[1], address[2])
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(address[-1])
        if self._key:
            _, status, _, detail = self._ask(pack([0, self._key]))
            if status == BUSY:
                raise OSError(detail["reason"])
            if status != STORED:
                raise ValueError(detail["reason"])

    def _ask(self, frame):
        """Send a frame and return the response: [batch number, status, accepted, detail]."""
        self._write(struct.pack(">I", len(frame)) + frame)
        return unpack(self._read(struct.unpack(">I", self._read(4))[0]))[0]

    def _write(self, data):
        while data:
            data = data[self._socket.send(data) :]

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise OSError("the connection was closed")
            data += part
        return data

    def close(self):
        """Close the connection; `send` reconnects."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


FIELDS = ("device_id", "time", "latitude", "longitude", "speed_kmh")


def record_of(line):
    """Return the record of a line `device id,time,latitude,longitude,speed`; empty fields are omitted."""
    return {name: text for name, text in zip(FIELDS, line.split(",")) if text}


def main():
    """Send the lines of standard input and print the results."""
    host, port, name = sys.argv[1:4]
    sender = Sender(host, int(port), name, os.getenv("WHIMBREL_KEY"))
    records = []
    for line in sys.stdin:
        if line.strip():
            records.append(record_of(line.strip()))
        if len(records) == BATCH_RECORDS:
            report(sender.send(records), len(records))
            records = []
    report(sender.send(records), len(records))
    sender.close()


def report(refused, count):
    """Print the result of a batch."""
    print(count - len(refused), "on disk")
    for record, reason in refused:
        print("refused:", record.get("device_id"), reason)


if __name__ == "__main__":
    main()
