"""Static files of pages: served under versioned addresses and compressed once.

`/static/<version>/…` has the files of one version of the program. Browsers keep these without asking again: the page,
which they revalidate, names the version. Modules import each other by relative addresses, and so stay in one version.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import mimetypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from telemetry.http.compression import Compressor, Gzip, Headers, Zstd, accepted, in_thread, refuses_identity

IMMUTABLE = "public, max-age=31536000, immutable"
"""One year, which caches treat as for ever."""

REVALIDATED = "no-cache"

VERSION_DIGITS = 16

MIN_COMPRESSED_BYTES = 1_024
"""Shorter files fill one packet either way."""

PREPARE_AFTER_S = 5.0
"""A start has more urgent work for the processor than files that nobody has asked for yet."""

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

_COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "zstd": partial(Zstd, level=11, window_log=21),
    "gzip": partial(Gzip, level=6),
}
"""Higher levels than for other responses, because each file is compressed once: 10 MB in 0.3 s by either. The next
level of gzip takes half as long again for 1 %, zstd's level 15 six times as long for 4 %."""


class _File(NamedTuple):
    """A file as it was when the program started."""

    path: Path
    size_bytes: int
    digest: str


class StaticFiles:
    """An ASGI application that serves the files of a folder, and keeps their compressed forms in memory."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self._files = {path.relative_to(folder).as_posix(): _file(path) for path in paths}
        listing = "".join(f"{name}\0{file.digest}\0" for name, file in self._files.items())
        self.version = digest(listing.encode())
        self._compressed: dict[tuple[str, str], asyncio.Task[bytes]] = {}

    async def prepare(self, after_s: float = PREPARE_AFTER_S) -> None:
        """Compress all files, one after the other, so that no request waits for that."""
        await asyncio.sleep(after_s)
        for name, file in self._files.items():
            for coding in _COMPRESSORS if file.size_bytes >= MIN_COMPRESSED_BYTES else ():
                with contextlib.suppress(_ChangedError, OSError):
                    await self._compress(name, coding)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET and HEAD. Raises `HTTPException` for other methods and for what is not a file."""
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        path = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/")
        name, caching = self._name_and_caching(path)
        if name not in self._files:
            raise HTTPException(404)
        response = await self._response(name, caching, scope["headers"])
        await response(scope, receive, send)

    def _name_and_caching(self, path: str) -> tuple[str, str]:
        """The name of a path's file, and its `Cache-Control`: only addresses of this version are immutable.

        A page that was loaded before an update asks for files of the earlier version, and gets the present ones.
        """
        version, _, rest = path.partition("/")
        if version == self.version:
            return rest, IMMUTABLE
        if len(version) == VERSION_DIGITS and set(version) <= set("0123456789abcdef"):
            return rest, REVALIDATED
        return path, REVALIDATED

    async def _response(self, name: str, caching: str, request_headers: Headers) -> Response:
        file = self._files[name]
        is_large = file.size_bytes >= MIN_COMPRESSED_BYTES
        coding = accepted(request_headers) if is_large or refuses_identity(request_headers) else ""
        etag = f'"{file.digest}{coding and "-" + coding}"'
        headers = {"Cache-Control": caching, "ETag": etag, "Vary": "Accept-Encoding"}
        if is_known(etag, request_headers):
            return Response(status_code=304, headers=headers)
        media_type = {"Content-Type": _media_type(file.path)}
        try:
            body = await self._body(name, coding)
        except _ChangedError as changed:
            return Response(changed.data, headers={"Cache-Control": REVALIDATED, **media_type})
        except FileNotFoundError:
            raise HTTPException(404) from None
        return Response(body, headers=headers | media_type | ({"Content-Encoding": coding} if coding else {}))

    async def _body(self, name: str, coding: str) -> bytes:
        if not coding:
            return await in_thread(partial(_read, self._files[name]))
        return await asyncio.shield(self._compress(name, coding))  # others may wait for it, too

    def _compress(self, name: str, coding: str) -> asyncio.Task[bytes]:
        """The compression of a file, which is done once."""
        key = name, coding
        task = self._compressed.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            file, compressor = self._files[name], _COMPRESSORS[coding]()
            task = asyncio.create_task(in_thread(lambda: compressor.end(_read(file))))
            self._compressed[key] = task
        return task


def is_known(etag: str, request_headers: Headers) -> bool:
    """Whether `If-None-Match` has this tag, by the weak comparison of RFC 9110 13.1.2."""
    known = b",".join([value for name, value in request_headers if name == b"if-none-match"]).decode("latin-1")
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return etag.removeprefix("W/") in tags or tags == ["*"]


class _ChangedError(Exception):
    """A file is not the one that it was when the program started, as after an update. It must not be immutable under
    this version's address."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self.data = data


def _file(path: Path) -> _File:
    data = path.read_bytes()
    return _File(path, len(data), digest(data))


def _read(file: _File) -> bytes:
    data = file.path.read_bytes()
    if digest(data) != file.digest:
        raise _ChangedError(data)
    return data


def digest(data: bytes) -> str:
    """A digest of a file or a page, for its `ETag` and for addresses."""
    return hashlib.sha256(data).hexdigest()[:VERSION_DIGITS]


def _media_type(path: Path) -> str:
    return MEDIA_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain; charset=utf-8"
