"""A proxy of TCP that cuts connections at a chosen moment of a request."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from typing import Self

HOST = "127.0.0.1"

BEFORE, AFTER, AMID = "before", "after", "amid"
"""Cut before the request arrives; after it was answered, without the answer; amid the answer."""


class Proxy:
    """Passes everything on, but for the requests that `cut` names: those to come, in order; then all is well again."""

    def __init__(self, port: int) -> None:
        self.cut: deque[str] = deque()
        self.requests = 0
        self.targets: list[str] = []
        """What requests of GET asked for."""
        self.received: list[int] = []
        """Bytes of each piece that came from the box."""
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._thread = threading.Thread(target=self._accept)
        self._passing: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
        for thread in (self._thread, *self._passing):
            thread.join()

    def cut_all(self) -> None:
        """Cut all connections that there are."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass, args=(device,))
            self._passing.append(thread)
            thread.start()

    def _pass(self, device: socket.socket) -> None:
        with device, contextlib.suppress(OSError), socket.create_connection((HOST, self._target)) as box:
            self._open |= {device, box}
            try:
                self._pass_on(device, box)
            finally:
                self._open -= {device, box}

    def _pass_on(self, device: socket.socket, box: socket.socket) -> None:
        is_answered, is_head, fault = True, True, ""
        while True:
            for ready in select.select([device, box], [], [])[0]:
                data = ready.recv(65_536)
                if not data:
                    return
                if ready is device and is_answered:
                    self.requests += 1
                    if data.startswith(b"GET "):
                        self.targets.append(data.split(b" ", 2)[1].decode())
                    is_answered, fault = False, self.cut.popleft() if self.cut else ""
                elif ready is box:
                    is_answered = True
                    self.received.append(len(data))
                if fault == BEFORE or (fault == AFTER and ready is box):
                    return
                if fault == AMID and ready is box:
                    head, end, body = data.partition(b"\r\n\r\n") if is_head else (b"", b"", data)
                    device.sendall(head + end + body[: len(body) // 2])
                    if body:
                        return
                    is_head = False
                    continue
                (box if ready is device else device).sendall(data)
