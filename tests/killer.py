"""Kills programs of a box, each time at the next of several failpoints (telemetry/system/failpoints.py)."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Iterable
from pathlib import Path


class Killer:
    """Kills the program that reaches the first step of `left`, like `save commit`, then the next.

    `path` is the value of `VARIABLE`.
    """

    def __init__(self, folder: Path, steps: Iterable[str]) -> None:
        self.path = str(folder / "steps.sock")
        self.left = list(steps)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(100)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                step = connection.recv(100).decode().strip()
                if self.left and step == self.left[0]:
                    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                    os.kill(pid, signal.SIGKILL)
                    self.left.pop(0)
