"""Deleting a device (`worker/device_erasure.py`) as a model, small enough to try everything that can happen.

One device gets a few records and is deleted once or twice, at any time, while a saver and an eraser work, and beside
them an importer, a compactor or somebody who finds latest in the archive. What holds of every state:

- no record that was accepted after the last deletion's moment is missing, and none is in the archive twice;
- once a deletion is done, nothing that was accepted before its moment is anywhere: not in the stream, not in the table,
  not in latest, and nothing brings it back.

One step of a worker is one thing that others see at once: one function in Redis, one read, one commit. Between two
anything else may happen, so that a zombie needs no step of its own. A crash makes a worker forget what it holds. The
save protocol is that of save_model.py, without what is only for a Redis that was put back: here none is. The table has
one day. A record is its id; the ids of an import's records come from the same counter.

Each name in `SWITCHES` takes one thing out of the protocol, to show what it is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

from tests import exploring
from tests.exploring import Model, Result

SWITCHES = {
    "settle": "the eraser waits until the intent that stood has ended",
    "read": "a save looks once its intent stands whether a deletion began or ended since it read, and then reads again",
    "tokens": "a deletion takes back the ids that were allotted to an import",
    "day": "a commit of the eraser is refused if another changed the day's files since it looked",
    "merge": "and so is one of the compactor",
    "again": "a deletion ends only if it was not asked for again meanwhile",
    "mark": "while it is under way, what goes is not offered to latest",
    "deleted": "and who looked for records in files before its end is refused",
}

WORKERS = ("saver", "eraser", "importer", "compactor", "finder")

MOST_IDS = 4
"""An importer that is refused again and again gives up here."""

Rows: TypeAlias = tuple[int, ...]


class Intent(NamedTuple):
    """What a save takes: all up to `end`. An import's takes nothing."""

    number: int
    end: int
    is_import: bool = False


class Mark(NamedTuple):
    """A deletion under way: records below `before` go."""

    before: int
    generation: int


class Redis(NamedTuple):
    """The hot store of one shard; `latest` is the newest record that is known, 0 if none is."""

    next_id: int = 1
    stream: Rows = ()
    latest: int = 0
    committed: int = 0
    intent: Intent | None = None
    token: int = 0
    mark: Mark | None = None
    deleted: int = 0


class Table(NamedTuple):
    """The archive: the transactions of saves and of the day, the files, and the row that an import brought."""

    transaction: int = 0
    day: int = 0
    files: tuple[Rows, ...] = ()
    imported: int = 0


class Worker(NamedTuple):
    """Where a worker is, and what it holds in memory; the step decides which fields are used."""

    step: str = "begin"
    intent: Intent | None = None
    rows: Rows = ()
    seen: int = 0
    deleted: int = 0
    mark: Mark | None = None
    files: tuple[Rows, ...] = ()


class State(NamedTuple):
    """The whole box. `accepted` are records that must not be lost unless they are deleted; `gone` is the moment before
    which everything is deleted and done."""

    redis: Redis
    table: Table
    workers: tuple[Worker, ...]
    accepted: Rows = ()
    appends: int = 0
    forgets: int = 0
    gone: int = 0


class Rules(NamedTuple):
    """One exploration: who works, how many records come, how often the device is deleted, which switches are off."""

    who: tuple[str, ...]
    appends: int
    forgets: int
    without: frozenset[str]


Step: TypeAlias = tuple[str, State]
Move: TypeAlias = exploring.Move[State]


def _goes(state: State, me: int, worker: Worker, redis: Redis | None = None, table: Table | None = None) -> State:
    workers = (*state.workers[:me], worker, *state.workers[me + 1 :])
    return state._replace(redis=redis or state.redis, table=table or state.table, workers=workers)


def _least(table: Table) -> tuple[Rows, ...]:
    """The table's files, in an order that says nothing."""
    return tuple(sorted(file for file in table.files if file))


# --- what comes from outside ----------------------------------------------------------------------------


