"""Every error that Whimbrel raises on purpose. The name says who is to blame.

    WhimbrelError
    ├── ConfigError            the operator: a setting is wrong; the start stops
    │   └── LayoutError        a newer release has written here: this one must not start
    ├── SenderError            the sender: what it sent can't be taken; sending it again won't help
    │   ├── RecordError        one record: names field, value and reason
    │   ├── SyntaxFault        bytes that are not JSON or msgpack: names the place
    │   ├── EncodingFault      a compressed body that can't be inflated
    │   ├── TooLarge           a body of more bytes or records than may be
    │   └── KeyReusedError     an Idempotency-Key that came before with another body
    ├── AuditError             the operator: a change can't be recorded in the audit log
    ├── BusyError              nobody: the box can't take it now; the sender keeps it and retries
    │   └── ShareFull          the key or address: it has its share, others go on
    └── StoreError             the box itself
        ├── StoreUnavailable   Redis is away, still loading or read-only
        │   └── NotSetUp       Redis is empty: the worker sets the store up, at its start or when it hears of it
        ├── OtherStoreError    this Redis is not the store that the program started with
        ├── IntentChanged      another worker, or a restored Redis, changed the intent: look again
        ├── PlanOutdated       another changed a day's files since they were looked at: plan anew
        ├── ArchiveError       the archive's files are not what its log says
        └── NotTogether        hot store and archive don't belong together: `whimbrel recover`

Messages read "cannot <verb> <object>: <reason>", or name the field and say what is wrong with it.
"""

from __future__ import annotations

from importlib.metadata import version


class WhimbrelError(Exception):
    """Root of all the errors below."""


class ConfigError(WhimbrelError):
    """A setting has a wrong name, type or value."""


class LayoutError(ConfigError):
    """What is on disk has a layout that this release doesn't know. `what` is the store or the archive."""

    def __init__(self, what: str, layout: int, known: int) -> None:
        super().__init__(
            f"cannot start: {what} has layout {layout}, and this release of Whimbrel, {version('whimbrel')}, knows "
            f"layouts up to {known}. A newer release has written there: start that one again, or restore a backup that "
            "was made before it (`whimbrel restore`)"
        )


class SenderError(WhimbrelError):
    """What a sender sent can't be taken; the same bytes will be refused again."""


class RecordError(SenderError):
    """One field of one record can't be taken. `index` is the record's place in its request, if known."""

    def __init__(self, field: str | None, value: object, reason: str, index: int | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.index = index
        self.field = field
        self.value = value
        self.reason = reason


class SyntaxFault(SenderError):
    """Bytes that can't be read as what they should be. `at` is the byte where it shows, None if unknown."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at


class EncodingFault(SenderError):
    """A compressed body is broken, cut short, or not compressed as its sender says."""


class TooLarge(SenderError):
    """A body holds more bytes or records than one request may."""


class KeyReusedError(SenderError):
    """An Idempotency-Key came a second time with another body."""


class BusyError(WhimbrelError):
    """The box is full or its store is away: keep the records and try again after `retry_after_s`."""

    def __init__(self, reason: str, retry_after_s: int = 2) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class TooManyDays(BusyError):
    """A device's records touch more old days than they may in an hour (limits.device_days_per_hour)."""


class ShareFull(BusyError):
    """A key or an address has its share of what all senders share; others go on."""


class AuditError(WhimbrelError):
    """A change cannot be recorded in the audit log, and so is not carried out."""


class StoreError(WhimbrelError):
    """The hot store or the archive is not in the state that the caller needs."""


class StoreUnavailable(StoreError):
    """Redis is away, still loading, or read-only."""


class NotSetUp(StoreUnavailable):
    """Nobody has set the store up yet, or Redis was emptied since."""


class OtherStoreError(StoreError):
    """The store id is not the one that the caller knows: Redis was emptied or replaced."""


class IntentChanged(StoreError):
    """The intent in Redis is not the caller's any more; nothing was changed, look again."""


class PlanOutdated(StoreError):
    """Another compaction, retention or sweep changed a day's files since the plan was made; nothing was changed."""


class ArchiveError(StoreError):
    """The archive's files are not what its log says."""


class NotTogether(StoreError):
    """Hot store and archive don't belong together: one of them was restored, emptied or swapped."""
