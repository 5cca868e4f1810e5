"""Requests that a connection answers itself, without the ASGI application: their checks, and the heads of responses.

A connection answers a request only if it passes every check: its host is a name of this box, no page of another site
made it, its key is valid, and no rate limit is exceeded. It passes any other request on to the application, whose
middleware rejects it and counts the rejection; also a request that arrives together with a later one, because uvicorn
keeps their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from telemetry.access.key_cache import Keyring
from telemetry.http import site_check
from telemetry.http.authentication import Holding, key_in
from telemetry.http.connection import LimitedProtocol
from telemetry.http.request_id import HEADER, RequestIds
from telemetry.limits.client_address import Addresses
from telemetry.limits.rate_limits import Rates
from telemetry.model.api_keys import OPEN_CALLER, Caller, missing_scope
from telemetry.model.errors import StoreUnavailable
from telemetry.network.client_certificates import Certified

Headers = list[tuple[bytes, bytes]]
Peer = tuple[str, int] | None

UNUSUAL = site_check.UNUSUAL | {b"expect", b"transfer-encoding", b"upgrade"}
"""Headers of requests that only the application answers."""


@dataclass(frozen=True)
class DirectChecks:
    """The checks of a request before a connection answers it. They change nothing if they fail.

    `scope` is the scope that a key needs; without a keyring no key is required. `is_own_host` returns True for values
    of `Host` that are names of this box.
    """

    scope: str
    keyring: Keyring | None
    rates: Rates
    addresses: Addresses
    is_own_host: Callable[[bytes], bool]
    ids: RequestIds

    def caller(self, headers: Headers, certified: Certified | None) -> Caller | None:
        """The authenticated caller of a request; None if the application must decide."""
        if self.keyring is None:
            return OPEN_CALLER
        key_text = key_in(headers)
        try:
            if key_text:
                caller = self.keyring.check(key_text)
            elif certified is not None:
                caller = certified.check()
            else:
                return None
        except StoreUnavailable:
            return None
        return caller if isinstance(caller, Caller) and missing_scope(caller, self.scope) is None else None

    def holding(self, caller: Caller, certified: Certified | None) -> Holding | None:
        """The owner of the caller's credential; None if no credential is required."""
        if certified is not None and caller is certified.caller:
            return certified.clients
        return self.keyring

    def take(self, peer: Peer, headers: Headers, caller: Caller, records: int = 0) -> bool:
        """Count a request and its records. False if a limit is exceeded; then nothing is counted."""
        if not self.rates.are_set:
            return True
        return self.rates.take_all(self.address(peer, headers), caller.key_id, records)

    def limit_headers(self, peer: Peer, headers: Headers, caller: Caller) -> bytes:
        """The rate limit headers of a response, as sent on the wire; empty without limits."""
        if not self.rates.are_set:
            return b""
        policies, levels = self.rates.shown(self.address(peer, headers), caller.key_id)
        return b"ratelimit-policy: %b\r\nratelimit: %b\r\n" % (policies, levels) if policies else b""

    def address(self, peer: Peer, headers: Headers) -> str:
        """The client's address, to which limits apply."""
        return self.addresses.asking(peer[0] if peer else "", headers)


class DirectConnection(LimitedProtocol):
    """A connection that answers some requests itself, one after the other. Subclasses decide which."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._waits = False  # for the answer to a direct request; nothing is parsed meanwhile
        self._is_last = False

    def data_received(self, data: bytes) -> None:
        if self._waits:
            self.flow.pause_reading()
        super().data_received(data)

    @property
    def may_parse(self) -> bool:
        return not self._waits and super().may_parse

    def on_message_begin(self) -> None:
        self._pass_on()
        super().on_message_begin()

    def _refuse(self, refusal: Any) -> None:
        self._pass_on()
        super()._refuse(refusal)

    def shutdown(self) -> None:
        """Stop accepting requests: close once the accepted one is answered."""
        self._pass_on()
        if self._waits:
            self._is_last = True
        else:
            super().shutdown()

    def _pass_on(self) -> None:
        """Pass a direct request that is not being answered yet to the application, if there is one."""
        raise NotImplementedError

    def _complete(self) -> None:
        """A direct request has arrived completely."""
        self._is_in_head = self._is_arriving = False
        self._stop_timer()

    def _respond(self, response: bytes) -> None:
        """Send the response to a direct request, and continue with the next request."""
        waited, self._waits = self._waits, False
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.transport.write(response)
        if self._is_last:
            self.transport.close()
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        if waited and self._unparsed:
            self._parse()
            self.flow.resume_reading()


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as sent on the wire."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class ResponseHead:
    """The status line and the common headers, cached for each list of common headers: uvicorn makes a new list each
    second."""

    def __init__(self, status: int) -> None:
        self._status_line = STATUS_LINE[status]
        self._common: Headers = []
        self._bytes = self._status_line

    def of(self, common: Headers) -> bytes:
        """The head with these common headers; the list must not be changed later."""
        if common is not self._common:
            self._common = common
            self._bytes = self._status_line + header_lines(common)
        return self._bytes


def response(head: bytes, headers: bytes, request_id: bytes, body: bytes) -> bytes:
    """A complete JSON response. `head` ends with the common headers, `headers` are more of them."""
    return b"%bcontent-length: %d\r\ncontent-type: application/json\r\n%b%b: %b\r\n\r\n%b" % (
        head,
        len(body),
        headers,
        HEADER,
        request_id,
        body,
    )