def _append(state: State) -> State:
    r = state.redis
    after = r._replace(next_id=r.next_id + 1, stream=(*r.stream, r.next_id), latest=r.next_id)
    return state._replace(redis=after, accepted=(*state.accepted, r.next_id), appends=state.appends + 1)


def _forget(state: State, rules: Rules) -> State:
    """One function: the device leaves Redis, and a note says what is to go elsewhere."""
    r = state.redis
    mark = Mark(r.next_id, r.mark.generation + 1 if r.mark else 1)
    token = r.token if "tokens" in rules.without else 0
    accepted = tuple(one for one in state.accepted if one >= mark.before)
    after = r._replace(stream=(), latest=0, token=token, mark=mark)
    return state._replace(redis=after, accepted=accepted, forgets=state.forgets + 1)


# --- the saver, which also ends what an import left -----------------------------------------------------


def _saver(state: State, me: int, w: Worker, rules: Rules) -> Step | None:
    match w.step:
        case "begin":
            return _chosen(state, me)
        case "intend":
            return _intend(state, me, w)
        case "open":
            return _open(state, me, w)
        case "read":
            return _read(state, me, w, rules)
        case "still":
            if state.redis.intent != w.intent:
                return "still: gone", _goes(state, me, Worker())
            return "still", _goes(state, me, w._replace(step="commit"))
        case "commit":
            return _commit(state, me, w)
        case "finish":
            return _finish(state, me, w)
        case _:
            return _offers_imported(state, me, w, rules)


def _chosen(state: State, me: int) -> Step | None:
    r = state.redis
    if r.intent is not None:
        return "recover", _goes(state, me, Worker("open", intent=r.intent, seen=r.committed))
    if not r.stream:
        return None
    intent = Intent(r.committed + 1, r.stream[-1])
    chosen = Worker("intend", intent=intent, rows=r.stream, seen=r.committed, mark=r.mark, deleted=r.deleted)
    return "choose", _goes(state, me, chosen)


def _intend(state: State, me: int, w: Worker) -> Step:
    r = state.redis
    if r.intent is not None or r.committed != w.seen:
        return "intend: refused", _goes(state, me, Worker())
    return "intend", _goes(state, me, w._replace(step="open"), r._replace(intent=w.intent))


def _open(state: State, me: int, w: Worker) -> Step:
    assert w.intent is not None
    if state.table.transaction == w.intent.number:
        return "open: finish", _goes(state, me, w._replace(step="ask" if w.intent.is_import else "finish"))
    return "open", _goes(state, me, w._replace(step="read", seen=state.table.transaction))


def _read(state: State, me: int, w: Worker, rules: Rules) -> Step:
    assert w.intent is not None
    rows, r = w.rows, state.redis
    holds = rows and (w.mark, w.deleted) == (r.mark, r.deleted)
    if not holds and not (rows and "read" in rules.without):
        rows = tuple(one for one in r.stream if one <= w.intent.end)
    return "read", _goes(state, me, w._replace(step="still", rows=rows, mark=None, deleted=0))


def _commit(state: State, me: int, w: Worker) -> Step:
    t = state.table
    assert w.intent is not None
    if t.transaction != w.seen:
        return "commit: refused", _goes(state, me, Worker())
    after = t._replace(transaction=w.intent.number, files=(*t.files, w.rows))
    return "commit", _goes(state, me, w._replace(step="finish"), table=after)


def _finish(state: State, me: int, w: Worker) -> Step:
    r = state.redis
    assert w.intent is not None
    if r.intent != w.intent:
        return "finish: gone", _goes(state, me, Worker())
    stream = tuple(one for one in r.stream if one > w.intent.end)
    return "finish", _goes(state, me, Worker(), r._replace(stream=stream, committed=w.intent.number, intent=None))


def _offers_imported(state: State, me: int, w: Worker, rules: Rules) -> Step:
    """What an import that was cut off would have told latest."""
    if w.step == "ask":
        return "ask", _goes(state, me, w._replace(step="find", deleted=state.redis.deleted))
    if w.step == "find":
        imported = state.table.imported
        rows = (imported,) if any(imported in file for file in state.table.files) else ()
        return "find", _goes(state, me, w._replace(step="offer", rows=rows))
    return "offer", _offer(state, me, w, "finish", "ask", rules)


