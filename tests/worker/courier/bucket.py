"""A bucket of a server that speaks S3 (moto), and a proxy before it in which requests go wrong."""

from __future__ import annotations

import http.client
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from tests.box import PROJECT, free_ports
from tests.worker.conftest import Content

MOTO = PROJECT / ".moto" / "bin" / "python"
KEYS = {"s3_region": "us-east-1", "s3_access_key_id": "key", "s3_secret_access_key": "secret"}
BUCKET = "fleet"
START_S = 60

NO_TABLE_YET = ("No table metadata or protocol found", "contiguous")
"""What a reader says of a log whose oldest part isn't there yet."""

Fault = Callable[[str, str, Callable[[], None]], bool]
"""Told method and path of a request, and what passes it on; true if the client is hung up on instead of answered."""


class Moto:
    """moto's server in a process of its own."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        command = [str(MOTO), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)

    def make(self, bucket: str) -> None:
        """An empty bucket of that name, as soon as the server answers."""
        end_s = time.monotonic() + START_S
        while True:
            try:
                assert _ask(self.port, "PUT", f"/{bucket}", b"", {})[0] == 200
                return
            except OSError:
                assert time.monotonic() < end_s, self._said()
                assert self._process.poll() is None, self._said()
                time.sleep(0.1)

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()[-2_000:]

    def forget(self) -> None:
        """Forget all buckets."""
        _ask(self.port, "POST", "/moto-api/reset", b"", {})

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._log.close()


class Bucket:
    """A bucket behind a proxy. `fault` is asked before a request is passed on, `written` is called after a change."""

    def __init__(self, moto: Moto) -> None:
        moto.make(BUCKET)
        self._moto = moto
        self.fault: Fault = lambda _method, _path, _pass_on: False
        self.written: Callable[[str, str], None] = lambda _method, _path: None
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                bucket._serve(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 (http.server's names)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.troubles: list[BaseException] = []

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        answers: list[tuple[int, list[tuple[str, str]], bytes]] = []

        def pass_on() -> None:
            answers.append(_ask(self._moto.port, request.command, request.path, body, dict(request.headers.items())))

        if self.fault(request.command, request.path, pass_on):
            request.close_connection = True
            return
        pass_on()
        if request.command in ("PUT", "DELETE", "POST"):
            try:
                self.written(request.command, request.path)
            except BaseException as error:  # a test's assertion: it must reach the test
                self.troubles.append(error)
        status, headers, content = answers[-1]
        request.send_response_only(status)
        for name, value in headers:
            request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def settings(self, prefix: str = "box", **more: Any) -> dict[str, Any]:
        """Of a `[[forward]]` into it."""
        return {"name": "s3", "url": f"s3://{BUCKET}/{prefix}", "s3_endpoint": self.endpoint, **KEYS, **more}

    def table(self, prefix: str = "box") -> DeltaTable | None:
        """The copy as any reader of Delta tables opens it, past the proxy; None if there is no table, or none yet."""
        options = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._moto.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": KEYS["s3_region"],
            "AWS_ACCESS_KEY_ID": KEYS["s3_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": KEYS["s3_secret_access_key"],
        }
        try:
            return DeltaTable(f"s3://{BUCKET}/{prefix}", storage_options=options)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            if any(part in str(error) for part in NO_TABLE_YET):
                return None
            raise

    def objects(self) -> set[str]:
        """The keys of all objects."""
        _, _, listing = _ask(self._moto.port, "GET", f"/{BUCKET}?list-type=2", b"", {})
        return {part.partition("</Key>")[0] for part in listing.decode().split("<Key>")[1:]}

    def close(self) -> None:
        """Stop the proxy and empty the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._moto.forget()


def content(table: DeltaTable) -> Counter[Content]:
    """What a table holds, read from its files, as `Ledger` knows it."""
    rows = table.to_pyarrow_table(columns=["device_id", "altitude_m"])
    return Counter(
        (device, int(altitude))
        for device, altitude in zip(rows["device_id"].to_pylist(), rows["altitude_m"].to_pylist(), strict=True)
    )


def _ask(
    port: int, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        dropped = ("content-length", "transfer-encoding", "connection")
        found = [(name, value) for name, value in response.getheaders() if name.lower() not in dropped]
        return response.status, found, response.read()
    finally:
        connection.close()
