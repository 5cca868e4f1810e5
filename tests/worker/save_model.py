"""The save protocol of `worker/saving/saver.py` as a model, small enough to try everything that can happen.

Saving moves records from Redis to the archive's table, each exactly once, while workers are killed,
paused and woken at any step and Redis is put back to an older copy. Tests of the real code try a few of
the orders in which that can happen; `explore` tries all of them: two workers and two devices that get a
few records, breadth first, every state that can be reached from an empty box.

How the model stands to the real thing:

- One step of a worker is one thing that others see at once: one script in Redis, one pipelined read, one
  file, one commit to the table. Between two steps anything else may happen. So a zombie, stopped past
  every lease and then running on, needs no step of its own: any worker may rest for as long as it likes.
- A crash makes a worker forget all it holds and start at `look`. Redis, the table and the files stay as
  its last step left them; what that means is said at each step.
- A worker that the protocol stops starts again too. A real one leaves the shard alone, so the model
  allows more than can happen.
- A record is its number at its device. An entry holds one record, a chunk of the finish one device, and
  an intent takes all that waits.
- A reader that remembers keeps the tails of its last page and reads only what is behind them; it may read any number
  of pages.
- A restore gives Redis back an older copy of itself, once. Nobody is promised the records that only the
  lost part held (`State.excused`); all others must still be saved once.
- Left out: a power cut that takes back a commit (it is synced before anything is trimmed), and the
  recovery of a shard whose Redis and table no longer belong together (a person starts it).

Each name in `SWITCHES` takes one thing out of the protocol, to show what it is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

from tests import exploring
from tests.exploring import Model, Result

SWITCHES = {
    "intend": "guard 1: an intent is written only if there is none and `committed` has not moved",
    "unique": "guard 2: each attempt writes files with new random names, so that none is overwritten",
    "handle": "guard 3: the table refuses a commit if another came after its handle was opened",
    "finish": "guard 4: a chunk is trimmed only if the stored intent is the caller's",
    "progress": "guard 4, too: and only if `finishing` says that this chunk is next",
    "still": "guard 5: what was read is used only if the intent is still there after the read",
    "token": "a commit number ends in random bits, so that no two intents share one",
    "together": "no guard: a worker that sees that table and Redis don't belong together stops at once",
    "snapshot": "a reader compares the table's transaction with what Redis said",
    "last": "a reader loads the table after the tails",
    "connection": "a page asks Redis over one connection, which a restore ends by restarting Redis",
    "run": "a reader forgets the tails when Redis was restarted",
    "save": "a reader forgets the tails when a save has ended",
    "deletion": "a reader forgets the tails when a device was deleted",
    "counter": "what is remembered goes with the counter of ids from before it was read",
}

DEVICES = (0, 1)

Rows: TypeAlias = tuple[tuple[int, ...], ...]
"""For each device, the numbers of some of its records."""

NO_ROWS: Rows = ((), ())


class Commit(NamedTuple):
    """A commit number. It rises with `ordinal`; `token` stands for the random bits."""

    ordinal: int
    token: int


class Intent(NamedTuple):
    """What a save will move: each device's records up to the end of its range."""

    number: Commit
    ends: tuple[int, ...]


class Redis(NamedTuple):
    """The hot store of one shard. `run` counts its starts; `next_id` is counted where a reader remembers tails."""

    streams: Rows
    committed: Commit
    intent: Intent | None
    finishing: int
    run: int = 0
    next_id: int = 0
    deleted: int = 0


class File(NamedTuple):
    """A Parquet file. One with a random name has no other's, so that we need not know it."""

    name: Commit | None
    rows: Rows


class Table(NamedTuple):
    """The archive: the transaction's number, t, and the files that the last commit left."""

    transaction: Commit
    files: tuple[File, ...]


