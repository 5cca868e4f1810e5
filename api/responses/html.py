"""Pages for people, made here; the one at `/` and the viewers of API documents alone run scripts.

Templates escape all that they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from api.responses.static_files import StaticFiles
from telemetry.system.disk_space import in_words

HERE = Path(__file__).resolve().parents[1]


STATIC = StaticFiles(HERE / "static")
"""What pages load: style sheets, scripts and map data, and the packaged viewers of API documents."""

SAFE_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin"}
"""What every page says, and every answer of the older service, besides what all answers say (telemetry/http/server.py).
"""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'",
    **SAFE_HEADERS,
}

PAGES = frozenset(
    (
        "/",
        "/status",
        "/login",
        "/login/oidc",
        "/login/callback",
        *(
            f"{path}{slash}"
            for path in ("/docs", "/redoc", "/tracking/swagger", "/tracking/redoc")
            for slash in ("", "/")
        ),
    )
)
"""Where pages for people are, which a link of another site may open; and so is what lies below `/static/`."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["in_words"] = in_words
_TEMPLATES.globals["static"] = f"/static/{STATIC.version}"


def is_page(path: str) -> bool:
    """Whether a page for people, or a file of one, is at a path."""
    return path in PAGES or path.startswith("/static/")


def page(template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: object) -> Response:
    """A page from one of the templates; `headers` come over the usual ones."""
    text = _TEMPLATES.get_template(template).render(values)
    return Response(text, status, {**HEADERS, **(headers or {})}, "text/html")
