"""`/`: the page that shows the fleet, live and in the past. Its data comes only from this API; map tiles may come from
another host if configured.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from api.responses.html import page
from api.responses.record_schema import wants_json
from api.responses.static_files import digest, is_known
from telemetry.config.settings import Settings
from telemetry.http.authentication import LOGIN, Sessions
from telemetry.model.errors import ConfigError

TILES = "/page/tiles"
MAGIC = b"PMTiles\x03"
"""First bytes of a PMTiles file of version 3 (github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md)."""


class PageRoutes:
    """The page, and the file of map tiles if there is one."""

    def __init__(
        self,
        tile_url: str = "",
        tile_file: Path | None = None,
        tile_credit: str = "",
        sessions: Sessions | None = None,
    ) -> None:
        self._sessions = sessions
        self._tile_url = tile_url
        self._tile_file = tile_file
        self._tile_credit = tile_credit
        self._policy = policy(_origin(tile_url))

    @classmethod
    def of(cls, settings: Settings, sessions: Sessions | None = None) -> PageRoutes:
        """The page with the settings of `[page]`. Raises `ConfigError` if `page.tile_file` is missing or invalid."""
        path = settings.tile_path
        if path is not None:
            _check(path)
        return cls(settings.page.tile_url, path, settings.page.tile_credit, sessions)

    def routes(self) -> list[Route]:
        """All routes."""
        return [Route("/", self.get_page, methods=["GET"]), Route(TILES, self.get_tiles, methods=["GET"])]

    async def get_page(self, request: Request) -> Response:
        """The page; 404 for clients that accept JSON or send no `Accept`, which are programs and not browsers."""
        if wants_json(request) or "accept" not in request.headers:
            raise HTTPException(404)
        headers = {"Content-Security-Policy": self._policy, "Cache-Control": "no-cache"}
        file = TILES if self._tile_file else ""
        login = LOGIN if self._sessions is not None and self._sessions.are_offered else ""
        url, credit = self._tile_url, self._tile_credit
        answer = page("page.html", headers=headers, login=login, tile_url=url, tile_file=file, tile_credit=credit)
        return _revalidated(answer, request)

    async def get_tiles(self, _request: Request) -> Response:
        """The file of map tiles, or the requested ranges of it."""
        if self._tile_file is None:
            raise HTTPException(404)
        return FileResponse(self._tile_file, media_type="application/vnd.pmtiles")


def policy(tile_origin: str = "") -> str:
    """The page's Content-Security-Policy: this host, and the origin of map tiles, if any.

    MapLibre decodes images as `blob:` URLs, and its style sheet has icons as `data:` URLs. A worker of the page passes
    decompressed map data as `blob:` URLs, too.
    """
    tiles = f" {tile_origin}" if tile_origin else ""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "worker-src 'self'",
            "style-src 'self'",
            f"connect-src 'self' blob:{tiles}",
            f"img-src 'self' data: blob:{tiles}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _revalidated(answer: Response, request: Request) -> Response:
    """The page, or 304 if the browser has the current version."""
    etag = f'"{digest(bytes(answer.body))}"'
    answer.headers["ETag"] = etag
    if not is_known(etag, request.scope["headers"]):
        return answer
    headers = {name: answer.headers[name] for name in ("ETag", "Cache-Control", "Content-Security-Policy")}
    return Response(status_code=304, headers=headers)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise ConfigError(f"cannot read page.tile_file {path}: {error.strerror}") from None
    if start != MAGIC:
        raise ConfigError(f"cannot use page.tile_file {path}: it is no PMTiles file of version 3")