def _offer(state: State, me: int, w: Worker, then: str, refused: str, rules: Rules) -> State:
    """Latest is told what files hold, unless a deletion ended since they were looked for."""
    r = state.redis
    if r.deleted != w.deleted and "deleted" not in rules.without:
        return _goes(state, me, w._replace(step=refused))
    before = r.mark.before if r.mark is not None and "mark" not in rules.without else 0
    newest = max((one for one in w.rows if one >= before), default=0)
    return _goes(state, me, w._replace(step=then), r._replace(latest=max(r.latest, newest)))


# --- the eraser -----------------------------------------------------------------------------------------


def _eraser(state: State, me: int, w: Worker, rules: Rules) -> Step | None:
    r, t = state.redis, state.table
    match w.step:
        case "begin":
            if r.mark is None:
                return None
            step = "look" if r.intent is None or "settle" in rules.without else "settle"
            return "begin", _goes(state, me, Worker(step, mark=r.mark, intent=r.intent))
        case "settle":
            return None if r.intent == w.intent else ("settle", _goes(state, me, w._replace(step="look", intent=None)))
        case "look":
            assert w.mark is not None
            if any(one < w.mark.before for file in t.files for one in file):
                return "look", _goes(state, me, w._replace(step="commit", seen=t.day, files=t.files))
            return "look: nothing", _goes(state, me, w._replace(step="complete"))
        case "commit":
            assert w.mark is not None
            if t.day != w.seen and "day" not in rules.without:
                return "erase: refused", _goes(state, me, w._replace(step="look", files=(), seen=0))
            old = [file for file in w.files if any(one < w.mark.before for one in file)]
            new = [tuple(one for one in file if one >= w.mark.before) for file in old]
            kept = [file for file in t.files if file not in old]
            after = t._replace(day=t.day + 1, files=(*kept, *new))
            return "erase", _goes(state, me, w._replace(step="look", files=(), seen=0), table=after)
        case "complete":
            assert w.mark is not None
            if r.mark is None or (r.mark != w.mark and "again" not in rules.without):
                return "complete: not yet", _goes(state, me, Worker())
            ended = r._replace(mark=None, deleted=r.deleted + 1)
            before = r.mark.before
            return "complete", _goes(state, me, Worker(), ended)._replace(gone=before)
    raise AssertionError(w.step)


# --- beside them ----------------------------------------------------------------------------------------


def _importer(state: State, me: int, w: Worker, rules: Rules) -> Step | None:
    """Brings one record, and begins anew until the table says that it did."""
    r = state.redis
    match w.step:
        case "begin":
            if state.table.imported or r.next_id > MOST_IDS:
                return None
            after = r._replace(next_id=r.next_id + 1, token=r.next_id)
            return "allot", _goes(state, me, Worker("intend", rows=(r.next_id,), deleted=r.deleted), after)
        case "intend":
            return _import_intends(state, me, w)
        case "commit":
            return _import_commits(state, me, w)
        case "tell":
            return "tell", _offer(state, me, w, "finish", "finish", rules)
        case _:
            return _finish(state, me, w)


def _import_intends(state: State, me: int, w: Worker) -> Step | None:
    r = state.redis
    if r.token != w.rows[0]:
        return "intend: no token", _goes(state, me, Worker())
    if r.intent is not None:
        return None
    intent = Intent(r.committed + 1, 0, is_import=True)
    after = r._replace(intent=intent, token=0)
    return "import intends", _goes(state, me, w._replace(step="commit", intent=intent, seen=r.committed), after)


