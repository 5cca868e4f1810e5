"""What of a question its key allows: one that is bound to devices sees these alone.

A question that names no device is about those of the key, as if there were no others; one that names another device is
refused, whether there is such a device or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from starlette.requests import Request
from starlette.types import Scope

from api.requests import params
from telemetry.http.authentication import caller_of
from telemetry.http.problem_responses import ProblemError
from telemetry.model import problems
from telemetry.model.api_keys import Binding


class Devices(NamedTuple):
    """These, or if none is named all whose id begins so."""

    named: list[str]
    prefix: str = ""


def devices(request: Request) -> Devices:
    """The devices that a question is about. Raises `ProblemError` for one that the key is not for."""
    named = params.devices(request)
    binding = binding_of(request.scope)
    if named or not binding.is_bound:
        allow(request.scope, named)
        return Devices(named)
    return Devices(sorted(binding.devices), binding.prefix)


def binding_of(scope: Scope) -> Binding:
    """For which devices a request's key is."""
    return caller_of(scope).binding


def allow(scope: Scope, named: Iterable[str]) -> None:
    """Raises `ProblemError` for a device that the key is not for."""
    binding = binding_of(scope)
    found = binding.first_outside(named)
    if found is not None:
        raise ProblemError(problems.OTHER_DEVICE, f"this key is for {binding}, not for device {found[1]!r}")


def only(scope: Scope, device_id: str) -> str:
    """The one device, or none, that a list can be about that knows no others: the key's, if none was named.

    Raises `ProblemError` where the key is for several, of which one must be named.
    """
    binding = binding_of(scope)
    if device_id or not binding.is_bound:
        allow(scope, (device_id,) if device_id else ())
        return device_id
    if len(binding.devices) != 1:
        raise ProblemError(problems.OTHER_DEVICE, f"name a device: this key is for {binding}, not for all devices")
    return next(iter(binding.devices))
