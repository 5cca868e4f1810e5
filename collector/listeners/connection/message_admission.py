"""Admission of one TCP connection's messages, by the sender's key and by the devices that the port accepts.

A key or device that is not known yet is looked up in Redis. Until then the messages wait, and the connection is not
read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol

from collector.framing.decoder import Decoder, Message, Received, Rejected
from collector.framing.frame_decoder import Framed
from collector.ingest.authorization import Pass
from collector.ingest.device_filter import DeviceFilter, not_now
from collector.ingest.fair_shares import Shares
from collector.inspection import traffic_capture
from telemetry.access.holds import Holder
from telemetry.access.key_cache import Keyring
from telemetry.audit import refusals as audit_refusals
from telemetry.audit.entry import ANONYMOUS, Actor
from telemetry.model.api_keys import Denied, key_id_in
from telemetry.model.errors import BusyError, StoreError
from telemetry.network.client_certificates import Certified


class Connection(Holder, Protocol):
    """The connection whose messages are checked. It ends when its key is no longer valid."""

    address: str
    decoder: Decoder
    is_over: bool

    @property
    def peer(self) -> str:
        """The client's address and port."""

    @property
    def device_id(self) -> str:
        """The device that a tracker named last."""

    def wait_for_look_up(self) -> None:
        """Read nothing until `resume_after_look_up`."""

    def take_decoded(self, messages: list[Message]) -> None:
        """Take messages that waited for a look-up."""

    def resume_after_look_up(self) -> None:
        """Continue, unless another look-up has begun."""


class MessageAdmission:
    """Checks the messages of one connection. Without a keyring no key is needed; without `devices` all are accepted."""

    __slots__ = ("_connection", "_devices", "_lookup", "_pass", "_port", "is_looking_up", "waiting_bytes")

    def __init__(
        self,
        connection: Connection,
        port: int,
        keyring: Keyring | None,
        shares: Shares,
        devices: DeviceFilter | None,
    ) -> None:
        self._connection = connection
        self._port = port
        self._devices = devices
        self._pass = None if keyring is None else Pass(keyring, connection, self._note_refusal, shares)
        self._lookup: asyncio.Task[None] | None = None
        self.is_looking_up = False  # while messages wait for a look-up
        self.waiting_bytes = 0  # of these messages

    def certify(self, certified: Certified) -> None:
        """Use a client certificate if the client sends no key."""
        if self._pass is not None:
            self._pass.certify(certified)

    def close(self) -> None:
        """Release the key. A look-up of devices continues: their messages are stored after the connection is closed."""
        if self._pass is None:
            return
        self._pass.release()
        if self._lookup is not None and self._pass.unknown is not None:
            self._lookup.cancel()

    @property
    def asks_for_key(self) -> bool:
        """Whether messages need a key."""
        return self._pass is not None

    @property
    def key_id(self) -> str:
        """The id of the connection's key; empty without one."""
        return "" if self._pass is None else self._pass.key_id

    def covers(self, device_id: str) -> bool:
        """Whether the connection may send records of a device."""
        return self._pass is None or self._pass.covers(device_id)

    def ending(self, denied: Denied) -> Rejected | None:
        """The message that ends a connection whose key is no longer valid; None if no key is required."""
        return None if self._pass is None else self._pass.refused(denied)

    def admit(self, messages: list[Message]) -> list[Message]:
        """Return the messages that can be passed on now, denied ones as `Rejected`. The others wait for a look-up."""
        devices, decoder = self._devices, self._connection.decoder
        if devices is None:
            return self._permitted(messages)
        named = traffic_capture.speaker(decoder)[1]
        if undecided := devices.undecided(messages, named):
            self._wait(self._look_up_devices(devices, undecided, messages))
            self.waiting_bytes = sum(one.size_bytes for one in messages if isinstance(one, Received))
            return []
        messages = self._permitted(messages)
        is_tracker = isinstance(traffic_capture.innermost(decoder), Framed)
        ends = is_tracker and not self._connection.device_id
        return devices.judged(messages, named, self._connection.peer, ends=ends)

    def _permitted(self, messages: list[Message]) -> list[Message]:
        if self._pass is None:
            return messages
        permitted = list(self._pass.judged(messages))
        if self._pass.unknown is not None:
            self._wait(self._look_up_key(self._pass))
            self.waiting_bytes = self._pass.unknown.size_bytes
        return permitted

    def _note_refusal(self, denied: Denied, token: str) -> None:
        target, key_id = f"TCP port {self._port}", self.key_id
        actor = Actor("key", key_id) if key_id else ANONYMOUS
        audit_refusals.note(denied.kind, self._connection.address, target, actor, "" if key_id else key_id_in(token))

    def _wait(self, look_up: Coroutine[None, None, None]) -> None:
        self.is_looking_up = True
        self._lookup = asyncio.get_running_loop().create_task(look_up)
        self._connection.wait_for_look_up()

    async def _look_up_key(self, passing: Pass) -> None:
        waited = list(await passing.look_up(self._connection.address))
        self.is_looking_up, self.waiting_bytes = False, 0
        if not self._connection.is_over:
            self._connection.take_decoded(self.admit(waited))
        self._connection.resume_after_look_up()

    async def _look_up_devices(self, devices: DeviceFilter, undecided: list[str], messages: list[Message]) -> None:
        try:
            await devices.look_up(undecided)
        except (StoreError, BusyError) as error:
            messages, is_busy = not_now(messages, error), True
        else:
            is_busy = False
        self.is_looking_up, self.waiting_bytes = False, 0
        self._connection.take_decoded(messages if is_busy else self.admit(messages))
        self._connection.resume_after_look_up()
