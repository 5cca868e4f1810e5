"""Checks whether a key allows the records of a request, and the messages of a TCP connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from starlette.types import Scope

from collector.framing.decoder import Message, Received, Rejected
from collector.ingest.fair_shares import Shares
from telemetry.access.holds import Holder
from telemetry.access.key_cache import Keyring
from telemetry.hot_store.operations.append import UNLIMITED
from telemetry.http.authentication import caller_of
from telemetry.http.problem_responses import ProblemError, too_many
from telemetry.http.rate_limiting import records_over
from telemetry.model import problems
from telemetry.model.api_keys import INGEST, NO_KEY, WRONG, Caller, Denied, forbidden_device, missing_scope
from telemetry.model.errors import StoreUnavailable
from telemetry.model.record import Sent
from telemetry.network.client_certificates import Certified

NO_HELLO = NO_KEY._replace(reason="send a key first: as a hello, or as `token` in each message")


def admit(scope: Scope, records: Sequence[Sent]) -> Caller:
    """The caller of a request whose records are about to be stored.

    Raises `ProblemError` for a device that the key does not allow, and for records above a limit.
    """
    caller = caller_of(scope)
    if caller.binding.is_bound:
        denied = forbidden_device(caller, (sent.device_id for sent in records))
        if denied is not None:
            raise ProblemError(denied.kind, denied.reason, index=denied.place)
    over = records_over(scope, len(records))
    if over is not None:
        raise too_many(over)
    return caller


def _ignore(_denied: Denied, _token: str) -> None:
    pass


class Unknown(NamedTuple):
    """An unknown key, and the messages that wait for its lookup, from the first with this key on."""

    token: str
    messages: Sequence[Message]

    @property
    def size_bytes(self) -> int:
        """Size of the valid messages."""
        return sum(one.size_bytes for one in self.messages if isinstance(one, Received))


class Pass:
    """Authorization of one connection, by the key of its hello or of each message.

    A valid key is checked again only after keys have changed. The newest one is held for `holder`, the connection,
    which is ended when the key is withdrawn. `judged` stops at a key that may be new, and stores it and the waiting
    messages in `unknown`: the connection reads nothing until `look_up` is done and they are judged.
    """

    def __init__(
        self,
        keyring: Keyring,
        holder: Holder,
        note: Callable[[Denied, str], None] = _ignore,
        shares: Shares | None = None,
    ) -> None:
        """`note` is called with each rejection, and the key or token of the message."""
        self._keyring = keyring
        self._shares = shares
        self._holder = holder
        self._note = note
        self._refusal: Callable[[Denied], bytes] = _silent
        self._token = ""  # of the hello
        self._known = ""  # key of the cached caller
        self._caller: Caller | None = None
        self._changes = -1
        self._realm = ""
        self._realm_caller: Caller | None = None  # caller of the cached realm
        self._certified: Certified | None = None
        self.unknown: Unknown | None = None  # until the lookup is done
        self._looked_up: dict[str, Denied] = {}  # the key of the last lookup, and why it is rejected, if it is

    def certify(self, certified: Certified) -> None:
        """Use the connection's certificate if there is no key. It is held until `release`."""
        self._certified = certified
        certified.clients.hold(certified.caller, self._holder)

    @property
    def key_id(self) -> str:
        """Id of the key or certificate in use; empty without one."""
        if self._caller is not None:
            return self._caller.key_id
        return "" if self._certified is None else self._certified.caller.key_id

    def covers(self, device_id: str) -> bool:
        """True if the key or certificate in use allows a device."""
        caller = self._caller or (None if self._certified is None else self._certified.caller)
        return caller is not None and caller.binding.covers(device_id)

    def judged(self, messages: Sequence[Message]) -> Iterator[Message]:
        """The messages, with `Rejected` for those that are not allowed. A message with an unknown key is the last."""
        for at, message in enumerate(messages):
            if isinstance(message, Rejected):
                yield message
                continue
            caller = self._caller_of(message.token or self._token)
            if isinstance(caller, Denied):
                token = message.token or self._token
                if caller is WRONG:
                    if self._must_look_up(token):
                        self.unknown = Unknown(token, messages[at:])
                        return
                    caller = self._looked_up.get(token, WRONG)
                self._note(caller, token)
                yield _rejected(message, caller, last=True)
                return
            if message.token or self._certified is not None:
                self._refusal = message.denied
                if message.token and not message.records:
                    self._token = message.token
            yield from self._allowed(message, caller)

    async def look_up(self, address: str) -> Sequence[Message]:
        """Look the unknown key up in Redis. Returns the waiting messages, which can be judged now."""
        unknown = self.unknown
        if unknown is None:
            return ()
        denied = WRONG
        try:
            await self._keyring.find_new(unknown.token, address)
        except StoreUnavailable as error:
            denied = Denied(problems.BUSY, str(error))
        self.unknown, self._looked_up = None, {unknown.token: denied}
        return unknown.messages

    def refused(self, denied: Denied) -> Rejected:
        """The answer that ends a connection whose key was withdrawn, in the format of the message with the key."""
        return Rejected(denied.kind, denied.reason, self._refusal(denied), last=True)

    def release(self) -> None:
        """Release the key: the connection has ended, or the key is no longer valid."""
        self._release_key()
        if self._certified is not None:
            self._certified.clients.release(self._certified.caller, self._holder)
            self._certified = None

    def _release_key(self) -> None:
        if self._caller is not None:
            self._keyring.release(self._caller, self._holder)
            self._caller = None

    def _must_look_up(self, token: str) -> bool:
        return token not in self._looked_up and self._keyring.may_be_new(token)

    def _allowed(self, message: Received, caller: Caller) -> Iterator[Message]:
        if not caller.binding.is_bound:
            yield message
            return
        denied = forbidden_device(caller, (sent.device_id for sent in message.records))
        if denied is None:
            yield self._owned(message, caller)
        elif message.parts is not None:
            for part in message.parts():
                yield from self._allowed(part, caller)
        else:
            self._note(denied, message.token or self._token)
            yield _rejected(message, denied, last=message.last)

    def _realm_of(self, caller: Caller) -> str:
        if caller is not self._realm_caller:
            self._realm_caller, self._realm = caller, caller.realm
        return self._realm

    def _owned(self, message: Received, caller: Caller) -> Received:
        """An allowed message, with a sender name that is unique per realm, and the owner of its share."""
        owner = UNLIMITED if self._shares is None else self._shares.of_caller(caller)
        return message._replace(sender=self._realm_of(caller) + message.sender if message.sender else "", owner=owner)

    def _caller_of(self, token: str) -> Caller | Denied:
        if not token:
            return NO_HELLO if self._certified is None else self._certified.check()
        if self._caller is not None and token == self._known and self._keyring.holds(self._caller, self._changes):
            return self._caller
        try:
            found = self._keyring.check(token)
        except StoreUnavailable as error:
            return Denied(problems.BUSY, str(error))
        denied = found if isinstance(found, Denied) else missing_scope(found, INGEST)
        if isinstance(found, Denied) or denied is not None:
            self._release_key()
            return denied or NO_HELLO
        self._release_key()
        self._keyring.hold(found, self._holder)
        self._known, self._caller, self._changes = token, found, self._keyring.changes
        return found


def _silent(_denied: Denied) -> bytes:
    return b""


def _rejected(message: Received, denied: Denied, last: bool) -> Rejected:
    return Rejected(denied.kind, denied.reason, message.denied(denied), last)
