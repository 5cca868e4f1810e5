"""Which format a request asks for: `?format=`, or else what the client's `Accept` likes best."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starlette.requests import Request

from api.formats import FORMATS, csv
from api.formats.format import Format, Segments
from api.positions.plausibility import Limits
from api.responses.accept import Range
from telemetry.http.operations import Parameter, Schema, choice, flag, number
from telemetry.http.problem_responses import ProblemError
from telemetry.model import problems

ANY = "*/*"
"""What most programs accept, and who says nothing: to compare it with each format takes longer than all parameters."""

_QUALITY = re.compile(r"[01](\.\d*)?", re.ASCII)


def parameter(formats: Mapping[str, Format]) -> Parameter[str | None]:
    """`format`, one of these."""
    return choice("format", "The answer's format; without it what `Accept` likes best.", tuple(formats), None)


FORMAT = parameter(FORMATS)

CSV_SAFE = flag(
    "csv_safe",
    "In CSV, a single quote in front of texts that a spreadsheet would run as formulas; numbers stay numbers.",
    False,
)


MAX_GAP = number(
    "max_gap_s",
    "In GPX and KML a new segment of a device's track begins where more time lies between two records.",
    Segments().max_gap_s,
    0,
    31 * 86_400,
)


def kinds(formats: Mapping[str, Format]) -> dict[str, Schema]:
    """What answers in these formats hold, as documents describe it: JSON anything, all else text or bytes."""
    return {one.media_types[0]: {} if "json" in one.suffix else {"type": "string"} for one in formats.values()}


def chosen(request: Request, formats: Mapping[str, Format]) -> Format:
    """The format; the first of those that the client likes as well. Raises `ProblemError`."""
    is_safe, found = CSV_SAFE.of(request), _chosen(request, formats)
    return csv.SAFE if is_safe and found is csv.FORMAT else found


def segmented(request: Request, kind: Format, jumps: Limits) -> Format:
    """The format with the segments of tracks that a request asks for. Raises `ProblemError`."""
    return kind.with_segments(Segments(MAX_GAP.of(request), jumps))


def _chosen(request: Request, formats: Mapping[str, Format]) -> Format:
    name = request.query_params.get(FORMAT.name)
    if name is not None:
        parameter(formats).of_text(name)
        return formats[name]
    accepted = ",".join(request.headers.getlist("accept")) or ANY
    if accepted == ANY:
        return next(iter(formats.values()))
    ranges = [Range.of(text) for text in accepted.split(",")]
    best = max(formats.values(), key=lambda one: _liking(one, ranges))
    if _liking(best, ranges)[0] == 0:
        kinds = ", ".join(one.media_types[0] for one in formats.values())
        raise ProblemError(problems.NOT_ACCEPTABLE, f"Accept names none of {kinds}; or say ?format=")
    return best


def _liking(one: Format, ranges: Sequence[Range]) -> tuple[float, int]:
    """How well a client likes a format, 0 to 1, and how exactly it says so (RFC 9110, 12.5.1)."""
    fitting = [asked for asked in ranges if any(map(asked.matches, one.media_types))]
    if not fitting:
        return 0.0, 0
    best = max(fitting, key=lambda asked: asked.exactness)
    quality = best.parameters.get("q", "1")
    return min(float(quality), 1.0) if _QUALITY.fullmatch(quality) else 1.0, best.exactness