class Worker(NamedTuple):
    """Where a worker is, and what it holds in memory. The step decides which fields are used.

    `seen` is a number it has read: first `committed`, later that of the table its handle was opened on.
    `planned` is what the streams held when it chose, `standing` Redis's `run` and `deleted` before that; `rows` is what
    it has read from them since, and after `write` what its file holds.
    """

    step: str = "look"
    intent: Intent | None = None
    seen: Commit | None = None
    ends: tuple[int, ...] = ()
    rows: Rows = ()
    chunk: int = 0
    planned: Rows = ()
    standing: tuple[int, int] = (0, 0)


class Known(NamedTuple):
    """Tails that are remembered: of which run of Redis, since which save and deletion, and the counter from before they
    were read."""

    run: int
    committed: Commit
    deleted: int
    next_id: int
    tails: Rows


class Reader(NamedTuple):
    """A page being read. `promised` are the records acknowledged before it, `gone` those that a restore had lost by
    then; `verdict` is its outcome. `known` are the tails of the page before, later of this one."""

    step: str = "ask"
    promised: tuple[int, ...] = ()
    committed: Commit | None = None
    intent: Intent | None = None
    tails: Rows = ()
    table: Table | None = None
    verdict: str | None = None
    gone: Rows = NO_ROWS
    known: Known | None = None
    next_id: int = 0


class State(NamedTuple):
    """The whole box. `acknowledged` counts each device's records so far."""

    redis: Redis
    table: Table
    workers: tuple[Worker, Worker]
    acknowledged: tuple[int, ...]
    excused: Rows
    copy: Redis | None
    restores_left: int
    reader: Reader | None


class Rules(NamedTuple):
    """One exploration: how many records each device gets, and which switches are off.

    It is at rest when everything acknowledged is saved, trimmed and finished.
    """

    appends: tuple[int, ...]
    without: frozenset[str]
    remembers: bool = False
    deletes: bool = False


Step: TypeAlias = tuple[str, State]
Move: TypeAlias = exploring.Move[State]


# --- the worker -----------------------------------------------------------------------------------------


def _goes(
    state: State,
    me: int,
    worker: Worker,
    *,
    redis: Redis | None = None,
    table: Table | None = None,
) -> State:
    """The state after a step of this worker, with what else the step changed."""
    first, second = state.workers
    workers = (worker, second) if me == 0 else (first, worker)
    return State(redis or state.redis, table or state.table, workers, *state[3:])


