"""Parameters of the limits of plausible positions, the same wherever they are taken."""

from __future__ import annotations

from starlette.requests import Request

from api.positions.plausibility import Limits
from telemetry.http.operations import Parameter, flag, number

_USUAL = Limits()

PLAUSIBLE = flag("plausible", "Leave out implausible positions: jumps, bad accuracy, and 0/0.", True)
MAX_JUMP = number(
    "max_jump_kmh",
    "Maximum speed between two positions. More is a jump, and outliers at jumps are left out.",
    _USUAL.max_jump_kmh,
    1,
    1_000_000,
)
MAX_ACCURACY = number(
    "max_accuracy_m", "Positions whose `accuracy_m` is greater are left out.", _USUAL.max_accuracy_m, 0, 100_000_000
)
PARAMETERS = (PLAUSIBLE, MAX_JUMP, MAX_ACCURACY)

PLAUSIBLE_RECORDS = Parameter[bool | None](
    "plausible",
    "Leave out implausible positions: jumps, bad accuracy, and 0/0. Their records stay, without position, except in an "
    "area. Default: true for GPX, KML and GeoJSON, otherwise false.",
    {"type": "boolean"},
    PLAUSIBLE.read,
    None,
)
OF_RECORDS = (PLAUSIBLE_RECORDS, MAX_JUMP, MAX_ACCURACY)


def limits_of_records(request: Request, is_default: bool) -> Limits:
    """The limits that a request for records asks for. Raises `ProblemError`."""
    is_on = PLAUSIBLE_RECORDS.of(request)
    return Limits(MAX_JUMP.of(request), MAX_ACCURACY.of(request), is_default if is_on is None else is_on)


def limits_of(request: Request) -> Limits:
    """The limits that a request asks for. Raises `ProblemError`."""
    return Limits(MAX_JUMP.of(request), MAX_ACCURACY.of(request), PLAUSIBLE.of(request))
