"""Client certificates instead of keys: a device proves its id to a collector in the TLS handshake.

The common name of a certificate issued by an authority in `tls.client_ca` is the device's id. It gives the permissions
of that device's token: to write records of this device. The handshake rejects certificates listed in `tls.client_crl`.
Connections opened with a certificate are closed when it expires, and when SIGHUP reloads the authorities: devices
reconnect, and are checked against the new list.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from telemetry.access.holds import Holder, Holds
from telemetry.config.settings import Settings
from telemetry.model import problems
from telemetry.model.api_keys import CERTIFICATE_ID, INGEST, MAX_ID_CHARACTERS, Binding, Caller, Denied
from telemetry.model.errors import ConfigError
from telemetry.system.periodic import run_periodically

CERTIFIED = "whimbrel.certified"
"""Key of an ASGI scope for the request's `Certified`."""

JUDGE_S = 1.0

EXPIRED = Denied(problems.WRONG_KEY, "this client certificate has expired; connect with a new one")
READ_AGAIN = Denied(problems.WRONG_KEY, "the authorities of client certificates were reloaded; connect again")


class ClientCertificates:
    """The authorities, their revocation lists, and the holders opened with certificates."""

    def __init__(self, ca_file: Path, crl_file: Path | None = None, now_s: Callable[[], float] = time.time) -> None:
        self._ca_file = ca_file
        self._crl_file = crl_file
        self._now_s = now_s
        self._holds = Holds[Caller]()
        self._generation = 0

    @classmethod
    def of(cls, settings: Settings) -> ClientCertificates | None:
        """The certificates' authorities from the settings; None if none is set."""
        paths = settings.client_ca_paths
        return None if paths is None else cls(*paths)

    def configure(self, context: ssl.SSLContext) -> None:
        """Make a server's context request client certificates and verify them. Raises `ConfigError`.

        Session tickets are off so that each handshake verifies the certificate: a resumed session would outlive a
        revocation.
        """
        try:
            context.load_verify_locations(self._ca_file)
            if self._crl_file is not None:
                context.load_verify_locations(self._crl_file)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use tls.client_ca = {str(self._ca_file)!r} with tls.client_crl: {error}"
            ) from None
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET

    def certified(self, certificate: Any) -> Certified | None:
        """The caller of a verified certificate (`getpeercert`); None without certificate or device id."""
        caller = _caller_of(certificate or {})
        return None if caller is None else Certified(caller, self, self._generation)

    def check(self, certified: Certified) -> Caller | Denied:
        """The caller, while the certificate is valid."""
        if certified.generation != self._generation:
            return READ_AGAIN
        return EXPIRED if certified.caller.expires_s <= self._now_s() else certified.caller

    def hold(self, caller: Caller, holder: Holder) -> None:
        """Register a holder to end once the caller's certificate is no longer valid."""
        self._holds.take(caller.key_id, caller, holder)

    def release(self, caller: Caller, holder: Holder) -> None:
        """Forget a holder that has ended."""
        self._holds.release(caller.key_id, holder)

    def read_again(self) -> None:
        """End everything opened with certificates, because the authorities may have changed."""
        self._generation += 1

    async def end_withdrawn(self, ended_generation: int) -> int:
        """End the holders of expired certificates, or all after `read_again`. Returns the generation checked."""
        generation, now_s = self._generation, self._now_s()

        def judge(caller: Caller) -> Denied | None:
            if generation != ended_generation:
                return READ_AGAIN
            return EXPIRED if caller.expires_s <= now_s else None

        for key_id in self._holds.ids:
            await self._holds.judge(key_id, judge)
        return generation

    @contextlib.asynccontextmanager
    async def judged(self) -> AsyncIterator[None]:
        """Inside this context, holders of invalid certificates are ended within `JUDGE_S`."""
        judging = asyncio.create_task(self._judge_for_ever())
        try:
            yield
        finally:
            judging.cancel()
            await asyncio.gather(judging, return_exceptions=True)

    async def _judge_for_ever(self) -> None:
        ended_generation = self._generation

        async def end_withdrawn() -> None:
            nonlocal ended_generation
            ended_generation = await self.end_withdrawn(ended_generation)

        await run_periodically("expired certificates", JUDGE_S, end_withdrawn)


class Certified:
    """A caller authenticated by the certificate of its connection. `generation` is the authorities' at verification."""

    __slots__ = ("caller", "clients", "generation")

    def __init__(self, caller: Caller, clients: ClientCertificates, generation: int) -> None:
        self.caller = caller
        self.clients = clients
        self.generation = generation

    def check(self) -> Caller | Denied:
        """The caller, while the certificate is valid."""
        return self.clients.check(self)


def _caller_of(certificate: dict[str, Any]) -> Caller | None:
    names = [value for pairs in certificate.get("subject", ()) for name, value in pairs if name == "commonName"]
    if len(names) != 1 or not 0 < len(names[0]) <= MAX_ID_CHARACTERS:
        return None
    [device] = names
    expires_s = ssl.cert_time_to_seconds(certificate["notAfter"])
    return Caller(CERTIFICATE_ID + device, frozenset({INGEST}), Binding(frozenset({device})), device, expires_s)
