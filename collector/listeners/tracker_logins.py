"""Ends the older connection of a tracker after the tracker has logged in over a newer one of the same port.

A tracker that lost its network connects again, and the collector receives no sign that the older connection is dead. A
connection that names several devices is a gateway: it ends no other connection, and no other connection ends it.
"""

from __future__ import annotations

from collections.abc import Callable


class Logins:
    """The newest connection of each device of a port, in this process."""

    def __init__(self) -> None:
        self._newest: dict[str, Login] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def enter(self, device_id: str, login: Login) -> None:
        """Register a device's newest connection, and end the previous one."""
        older = self._newest.get(device_id)
        self._newest[device_id] = login
        if older is not None:
            older.give_way()

    def leave(self, device_id: str, login: Login) -> None:
        """Remove a connection, unless a newer one has replaced it."""
        if self._newest.get(device_id) is login:
            del self._newest[device_id]


class Login:
    """The device of one connection. `give_way` has the connection end soon."""

    __slots__ = ("_device_id", "_logins", "give_way", "is_gateway")

    def __init__(self, logins: Logins, give_way: Callable[[], None]) -> None:
        self._logins = logins
        self.give_way = give_way
        self._device_id = ""
        self.is_gateway = False

    def name(self, device_id: str) -> None:
        """Register a device that the connection has named."""
        if self.is_gateway or device_id == self._device_id:
            return
        if self._device_id:
            self.is_gateway = True
            self.close()
        else:
            self._device_id = device_id
            self._logins.enter(device_id, self)

    def close(self) -> None:
        """Remove the connection."""
        self._logins.leave(self._device_id, self)