def _look(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Read `intent` and `committed` at once. Nothing is held yet: a crash changes nothing."""
    if state.redis.intent is not None:
        return "look: an intent", _goes(state, me, Worker("recover", intent=state.redis.intent))
    redis = state.redis
    return "look: none", _goes(state, me, Worker("together", seen=redis.committed, standing=_standing(redis)))


def _happened(table: Table, intent: Intent) -> bool | None:
    """Whether the intent's commit is in the table; None if another store wrote there since."""
    if table.transaction == intent.number:
        return True
    return False if table.transaction.ordinal < intent.number.ordinal else None


def _recover(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Open the table: has the commit of the intent found happened? A crash drops the answer."""
    assert worker.intent is not None
    happened = _happened(state.table, worker.intent)
    if happened is None:
        return "recover: stop", _goes(state, me, Worker())
    if happened:
        return "recover: finish", _goes(state, me, Worker("finish", intent=worker.intent))
    return "recover: redo", _goes(state, me, Worker("read", intent=worker.intent))


def _together(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """See that the table is at `committed`; if not, another Redis wrote it. A crash drops the answer."""
    if "together" in rules.without or state.table.transaction == worker.seen:
        return "together", _goes(state, me, worker._replace(step="choose"))
    return "together: stop", _goes(state, me, Worker())


def _choose(state: State, me: int, worker: Worker, rules: Rules) -> Step | None:
    """Choose the ranges to save: all that waits, which is read. They live in memory only: a crash drops the choice."""
    ends = tuple(stream[-1] if stream else 0 for stream in state.redis.streams)
    if not any(ends):
        return None
    return "choose", _goes(state, me, worker._replace(step="intend", ends=ends, planned=state.redis.streams))


def _intend(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Write the intent. A crash before it leaves nothing; from here on, any worker can redo this save.

    Guard 1 (`intend`): without it, a worker that looked before Redis was restored saves again what the
    table has. `token`: without it, the saves before and after a restore can have one number, and each
    takes the other's commit for its own.
    """
    redis = state.redis
    assert worker.seen is not None
    free = redis.intent is None and redis.committed == worker.seen
    if not free and "intend" not in rules.without:
        return "intend: refused", _goes(state, me, Worker())
    ordinal = worker.seen.ordinal + 1
    token = 0 if "token" in rules.without else _new_token(state, ordinal)
    intent = Intent(Commit(ordinal, token), worker.ends)
    after = redis._replace(intent=intent, finishing=0)
    reads = Worker("read", intent=intent, planned=worker.planned, standing=worker.standing)
    return "intend", _goes(state, me, reads, redis=after)


def _read(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Take what was planned, if Redis runs on and nothing was deleted; else read the next device's range: several
    reads, since one of them all would be too large.

    A crash drops what was read; it is still in Redis, as only a committed intent is trimmed.
    """
    intent, device = worker.intent, len(worker.rows)
    assert intent is not None
    if worker.planned and worker.standing == _standing(state.redis):
        return "read: as planned", _goes(state, me, Worker("still", intent=intent, rows=worker.planned))
    found = tuple(n for n in state.redis.streams[device] if n <= intent.ends[device])
    rows = (*worker.rows, found)
    step = "read" if len(rows) < len(DEVICES) else "still"
    return "read", _goes(state, me, Worker(step, intent=intent, rows=rows))


def _standing(redis: Redis) -> tuple[int, int]:
    """By what a worker knows that streams are those that it read; that no save ended meanwhile guard 1 sees."""
    return redis.run, redis.deleted


def _still(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """See that the intent is there, so that these are the streams it was made for. A crash drops the read.

    Guard 5 (`still`): without it, a worker under which Redis was restored finds records in its ranges
    that an earlier save has put in the table, and commits them again.
    """
    if "still" in rules.without or state.redis.intent == worker.intent:
        return "still", _goes(state, me, worker._replace(step="write"))
    return "still: gone", _goes(state, me, Worker())


def _write(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Write the file. A crash before the commit leaves one that no table names, so that nobody reads it.

    Guard 2 (`unique`): without it, the file is named by its commit alone, and a second attempt, which may
    find half of it trimmed, overwrites the one that the table names already.
    """
    written = worker._replace(step="open")
    before = _overwritten(state, written) if "unique" in rules.without else state
    return "write", _goes(before, me, written)


def _overwritten(state: State, writer: Worker) -> State:
    """The same name is the same file: its rows change for the table, and for a worker that wrote it too."""
    assert writer.intent is not None
    name, table = writer.intent.number, state.table
    files = tuple(sorted(File(name, writer.rows) if file.name == name else file for file in table.files))
    first, second = state.workers
    if _has_written(first, name):
        first = first._replace(rows=writer.rows)
    if _has_written(second, name):
        second = second._replace(rows=writer.rows)
    return state._replace(table=table._replace(files=files), workers=(first, second))


def _has_written(worker: Worker, name: Commit) -> bool:
    return worker.step in ("open", "commit") and worker.intent is not None and worker.intent.number == name


def _open(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Open the table once more and decide as in `recover`. The handle knows what it saw; a crash drops it."""
    assert worker.intent is not None
    happened = _happened(state.table, worker.intent)
    if happened is None:
        return "open: stop", _goes(state, me, Worker())
    if happened:
        return "open: finish", _goes(state, me, Worker("finish", intent=worker.intent))
    return "open", _goes(state, me, worker._replace(step="commit", seen=state.table.transaction))


def _commit(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Add the file and set t, both at once. A crash after it leaves the intent, and `recover` finds t.

    Guard 3 (`handle`): without it, two workers that both saw the commit missing both add their file.
    """
    intent, table = worker.intent, state.table
    assert intent is not None
    if worker.seen != table.transaction and "handle" not in rules.without:
        return "commit: refused", _goes(state, me, Worker())
    file = File(intent.number if "unique" in rules.without else None, worker.rows)
    after = Table(intent.number, tuple(sorted((*table.files, file))))
    return "commit", _goes(state, me, Worker("finish", intent=intent), table=after)


def _finish(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Ask how many chunks are trimmed, by us before a crash or by another. A crash drops the answer."""
    redis, intent = state.redis, worker.intent
    if redis.intent != intent and "finish" not in rules.without:
        return "finish: gone", _goes(state, me, Worker())
    chunk = 0 if "progress" in rules.without else redis.finishing
    return "finish", _goes(state, me, Worker("trim", intent=intent, chunk=chunk))


def _trim(state: State, me: int, worker: Worker, rules: Rules) -> Step:
    """Trim one chunk; the last one also ends the intent. A crash between two leaves the rest to `recover`.

    Guard 4: without `finish`, a worker that slept counts its chunks towards another's intent, or ends it;
    without `progress`, one under which Redis was restored ends an intent whose earlier chunks are in the
    streams again. Either way records that the table has stay in the streams and are saved once more.
    """
    redis, intent, chunk = state.redis, worker.intent, worker.chunk
    assert intent is not None
    mine = redis.intent == intent or "finish" in rules.without
    in_turn = redis.finishing == chunk or "progress" in rules.without
    if not (mine and in_turn):
        return "trim: refused", _goes(state, me, Worker())
    streams = _put(redis.streams, chunk, tuple(n for n in redis.streams[chunk] if n > intent.ends[chunk]))
    if chunk + 1 < len(DEVICES):
        after = redis._replace(streams=streams, finishing=chunk + 1)
        return "trim", _goes(state, me, worker._replace(chunk=chunk + 1), redis=after)
    after = redis._replace(streams=streams, committed=intent.number, intent=None, finishing=0)
    return "trim: the last", _goes(state, me, Worker(), redis=after)


def _put(rows: Rows, device: int, numbers: tuple[int, ...]) -> Rows:
    return (*rows[:device], numbers, *rows[device + 1 :])


STEPS: dict[str, Callable[[State, int, Worker, Rules], Step | None]] = {
    "look": _look,
    "recover": _recover,
    "together": _together,
    "choose": _choose,
    "intend": _intend,
    "read": _read,
    "still": _still,
    "write": _write,
    "open": _open,
    "commit": _commit,
    "finish": _finish,
    "trim": _trim,
}
"""In the order of a save; `recover` is the way in for one that another worker began."""


def _work(state: State, rules: Rules) -> Iterator[Move]:
    for me, worker in enumerate(state.workers):
        if worker.step != "look":
            yield f"worker {me}", f"crash at {worker.step}", _goes(state, me, Worker())
        done = STEPS[worker.step](state, me, worker, rules)
        if done is not None:
            yield f"worker {me}", *done


# --- the senders and the operator -----------------------------------------------------------------------


def _send(state: State, rules: Rules) -> Iterator[Move]:
    """A device's next record is stored, and by that acknowledged."""
    redis = state.redis
    for device, count in enumerate(state.acknowledged):
        if count < rules.appends[device]:
            streams = _put(redis.streams, device, (*redis.streams[device], count + 1))
            acknowledged = (*state.acknowledged[:device], count + 1, *state.acknowledged[device + 1 :])
            next_id = redis.next_id + 1 if rules.remembers else 0
            after = state._replace(redis=redis._replace(streams=streams, next_id=next_id), acknowledged=acknowledged)
            yield f"device {device}", "append", after


def _delete(state: State, rules: Rules) -> Iterator[Move]:
    """Someone asks, once, to delete the first device: its stream goes, and nobody is promised its records any more.

    What becomes of those that are saved, or being saved, is `deletion_model.py`'s.
    """
    redis = state.redis
    if rules.deletes and not redis.deleted and state.acknowledged[0]:
        gone = tuple(range(1, state.acknowledged[0] + 1))
        after = redis._replace(streams=_put(redis.streams, 0, ()), deleted=1)
        yield "operator", "delete", state._replace(redis=after, excused=_put(state.excused, 0, gone))


def _operate(state: State, rules: Rules) -> Iterator[Move]:
    """Someone copies Redis, and later puts the copy back while all else runs on."""
    if not state.restores_left:
        return
    if state.copy is None:
        yield "operator", "copy", state._replace(copy=state.redis)
    else:
        yield "operator", "restore", _restored(state, state.copy, rules)


def _restored(state: State, copy: Redis, rules: Rules) -> State:
    """Redis is the copy from now on. To get there it was restarted, which ends the reader's connection.

    `connection`: without it, a page that asked for `committed` before the restore and for the tails after
    it has tails of another moment, and nothing that tells it so.
    """
    reader = state.reader
    if reader is not None and reader.step == "tail" and "connection" not in rules.without:
        reader = Reader()
    excused = _excused(state, copy)
    copy = copy._replace(run=state.redis.run + 1)
    return state._replace(redis=copy, excused=excused, copy=None, restores_left=0, reader=reader)


def _excused(state: State, copy: Redis) -> Rows:
    """The records that neither the copy nor the archive has: the restore itself loses them."""
    return tuple(
        tuple(
            number
            for number in range(1, state.acknowledged[device] + 1)
            if number not in copy.streams[device] and number not in _saved(state.table, device)
        )
        for device in DEVICES
    )


# --- the reader -----------------------------------------------------------------------------------------


def _ask(state: State, reader: Reader, rules: Rules) -> Reader:
    """A page begins: what was acknowledged by now it must hold."""
    begun = Reader(promised=state.acknowledged, known=reader.known)
    if rules.remembers:
        begun = begun._replace(gone=state.excused)
    if "last" in rules.without:
        return begun._replace(step="state", table=state.table)
    return _state(state, begun, rules)


def _state(state: State, reader: Reader, rules: Rules) -> Reader:
    """Read `committed` and `intent` at once, and by what tails are known again."""
    redis = state.redis
    read = reader._replace(step="tail", committed=redis.committed, intent=redis.intent)
    if not rules.remembers:
        return read
    known = reader.known if _goes_on(reader.known, redis, rules) else None
    if known is not None and known.next_id == redis.next_id:
        return read._replace(step="table", tails=known.tails, known=known)
    known = known or Known(redis.run, redis.committed, redis.deleted, 0, NO_ROWS)
    return read._replace(known=known, next_id=redis.next_id)


def _goes_on(known: Known | None, redis: Redis, rules: Rules) -> bool:
    """Whether tails that were read before are what Redis had, but for what the intent says.

    `run`: without it, a reader may take what is new in a Redis that was restored for what it knows, or show what was
    lost. `save`: without it, it shows what was saved since in the table and in the tail. `deletion`: without it, it
    shows what is gone.
    """
    return (
        known is not None
        and (known.run == redis.run or "run" in rules.without)
        and (known.committed == redis.committed or "save" in rules.without)
        and (known.deleted == redis.deleted or "deletion" in rules.without)
        and known.next_id <= redis.next_id
    )


def _tail(state: State, reader: Reader, rules: Rules) -> Reader:
    """Read one device's stream, or what is behind what is known of it.

    `counter`: without it, a record that comes while the tails are read is counted as known, though it is not.
    """
    device, known = len(reader.tails), reader.known
    stream = state.redis.streams[device]
    if known is not None:
        before = known.tails[device]
        stream = (*before, *(n for n in stream if not before or n > before[-1]))
    tails = (*reader.tails, stream)
    if len(tails) < len(DEVICES):
        return reader._replace(tails=tails)
    if known is not None:
        next_id = state.redis.next_id if "counter" in rules.without else reader.next_id
        known = known._replace(next_id=next_id, tails=tails)
    return reader._replace(step="table", tails=tails, known=known, next_id=0)


def _load(state: State, reader: Reader, rules: Rules) -> Reader:
    """Load the table, and take the tail's part that it doesn't hold; begin again if they don't fit."""
    table = reader.table or state.table
    tails = _beyond(table, reader, rules)
    if tails is None:
        return Reader(known=reader.known)
    return Reader(verdict=_page_fault(state, table, tails, reader), known=reader.known)


def _beyond(table: Table, reader: Reader, rules: Rules) -> Rows | None:
    """The tails without what the table has; None if table and tails are of different moments."""
    if "snapshot" in rules.without or table.transaction == reader.committed:
        return reader.tails
    if reader.intent is None or table.transaction != reader.intent.number:
        return None
    ends = reader.intent.ends
    return tuple(tuple(n for n in tail if n > end) for tail, end in zip(reader.tails, ends, strict=True))


def _page_fault(state: State, table: Table, tails: Rows, reader: Reader) -> str | None:
    for device in DEVICES:
        page = [*_saved(table, device), *tails[device]]
        if len(page) != len(set(page)):
            return "reader doubled"
        if not set(range(1, reader.promised[device] + 1)) <= {*page, *state.excused[device]}:
            return "reader gap"
        if set(tails[device]) & set(reader.gone[device]):
            return "reader ghost"
    return None


READS: dict[str, Callable[[State, Reader, Rules], Reader]] = {
    "ask": _ask,
    "state": _state,
    "tail": _tail,
    "table": _load,
}


def _query(state: State, rules: Rules) -> Iterator[Move]:
    if state.reader is not None:
        after = READS[state.reader.step](state, state.reader, rules)
        yield "reader", state.reader.step, state._replace(reader=after)


# --- what must never be ---------------------------------------------------------------------------------


def _saved(table: Table, device: int) -> list[int]:
    return [number for file in table.files for number in file.rows[device]]


def fault(state: State) -> str | None:
    """What is wrong with a state, in a word or two; None if each record is where it must be."""
    for device in DEVICES:
        saved = _saved(state.table, device)
        if len(saved) != len(set(saved)):
            return "doubled"
        held = {*saved, *state.redis.streams[device], *state.excused[device]}
        if any(number not in held for number in range(1, state.acknowledged[device] + 1)):
            return "lost"
    return state.reader and state.reader.verdict


def _at_rest(state: State, rules: Rules) -> bool:
    """All that will ever be sent is saved, trimmed and finished."""
    return (
        state.acknowledged == rules.appends
        and state.redis.streams == NO_ROWS
        and state.redis.intent is None
        and state.redis.committed == state.table.transaction
    )


# --- one form for states that differ in names only ------------------------------------------------------


def _numbers(state: State) -> list[Commit]:
    """Every commit number that anything in the state holds, in a fixed order."""
    found: list[Commit | None] = [state.table.transaction]
    for redis in (state.redis, state.copy):
        if redis is not None:
            found += (redis.committed, redis.intent and redis.intent.number)
    for holder in (*state.workers, state.reader):
        if holder is not None:
            found.append(holder.intent and holder.intent.number)
    found += (worker.seen for worker in state.workers)
    if state.reader is not None:
        found.append(state.reader.committed)
        found.append(state.reader.known and state.reader.known.committed)
        found.append(state.reader.table and state.reader.table.transaction)
    found += (file.name for file in state.table.files)
    return [number for number in found if number is not None]


def _new_token(state: State, ordinal: int) -> int:
    """A token that no number with this ordinal has: real ones are random, and never meet."""
    return 1 + max((number.token for number in _numbers(state) if number.ordinal == ordinal), default=-1)


def canonical(state: State) -> State:
    """One state for all that differ only in tokens, or in which worker is which.

    Tokens are only ever compared for equality, so they can be named in order of appearance; that keeps
    the number of states finite.
    """
    if _in_wrong_order(state):
        state = _swapped(state)
    names = _names(_numbers(state))
    return _renamed(state, names) if names else state


def _in_wrong_order(state: State) -> bool:
    first, second = state.workers
    return second < first


def _swapped(state: State) -> State:
    first, second = state.workers
    return state._replace(workers=(second, first))


def _names(numbers: list[Commit]) -> dict[Commit, Commit]:
    """The new name of each number; nothing if they all keep theirs."""
    names: dict[Commit, Commit] = {}
    used: dict[int, int] = {}
    for number in numbers:
        if number not in names:
            token = used.get(number.ordinal, 0)
            used[number.ordinal] = token + 1
            names[number] = Commit(number.ordinal, token)
    return names if any(old != new for old, new in names.items()) else {}


def _renamed(state: State, names: dict[Commit, Commit]) -> State:
    first, second = (_renamed_worker(worker, names) for worker in state.workers)
    return state._replace(
        redis=_renamed_redis(state.redis, names),
        table=_renamed_table(state.table, names),
        workers=(first, second),
        copy=state.copy and _renamed_redis(state.copy, names),
        reader=state.reader and _renamed_reader(state.reader, names),
    )


def _renamed_intent(intent: Intent | None, names: dict[Commit, Commit]) -> Intent | None:
    return intent and Intent(names[intent.number], intent.ends)


def _renamed_redis(redis: Redis, names: dict[Commit, Commit]) -> Redis:
    return redis._replace(committed=names[redis.committed], intent=_renamed_intent(redis.intent, names))


def _renamed_table(table: Table, names: dict[Commit, Commit]) -> Table:
    files = tuple(sorted(File(file.name and names[file.name], file.rows) for file in table.files))
    return Table(names[table.transaction], files)


def _renamed_worker(worker: Worker, names: dict[Commit, Commit]) -> Worker:
    seen = worker.seen and names[worker.seen]
    return worker._replace(intent=_renamed_intent(worker.intent, names), seen=seen)


def _renamed_reader(reader: Reader, names: dict[Commit, Commit]) -> Reader:
    return reader._replace(
        committed=reader.committed and names[reader.committed],
        intent=_renamed_intent(reader.intent, names),
        table=reader.table and _renamed_table(reader.table, names),
        known=reader.known and reader.known._replace(committed=names[reader.known.committed]),
    )


# --- everything that can happen -------------------------------------------------------------------------


def _moves(state: State, rules: Rules) -> Iterator[Move]:
    """All that can happen next: who does what, and the state after it."""
    yield from _send(state, rules)
    yield from _delete(state, rules)
    yield from _operate(state, rules)
    yield from _query(state, rules)
    yield from _work(state, rules)


def _empty_box(restore: bool, reader: bool) -> State:
    start = Commit(0, 0)
    return State(
        redis=Redis(NO_ROWS, start, None, 0),
        table=Table(start, ()),
        workers=(Worker(), Worker()),
        acknowledged=(0, 0),
        excused=NO_ROWS,
        copy=None,
        restores_left=int(restore),
        reader=Reader() if reader else None,
    )


def explore(
    appends: tuple[int, int] = (2, 1),
    restore: bool = True,
    reader: bool = False,
    remembers: bool = False,
    deletes: bool = False,
    without: frozenset[str] = frozenset(),
    stop_at_first_bad: bool = False,
) -> Result:
    """Try everything. `appends` says how many records each device sends; `without` names `SWITCHES`.

    A `reader` may be one that `remembers` tails, and the first device be one that somebody `deletes`.
    """
    if unknown := without - SWITCHES.keys():
        raise ValueError(f"cannot explore without {sorted(unknown)}: choose from {list(SWITCHES)}")
    rules = Rules(appends, without, remembers, deletes)
    model = Model(
        start=_empty_box(restore, reader),
        moves=partial(_moves, rules=rules),
        fault=fault,
        is_at_rest=partial(_at_rest, rules=rules),
        canonical=canonical,
        relabelled=lambda after, goal: _swapped(goal) if _in_wrong_order(after) else goal,
    )
    return exploring.explore(model, stop_at_first_bad)