def _import_commits(state: State, me: int, w: Worker) -> Step:
    r, t = state.redis, state.table
    assert w.intent is not None
    if t.transaction != w.seen or t.imported:
        return "import: refused", _goes(state, me, Worker())
    files = (*t.files, w.rows)
    after = _goes(
        state,
        me,
        w._replace(step="tell"),
        table=t._replace(transaction=w.intent.number, files=files, imported=w.rows[0]),
    )
    before = max(state.gone, r.mark.before if r.mark else 0)
    return "import", after._replace(accepted=(*state.accepted, *(one for one in w.rows if one >= before)))


def _compactor(state: State, me: int, w: Worker, rules: Rules) -> Step | None:
    """Merges all files that it sees."""
    t = state.table
    if w.step == "begin":
        if len(_least(t)) < 2:
            return None
        return "merge", _goes(state, me, Worker("merge", seen=t.day, files=t.files))
    if t.day != w.seen and "merge" not in rules.without:
        return "merge: refused", _goes(state, me, Worker())
    kept = [file for file in t.files if file not in w.files]
    merged = tuple(sorted(one for file in w.files for one in file))
    return "merged", _goes(state, me, Worker(), table=t._replace(day=t.day + 1, files=(*kept, merged)))


def _finder(state: State, me: int, w: Worker, rules: Rules) -> Step | None:
    """Finds latest in the archive."""
    match w.step:
        case "begin":
            return "find: ask", _goes(state, me, Worker("table", deleted=state.redis.deleted))
        case "table":
            rows = tuple(sorted(one for file in state.table.files for one in file))
            return "find: table", _goes(state, me, w._replace(step="offer", rows=rows))
    return "find: offer", _offer(state, me, w, "begin", "begin", rules)


_WORK: dict[str, Callable[[State, int, Worker, Rules], Step | None]] = {
    "saver": _saver,
    "eraser": _eraser,
    "importer": _importer,
    "compactor": _compactor,
    "finder": _finder,
}


# --- exploring ------------------------------------------------------------------------------------------


def _moves(state: State, rules: Rules) -> Iterator[Move]:
    if state.appends < rules.appends:
        yield "device", "append", _append(state)
    if state.forgets < rules.forgets and state.redis.next_id > 1:
        yield "somebody", "forget", _forget(state, rules)
    for me, name in enumerate(rules.who):
        worker = state.workers[me]
        step = _WORK[name](state, me, worker, rules)
        if step is not None:
            yield name, *step
        if worker.step != "begin":
            yield name, "crash", _goes(state, me, Worker())


def _fault(state: State) -> str | None:
    rows = [one for file in state.table.files for one in file]
    if len(rows) != len(set(rows)):
        return "doubled"
    if not set(state.accepted) <= {*rows, *state.redis.stream}:
        return "lost"
    if any(one < state.gone for one in (*rows, *state.redis.stream)):
        return "stays"
    return "back in latest" if 0 < state.redis.latest < state.gone else None


def _is_at_rest(state: State) -> bool:
    r = state.redis
    return not r.stream and r.intent is None and r.mark is None and state.forgets > 0


def _canonical(state: State) -> State:
    """The order of files says nothing, nor does what a worker at its beginning held."""
    workers = tuple(Worker() if one.step == "begin" else one for one in state.workers)
    workers = tuple(one._replace(files=tuple(sorted(one.files))) for one in workers)
    return state._replace(table=state.table._replace(files=_least(state.table)), workers=workers)


def explore(
    *who: str,
    appends: int = 2,
    forgets: int = 1,
    without: frozenset[str] = frozenset(),
    stop_at_first_bad: bool = False,
) -> Result:
    """Try everything that saver, eraser and `who` beside them can do."""
    if unknown := (without - SWITCHES.keys()) | (set(who) - set(WORKERS)):
        raise ValueError(f"cannot explore without {', '.join(sorted(unknown))}: there is no such thing")
    rules = Rules(("saver", "eraser", *who), appends, forgets, without)
    start = State(Redis(), Table(), (Worker(),) * len(rules.who))
    model = Model(start, partial(_moves, rules=rules), _fault, _is_at_rest, _canonical)
    return exploring.explore(model, stop_at_first_bad, count_stuck=not stop_at_first_bad)
