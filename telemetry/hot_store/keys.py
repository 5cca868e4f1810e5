"""The keys of the shards' stores in Redis.

Only this file and the functions in `lua/` know the keys of shards; those of the whole box are in shared_state.py.
Devices are spread over shards by crc32. All keys of a shard carry its hash tag, so that one function call touches one
slot. `{s}` is the shard's number.

    whimbrel:{s}:store            hash    id (random, made once), layout (1), shard, shards; rebuild: "1" while latest
                                          lacks what the archive knows; trouble: why the last save failed, until one
                                          is finished; and of the box's clock, ms since epoch: newest_ms, the greatest
                                          that it showed as records came; jumped_ms, how far it was set forward in all:
                                          less that, it is steady; while it is behind newest_ms, clock_ms, what it
                                          showed last, and behind_since_ms, since when by the steady one: after a day
                                          it is believed again; of deletions: deleted, how many devices were; rewritten,
                                          how many when the append-only file was last written anew for that; floor_ms,
                                          the greatest id, its ms, of their streams, above which new ones begin;
                                          unsaved_bytes, how many bytes the entries have that wait (`size_bytes` of
                                          entry_codec.py)
    whimbrel:{s}:stream:<device>  stream  an entry = the records of one device in one group, in order:
                                          "i" = id of the first (the others follow in steps of `shards`),
                                          "r" = msgpack array of 1 to 1,000 records (record.py),
                                          "m" = their marks (entry_codec.py), if they are stored once however often
                                          sent, "a" = ms of arrival, only where it isn't the entry id's (recovered);
                                          trimmed by the worker, only after its commit
    whimbrel:{s}:latest           hash    device → msgpack [http, other, fix, last seen ms]: the newest record
                                          by HTTP, the newest by any other transport, and the newest with a
                                          fix: 0 or 1 where it is the first or the second of these; nil where
                                          there is none; a record is [id, received ms, timestamp µs, has a fix,
                                          the record's bytes], numbers always in 8 bytes, so that Lua finds them
    whimbrel:{s}:devices          zset    all scores 0: lexicographic, for stable paging
    whimbrel:{s}:dirty            zset    device → ms of its oldest unsaved entry
    whimbrel:{s}:unsaved          string  how many records wait
    whimbrel:{s}:next_id          string  counter of ids: id = counter * shards + shard
    whimbrel:{s}:recent           hash    device → marks of its last records that were saved, the newest last
    whimbrel:{s}:sent:<key>       string  hash of the body that came with an Idempotency-Key, expiring
    whimbrel:{s}:sent_until       zset    Idempotency-Key → steady ms at which it expires, to bound their number
    whimbrel:{s}:senders          hash    sender id → number of its last batch here
    whimbrel:{s}:senders_seen     zset    sender id → steady ms of that batch, to forget it and to bound their number
    whimbrel:{s}:senders_of:<o>   zset    those senders that count towards the share of an owner (`Owner`), same scores;
                                          it expires with the last of them
    whimbrel:{s}:sent_of:<owner>  zset    the same of sent_until
    whimbrel:{s}:intent           string  msgpack [commit number, [[device, first and last entry id, records,
                                          bytes, has marks]…]]; without a device that of an import, whose records were
                                          never here
    whimbrel:{s}:allotted         zset    token of an import's batch → s since epoch at which it was allotted its ids;
                                          it goes when the import intends, or after a day
    whimbrel:{s}:finishing        string  how many chunks of the intent are trimmed
    whimbrel:{s}:committed        string  commit number of the last finished save
    whimbrel:{s}:quarantine       stream  what could not be saved: device, entry, i, reason, r
    whimbrel:{s}:quarantine_state hash    commit that last added; bytes that the stream holds; and how many were ever
                                          kept, dropped for want of room, and replayed
    whimbrel:{s}:replayed         set     ids of entries of the quarantine that were appended again: they count as gone,
                                          and go as soon as they are the oldest
    whimbrel:{s}:deleting         hash    device → its deletion that is under way: what goes, as deletions.py has it
    whimbrel:{s}:deletion:<name>  hash    how far a deletion is, and what it removed; it expires once that is done
    whimbrel:{s}:left:<name>      set     files of the archive that may hold its records until the sweep; expiring, too

Only XTRIM touches a stream, never XDEL: mixed, they corrupt its nodes. An emptied stream stays, since its
last id must not repeat; one whose device is deleted goes, and leaves that to floor_ms.
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

    def deletion(self, name: str) -> str:
        return f"{self._start}deletion:{name}"

    def left(self, name: str) -> str:
        return f"{self._start}left:{name}"


_ANY = Keys("*")

OF_SHARDS = "whimbrel:{*}:*"
"""Pattern of all keys of all shards. Braces stand for themselves in a pattern of Redis."""

APPENDED = (
    *(_ANY.store, _ANY.stream("*"), _ANY.latest, _ANY.devices, _ANY.dirty, _ANY.unsaved, _ANY.next_id, _ANY.recent),
    *(_ANY.sent("*"), _ANY.sent_until, _ANY.senders, _ANY.senders_seen, _ANY.senders_of("*"), _ANY.sent_of("*")),
    *(_ANY.quarantine, _ANY.quarantine_state, _ANY.replayed),
)
"""Patterns of the keys that who takes records changes, of all shards: all but those of saving."""


FORGOTTEN = (_ANY.allotted, _ANY.deleting, _ANY.deletion("*"))
"""Those that asking for a deletion changes besides."""


def shard_of(name: str, shards: int) -> int:
    """The shard of a device, or the home of an Idempotency-Key."""
    return zlib.crc32(name.encode()) % shards if shards > 1 else 0
