"""The keys of the shards' stores in Redis.

Only this file and the functions in `lua/` know the keys of shards; shared_state.py has the keys of the whole box.
Devices are spread over shards by crc32. All keys of a shard carry its hash tag, so that one function call touches one
slot. `{s}` is the shard's number.

    whimbrel:{s}:store            hash    id (random, made once), layout (1), shard, shards; rebuild: "1" while latest
                                          lacks records of the archive; trouble: why the last save failed, until a save
                                          succeeds. Times of the box's clock, ms since epoch: newest_ms, the greatest
                                          at an arrival; jumped_ms, the total by which it was set forward (minus this
                                          it is steady); while it is below newest_ms: clock_ms, its last value, and
                                          `behind_since_ms`, the steady start, since after a day it is trusted again.
                                          Deletions: deleted, the number of deleted devices; rewritten, that number
                                          at the last rewrite of the append-only file; floor_ms, the greatest id, its
                                          ms, of deleted streams, above which new ones begin. unsaved_bytes, the size
                                          of the unsaved entries (`size_bytes` of entry_codec.py)
    whimbrel:{s}:stream:<device>  stream  an entry = the records of one device in one group, in order:
                                          "i" = id of the first (the others follow in steps of `shards`),
                                          "r" = msgpack array of 1 to 1,000 records (record.py),
                                          "m" = their marks (entry_codec.py), if repeated records are stored once,
                                          "a" = ms of arrival, if it differs from the entry id's (after recovery);
                                          trimmed only by the worker, after its commit
    whimbrel:{s}:latest           hash    device → msgpack [http, other, fix, last seen ms]: the newest record
                                          by HTTP, the newest by any other transport, and the newest with a
                                          fix: 0 or 1 if it is the first or the second of these; nil if
                                          there is none. A record is [id, received ms, timestamp µs, has a fix,
                                          the record's bytes]; numbers always have 8 bytes, so that Lua finds them
    whimbrel:{s}:devices          zset    all scores 0: lexicographic, for stable paging
    whimbrel:{s}:dirty            zset    device → ms of its oldest unsaved entry
    whimbrel:{s}:unsaved          string  number of unsaved records
    whimbrel:{s}:next_id          string  counter of ids: id = counter * shards + shard
    whimbrel:{s}:recent           hash    device → marks of its last saved records, newest last
    whimbrel:{s}:sent:<key>       string  hash of the body sent with an Idempotency-Key, expiring
    whimbrel:{s}:sent_until       zset    Idempotency-Key → steady ms at which it expires, to limit their number
    whimbrel:{s}:senders          hash    sender id → number of its last batch in this shard
    whimbrel:{s}:senders_seen     zset    sender id → steady ms of that batch, to expire and limit them
    whimbrel:{s}:senders_of:<o>   zset    the senders that count towards the share of an owner (`Owner`), same scores;
                                          it expires with the last of them
    whimbrel:{s}:sent_of:<owner>  zset    the same for sent_until
    whimbrel:{s}:devices_of:<o>   zset    devices that an owner has added → steady ms of that; it expires with the last
    whimbrel:{s}:added_by         hash    device → the owner that added it, to find the device's entry there
    whimbrel:{s}:intent           string  msgpack [commit number, [[device, first and last entry id, records,
                                          bytes, has marks]…]]; an import's has no device, because its records
                                          are never in Redis
    whimbrel:{s}:allotted         zset    token of an import's batch → s since epoch at which its ids were assigned;
                                          removed when the import writes its intent, or after a day
    whimbrel:{s}:finishing        string  number of trimmed chunks of the intent
    whimbrel:{s}:committed        string  commit number of the last finished save
    whimbrel:{s}:quarantine       stream  records that could not be saved: device, entry, i, reason, r
    whimbrel:{s}:quarantine_state hash    commit that last added; size of the stream, bytes; total numbers of entries
                                          kept, dropped for lack of space, and replayed
    whimbrel:{s}:replayed         set     ids of replayed quarantine entries: they count as removed, and are removed
                                          once they are the oldest
    whimbrel:{s}:deleting         hash    device → its unfinished deletion, as in deletions.py
    whimbrel:{s}:deletion:<name>  hash    status of a deletion; it expires after the deletion is finished
    whimbrel:{s}:left:<name>      set     files of the archive that may have its records until cleanup; expires, too

Streams are changed only by XTRIM, never XDEL: mixed, they corrupt the stream's nodes. An emptied stream is kept, since
its last id must not repeat; the stream of a deleted device is removed, and floor_ms has its last id.
"""

from __future__ import annotations

import zlib


class Keys:
    """The names of one shard's keys."""

    def __init__(self, shard: int | str) -> None:
        start = f"whimbrel:{{{shard}}}:"
        self.store = f"{start}store"
        self.latest = f"{start}latest"
        self.devices = f"{start}devices"
        self.dirty = f"{start}dirty"
        self.unsaved = f"{start}unsaved"
        self.next_id = f"{start}next_id"
        self.recent = f"{start}recent"
        self.added_by = f"{start}added_by"
        self.sent_until = f"{start}sent_until"
        self.senders = f"{start}senders"
        self.senders_seen = f"{start}senders_seen"
        self.intent = f"{start}intent"
        self.finishing = f"{start}finishing"
        self.allotted = f"{start}allotted"
        self.committed = f"{start}committed"
        self.quarantine = f"{start}quarantine"
        self.quarantine_state = f"{start}quarantine_state"
        self.replayed = f"{start}replayed"
        self.deleting = f"{start}deleting"
        self._start = start

    def stream(self, device_id: str) -> str:
        return f"{self._start}stream:{device_id}"

    def sent(self, key: str) -> str:
        return f"{self._start}sent:{key}"

    def senders_of(self, owner: str) -> str:
        return f"{self._start}senders_of:{owner}"

    def sent_of(self, owner: str) -> str:
        return f"{self._start}sent_of:{owner}"

    def devices_of(self, owner: str) -> str:
        return f"{self._start}devices_of:{owner}"

    def deletion(self, name: str) -> str:
        return f"{self._start}deletion:{name}"

    def left(self, name: str) -> str:
        return f"{self._start}left:{name}"


_ANY = Keys("*")

OF_SHARDS = "whimbrel:{*}:*"
"""Pattern of all keys of all shards. Braces have no special meaning in Redis patterns."""

APPENDED = (
    *(_ANY.store, _ANY.stream("*"), _ANY.latest, _ANY.devices, _ANY.dirty, _ANY.unsaved, _ANY.next_id, _ANY.recent),
    *(_ANY.sent("*"), _ANY.sent_until, _ANY.senders, _ANY.senders_seen, _ANY.senders_of("*"), _ANY.sent_of("*")),
    *(_ANY.devices_of("*"), _ANY.added_by),
    *(_ANY.quarantine, _ANY.quarantine_state, _ANY.replayed),
)
"""Patterns of the keys written on intake, of all shards: all except the keys of saving."""


FORGOTTEN = (_ANY.allotted, _ANY.deleting, _ANY.deletion("*"))
"""Keys that a request for a deletion also writes."""


def shard_of(name: str, shards: int) -> int:
    """The shard of a device or an Idempotency-Key."""
    return zlib.crc32(name.encode()) % shards if shards > 1 else 0
