"""Addresses of one device, `/v1/devices/{id}` and `/v1/devices/{id}/latest`; an id may be any text.

An id's `/` is written `%2F`, so the address as it was sent tells a device named `van/latest` from the latest of `van`.
"""

from __future__ import annotations

from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Match, Route
from starlette.types import Scope

START, END = "/v1/devices/", "/latest"
_FIRST_END = len(START) + 1
_END = END.encode()


class DeviceConvertor(PathConvertor):
    """A device's id in a path: any text, also one with a `/` or a line break in it."""

    regex = "(?s:.+)"


def register() -> None:
    """Let paths of routes have a `{device_id:device}`."""
    register_url_convertor("device", DeviceConvertor())


def is_of_latest(scope: Scope) -> bool:
    """Whether a request's address, which begins with `START`, is that of a device's latest."""
    raw_path: bytes = scope["raw_path"]
    return raw_path.endswith(_END) and raw_path.find(_END, _FIRST_END) > 0


class DeviceRoute(Route):
    """A route of a device's own address."""

    def matches(self, scope: Scope) -> tuple[Match, Any]:
        """As Starlette has it, but for the address of its latest."""
        found = super().matches(scope)
        return (Match.NONE, {}) if found[0] is not Match.NONE and is_of_latest(scope) else found


class LatestRoute(Route):
    """A route of a device's latest."""

    def matches(self, scope: Scope) -> tuple[Match, Any]:
        """As Starlette has it, but for the address of a device whose id ends so."""
        found = super().matches(scope)
        return (Match.NONE, {}) if found[0] is not Match.NONE and not is_of_latest(scope) else found
