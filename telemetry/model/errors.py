"""All errors that Whimbrel raises on purpose. The base class names the cause.

    WhimbrelError
    ├── ConfigError            the operator: a setting is wrong; the program does not start
    │   └── LayoutError        a newer release wrote this data; this release must not start
    ├── SenderError            the sender: its data is not valid; sending it again does not help
    │   ├── RecordError        one record; has the field, the value and the reason
    │   ├── SyntaxFault        bytes that are not JSON or msgpack; has the position
    │   ├── EncodingFault      a compressed body that cannot be decompressed
    │   ├── TooLarge           a body with too many bytes or records
    │   └── KeyReusedError     an Idempotency-Key that was used with another body
    ├── AuditError             the operator: a change cannot be recorded in the audit log
    ├── BusyError              none of them: the box cannot accept records now; the sender keeps them and retries
    │   └── ShareFull          the key or address has used its share; others are not affected
    └── StoreError             the box itself
        ├── StoreUnavailable   Redis is not reachable, is loading, or is read-only
        │   └── NotSetUp       Redis is empty: the worker sets the store up at its start or when it detects this
        ├── OtherStoreError    this Redis is not the store that the program started with
        ├── IntentChanged      another worker, or a restored Redis, changed the intent: read it again
        ├── PlanOutdated       a concurrent job changed a day's files after they were listed: plan again
        ├── ArchiveError       the archive's files do not match its log
        └── NotTogether        hot store and archive do not belong together: `whimbrel recover`

Messages read "cannot <verb> <object>: <reason>", or name the field and the fault.
"""

from __future__ import annotations

from importlib.metadata import version


class WhimbrelError(Exception):
    """Base class of the errors below."""


class ConfigError(WhimbrelError):
    """A setting has a wrong name, type or value."""


class LayoutError(ConfigError):
    """The data on disk has a layout that this release does not know. `what` is the store or the archive."""

    def __init__(self, store: str, layout: int, known: int) -> None:
        super().__init__(
            f"cannot start: {store} has layout {layout}, and this release of Whimbrel, {version('whimbrel')}, knows "
            f"layouts up to {known}; a newer release wrote it: start that release, or restore a backup that "
            "was made before it (`whimbrel restore`)"
        )


class SenderError(WhimbrelError):
    """The data of a sender is not valid; the same bytes will be rejected again."""


class RecordError(SenderError):
    """A field of a record is not valid. `index` is the record's index in its request, if known."""

    def __init__(self, field: str | None, value: object, reason: str, index: int | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.index = index
        self.field = field
        self.value = value
        self.reason = reason


class SyntaxFault(SenderError):
    """Bytes that do not parse. `at` is the offset of the fault, None if unknown."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at


class EncodingFault(SenderError):
    """A compressed body is broken, truncated, or not in the format of its Content-Encoding."""


class TooLarge(SenderError):
    """A body has more bytes or records than one request may have."""


class KeyReusedError(SenderError):
    """An Idempotency-Key was used again with another body."""


class BusyError(WhimbrelError):
    """The box is full or its store is unavailable: keep the records and try again after `retry_after_s`."""

    def __init__(self, reason: str, retry_after_s: int = 2) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class TooManyDays(BusyError):
    """The records of a device touch too many past days in an hour (limits.device_days_per_hour)."""


class ShareFull(BusyError):
    """A key or an address has used its share of a common resource; others are not affected."""


class AuditError(WhimbrelError):
    """A change cannot be recorded in the audit log and is therefore not made."""


class StoreError(WhimbrelError):
    """The hot store or the archive is not in the state that the operation needs."""


class StoreUnavailable(StoreError):
    """Redis is not reachable, is loading, or is read-only."""


class NotSetUp(StoreUnavailable):
    """The store is not set up yet, or Redis was emptied since."""


class OtherStoreError(StoreError):
    """The store id is not the expected one: Redis was emptied or replaced."""


class IntentChanged(StoreError):
    """The intent in Redis is no longer the caller's. Nothing was changed; read it again."""


class PlanOutdated(StoreError):
    """Another compaction, retention or cleanup changed a day's files after the plan was made. Nothing was changed."""


class ArchiveError(StoreError):
    """The archive's files do not match its log."""


class NotTogether(StoreError):
    """Hot store and archive do not belong together: one of them was restored, emptied or swapped."""
