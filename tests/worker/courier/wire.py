"""A wire to a server on this machine, with TLS if wanted, on which answers are lost and connections cut."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator

PASS, LOST, CUT, RESET, HANG = "", "lost", "cut", "reset", "hang"
"""What becomes of a frame: it passes; its answer is lost; half of it arrives; the same, and the client is reset; it
arrives, and its answer never comes."""

NO_LINGER = struct.pack("ii", 1, 0)
HEAD_BYTES = 4


class Wire:
    """Passes frames on to a port, and their answers back. `faults` says what becomes of the next frame."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.faults: Iterator[str] = iter(())
        self._target, self._tls = port, tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._open.append(client)
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            stack.enter_context(client)
            target = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            while (frame := _frame(client)) and self._pass(frame, client, target):
                pass

    def _pass(self, frame: bytes, client: socket.socket, target: socket.socket) -> bool:
        """Pass one frame on as far as it gets; false behind the last."""
        fault = next(self.faults, PASS)
        target.sendall(frame[: len(frame) // 2] if fault in (CUT, RESET) else frame)
        if fault in (CUT, RESET):
            if fault == RESET:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            return False
        answer = _frame(target)
        if fault == HANG:
            client.recv(1)  # until the client leaves
        if fault in (LOST, HANG):
            return False
        client.sendall(answer)
        return True

    def close(self) -> None:
        """Cut all."""
        self._server.close()
        for one in self._open:
            one.close()


def _frame(connection: socket.socket) -> bytes:
    """The next frame; empty behind the last."""
    with connection.makefile("rb", buffering=0) as file:
        head = file.read(HEAD_BYTES) or b""
        rest, length = b"", int.from_bytes(head, "big")
        while len(rest) < length:
            part = file.read(length - len(rest))
            if not part:
                return b""
            rest += part
    return head + rest
