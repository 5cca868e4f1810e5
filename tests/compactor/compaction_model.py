"""Compaction, retention and sweep of `compactor/compaction.py` as a model, beside the saves that add the files.

Like `tests/worker/save_model.py`, which has Redis's side of a save, it tries everything that can happen in any
order. Here it is about files: which the table lists, which lie on the disk, and who still means to use one.

How the model stands to the real thing:

- One step is one thing that others see at once: a commit to the table, a file written, a file deleted, a look.
  Between two steps anything else may happen, so that a zombie, stopped past every lease and then running on,
  needs no step of its own: anybody may rest for as long as he likes. Only a query may not: it is ended by
  its time limit, which is below the sweep's grace (`_pass_time`).
- A crash makes one forget all it holds. What it wrote stays.
- There is one day, that may expire at any moment, and one shard. Another day's files are in other commits with
  other transactions, and nobody compares them with this one's.
- Of the day's transaction number only one thing ever matters: whether it is the one that a handle was opened on
  (`Compactor.is_fresh`). So it is not counted, and there are finitely many states.
- At most `MOST_LEFT` files that no table lists lie about at a time: who would leave one more waits for the sweep.
- A power cut gives back the table that was synced last. Files are synced before any commit names them, and Redis
  syncs each answer; a deleted file may stay deleted.
- A restore gives the archive back an older copy of itself, with the box stopped, as the operations page says.
- Left out: Redis put back to an older copy, of which save_model.py has the saves.

Each name in `SWITCHES` takes one thing out of the protocol, to show what it is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

from tests import exploring
from tests.exploring import Model, Result

SWITCHES = {
    "transaction": "the table refuses a compaction if the day's transaction moved since its handle was opened",
    "giving up": "so it does a retention, and a retention moves the day's transaction",
    "unique": "each attempt writes a file with a new random name, so that none is overwritten",
    "readable": "no guard: a merge needs every file of its plan",
    "there": "no guard: one sees before its commit that its own file is there still",
    "grace": "the sweep deletes only what it has known to be unlisted for some time",
    "limit": "a query is ended before that time is over",
    "fence": "before it counts a compaction's file as unlisted, the sweep moves the day's transaction",
    "early": "it does so when it first sees the file, not when it is about to delete it",
    "again": "after the fence the sweep looks at the table once more",
    "under way": "to the sweep, the files of a save whose intent stands are not unlisted",
    "intents first": "it reads the intents before the table",
    "ended": "the sweep does take a save's file once its intent is gone",
    "save lasts": "a save is synced before its records are trimmed from Redis",
    "swept lasts": "the table is synced before the sweep deletes what it doesn't list",
    "together": "the sweep deletes nothing while the table's last save is not the one that Redis knows",
}

MOST_LEFT = 2

Rows: TypeAlias = tuple[int, ...]


class File(NamedTuple):
    """A data file. `commit` is the save's that wrote it, 0 for a compaction's; `name` tells equal ones apart."""

    commit: int
    rows: Rows
    name: int


Files: TypeAlias = tuple[File, ...]

S = TypeVar("S")


class Intent(NamedTuple):
    commit: int
    rows: Rows


class Redis(NamedTuple):
    """The hot store: what waits, the last save that was finished, and the one under way."""

    waiting: Rows
    committed: int
    intent: Intent | None


class Table(NamedTuple):
    """The archive's table: the number of its last save, and its files."""

    saved: int
    files: Files


class Saver(NamedTuple):
    """Where a save is. `seen` is the table's last save when the handle was opened."""

    step: str = "look"
    intent: Intent | None = None
    file: File | None = None
    seen: int = 0


class Compactor(NamedTuple):
    """Where a compaction or retention is: the files of its plan, and the one that it made of them.

    `is_fresh` until another moves the day's transaction: from then on its handle is too old to commit.
    """

    step: str = "plan"
    files: Files = ()
    made: File | None = None
    is_fresh: bool = True


READ, WAITS, OLD = range(3)
"""Since when a file is unlisted: a query from before may still read it; since the look; for longer than the grace."""


class Sweep(NamedTuple):
    """Where the sweep is: how long it knows each unlisted file, and what it has found this time.

    `found` is what the table didn't list, from `delete` on what is to go.
    """

    step: str = "look"
    known: tuple[tuple[File, int], ...] = ()
    found: Files = ()
    under_way: int = 0


class Reader(NamedTuple):
    """A query, and the files of its snapshot, None between two queries."""

    files: Files | None = None
    is_broken: bool = False


class State(NamedTuple):
    """The whole box. `synced` is the table that a power cut leaves, `copy` the one that someone has put aside."""

    redis: Redis
    table: Table
    disk: Files
    savers: tuple[Saver, ...]
    compactors: tuple[Compactor, ...]
    sweep: Sweep
    reader: Reader | None
    acknowledged: int
    given_up: Rows
    is_expired: bool
    synced: Table | None
    cuts_left: int
    copy: Table | None
    restores_left: int
    is_restored: bool


class Rules(NamedTuple):
    """One exploration: how many records come in all, whether the day may expire, and which switches are off."""

    records: int
    expires: bool
    without: frozenset[str]


Move: TypeAlias = exploring.Move[State]
Step: TypeAlias = tuple[str, State]


# --- files and handles ----------------------------------------------------------------------------------


def _new_file(state: State, commit: int, rows: Rows, rules: Rules) -> File:
    """A file with a name that no other has; without `unique`, named by what it is for alone."""
    if "unique" in rules.without:
        return File(commit, rows, 0)
    used = {file.name for file in _referred(state) if file[:2] == (commit, rows)}
    return File(commit, rows, next(name for name in range(len(used) + 1) if name not in used))


def _referred(state: State) -> Iterator[File]:
    """Every file that is there or that anything in the state speaks of."""
    yield from state.disk
    for table in (state.table, state.synced, state.copy):
        yield from table.files if table is not None else ()
    for saver in state.savers:
        yield from (saver.file,) if saver.file is not None else ()
    for compactor in state.compactors:
        yield from compactor.files
        yield from (compactor.made,) if compactor.made is not None else ()
    yield from (file for file, _ in state.sweep.known)
    yield from state.sweep.found
    yield from (state.reader and state.reader.files) or ()


def _written(state: State, file: File, rules: Rules) -> State:
    """The file is on the disk. Without `unique`, one of the same name is overwritten, for the table too."""
    same = [old for old in state.disk if (old.commit, old.name) == (file.commit, file.name) and old != file]
    if "unique" not in rules.without or file.commit:
        return state._replace(disk=tuple(sorted({*state.disk, file})))
    files = tuple(sorted(file if old in same else old for old in state.table.files))
    disk = tuple(sorted({*state.disk, file} - {*same}))
    return state._replace(table=state.table._replace(files=files), disk=disk)


def _left(state: State) -> int:
    """How many files lie about that the table doesn't list."""
    return len({*state.disk} - {*state.table.files})


def _moved(state: State) -> State:
    """The day's transaction moves: every other handle that is open is too old now."""
    stale = tuple(one._replace(is_fresh=False) if one.step != "plan" else one for one in state.compactors)
    return state._replace(compactors=stale)


def _synced(state: State) -> State:
    return state._replace(synced=state.table) if state.synced is not None else state


def _put(many: tuple[S, ...], at: int, one: S) -> tuple[S, ...]:
    return (*many[:at], one, *many[at + 1 :])


# --- the save: as much of it as its files need ----------------------------------------------------------


def _save(state: State, me: int, rules: Rules) -> Step | None:
    saver = state.savers[me]
    return SAVE[saver.step](state, me, saver, rules)


def _saves(state: State, me: int, saver: Saver) -> State:
    return state._replace(savers=_put(state.savers, me, saver))


def _look(state: State, me: int, saver: Saver, rules: Rules) -> Step | None:
    """Find the intent, or make one of all that waits."""
    redis, intent = state.redis, state.redis.intent
    if intent is None:
        if not redis.waiting or state.table.saved != redis.committed:
            return None
        intent = Intent(redis.committed + 1, redis.waiting)
        state = state._replace(redis=redis._replace(intent=intent))
        return "save: intend", _saves(state, me, Saver("write", intent))
    if state.table.saved == intent.commit:
        return "save: found", _saves(state, me, Saver("last", intent))
    return "save: redo", _saves(state, me, Saver("write", intent))


def _write(state: State, me: int, saver: Saver, rules: Rules) -> Step | None:
    """Write the file, which no reader sees. A crash leaves it, and the intent."""
    assert saver.intent is not None
    if _left(state) > MOST_LEFT:
        return None
    file = _new_file(state, *saver.intent, rules)
    return "save: write", _saves(_written(state, file, rules), me, saver._replace(step="open", file=file))


def _open(state: State, me: int, saver: Saver, rules: Rules) -> Step:
    """Open the table. The handle knows the last save that it saw."""
    assert saver.intent is not None
    if state.table.saved == saver.intent.commit:
        return "save: done by another", _saves(state, me, Saver("last", saver.intent))
    if state.table.saved != saver.intent.commit - 1:
        return "save: stop", _saves(state, me, Saver())
    return "save: open", _saves(state, me, saver._replace(step="there", seen=state.table.saved))


def _there(state: State, me: int, saver: Saver, rules: Rules) -> Step:
    """See that the file is there."""
    if saver.file not in state.disk and "there" not in rules.without:
        return "save: gone", _saves(state, me, Saver())
    return "save: there", _saves(state, me, saver._replace(step="commit"))


def _commit(state: State, me: int, saver: Saver, rules: Rules) -> Step:
    """Add the file. A crash leaves the intent, and whoever finds it finds the commit."""
    assert saver.intent is not None
    assert saver.file is not None
    if state.table.saved != saver.seen:
        return "save: refused", _saves(state, me, Saver())
    table = Table(saver.intent.commit, tuple(sorted((*state.table.files, saver.file))))
    return "save: commit", _saves(state._replace(table=table), me, Saver("last", saver.intent))


def _last(state: State, me: int, saver: Saver, rules: Rules) -> Step:
    """Sync the table's log. A crash before it leaves what a power cut may take back."""
    lasting = state if "save lasts" in rules.without else _synced(state)
    return "save: last", _saves(lasting, me, saver._replace(step="finish"))


def _finish(state: State, me: int, saver: Saver, rules: Rules) -> Step:
    """Trim what was saved; nothing if another did."""
    redis, intent = state.redis, saver.intent
    assert intent is not None
    if redis.intent != intent:
        return "save: finished by another", _saves(state, me, Saver())
    waiting = tuple(row for row in redis.waiting if row not in intent.rows)
    return "save: finish", _saves(state._replace(redis=Redis(waiting, intent.commit, None)), me, Saver())


SAVE: dict[str, Callable[[State, int, Saver, Rules], Step | None]] = {
    "look": _look,
    "write": _write,
    "open": _open,
    "there": _there,
    "commit": _commit,
    "last": _last,
    "finish": _finish,
}


# --- compaction and retention ---------------------------------------------------------------------------


def _compacts(state: State, me: int, compactor: Compactor) -> State:
    return state._replace(compactors=_put(state.compactors, me, compactor))


def _plan(state: State, me: int, compactor: Compactor, rules: Rules) -> Iterator[Step]:
    """Open the table, and choose: to merge all files, or to give the day up if it has expired."""
    files = state.table.files
    if len(files) > 1:
        yield "plan a merge", _compacts(state, me, Compactor("merge", files))
    if files and state.is_expired:
        yield "plan to give up", _compacts(state, me, Compactor("give up", files))


def _merge(state: State, me: int, compactor: Compactor, rules: Rules) -> Iterator[Step]:
    """Write a file with all the rows, which no reader sees. A crash leaves it."""
    if not {*compactor.files} <= {*state.disk}:
        if "readable" not in rules.without:
            yield "merge: cannot read", _compacts(state, me, Compactor())
            return
        compactor = compactor._replace(files=tuple(file for file in compactor.files if file in state.disk))
    if _left(state) < MOST_LEFT:
        rows = tuple(sorted(row for file in compactor.files for row in file.rows))
        made = _new_file(state, 0, rows, rules)
        yield "merge", _compacts(_written(state, made, rules), me, compactor._replace(step="there", made=made))


def _see(state: State, me: int, compactor: Compactor, rules: Rules) -> Iterator[Step]:
    """See that the file is there."""
    if compactor.made not in state.disk and "there" not in rules.without:
        yield "replace: gone", _compacts(state, me, Compactor())
    else:
        yield "replace: there", _compacts(state, me, compactor._replace(step="replace"))


def _replace(state: State, me: int, compactor: Compactor, rules: Rules) -> Iterator[Step]:
    """Put the file in the place of those it was made of, in one commit."""
    assert compactor.made is not None
    if not compactor.is_fresh and "transaction" not in rules.without:
        yield "replace: refused", _compacts(state, me, Compactor())
        return
    kept = {*state.table.files} - {*compactor.files}
    table = state.table._replace(files=tuple(sorted({*kept, compactor.made})))
    after = _moved(_compacts(state, me, Compactor()))._replace(table=table)
    yield "replace", _compacts(after, me, Compactor("last") if state.synced is not None else Compactor())


def _give_up(state: State, me: int, compactor: Compactor, rules: Rules) -> Iterator[Step]:
    """Take the files of the plan out of the table, and their rows with them; what came since stays."""
    checked = "giving up" not in rules.without
    if checked and not compactor.is_fresh:
        yield "give up: refused", _compacts(state, me, Compactor())
        return
    gone = {*state.table.files} & {*compactor.files}
    rows = (row for file in gone for row in file.rows)
    table = state.table._replace(files=tuple(file for file in state.table.files if file not in gone))
    after = _compacts(state, me, Compactor("last") if state.synced is not None else Compactor())
    after = after._replace(table=table, given_up=tuple(sorted({*state.given_up, *rows})))
    yield "give up", _moved(after) if checked else after


def _lasting(state: State, me: int, compactor: Compactor, rules: Rules) -> Iterator[Step]:
    """Sync the table's log."""
    yield "compactor: last", _compacts(_synced(state), me, Compactor())


COMPACT: dict[str, Callable[[State, int, Compactor, Rules], Iterator[Step]]] = {
    "plan": _plan,
    "merge": _merge,
    "there": _see,
    "replace": _replace,
    "give up": _give_up,
    "last": _lasting,
}


# --- the sweep ------------------------------------------------------------------------------------------


def _sweep(state: State, rules: Rules) -> Step | None:
    return SWEEP[state.sweep.step](state, state.sweep, rules)


def _find(state: State, sweep: Sweep, rules: Rules) -> Step | None:
    """See which files the table doesn't list. There is more to do if any is new, or known for long enough."""
    since = dict(sweep.known)
    found = tuple(file for file in state.disk if file not in state.table.files and _is_swept(file, rules))
    known = tuple((file, age) for file, age in sweep.known if file in found)
    new = [file for file in found if file not in since]
    old = [file for file, age in known if age == OLD]
    if "early" in rules.without:
        known, new = tuple((file, since.get(file, _new_age(state, rules))) for file in found), old
    if not new and not old:
        return ("sweep: look", state._replace(sweep=Sweep(known=known))) if known != sweep.known else None
    is_fenced = any(not file.commit for file in new) and "fence" not in rules.without
    return "sweep: find", state._replace(sweep=Sweep("fence" if is_fenced else _behind_fence(rules), known, found))


def _new_age(state: State, rules: Rules) -> int:
    """What is known of a file that is seen for the first time."""
    if "grace" in rules.without:
        return OLD
    is_read = state.reader is not None and state.reader.files is not None
    return READ if is_read and "limit" not in rules.without else WAITS


def _is_swept(file: File, rules: Rules) -> bool:
    return file.commit == 0 or "ended" not in rules.without


def _behind_fence(rules: Rules) -> str:
    return "list" if "intents first" in rules.without else "intents"


def _fence(state: State, sweep: Sweep, rules: Rules) -> Step:
    """Move the day's transaction, so that no compaction that was planned before can commit any more."""
    after = _moved(state)._replace(sweep=sweep._replace(step=_behind_fence(rules)))
    return "sweep: fence", _synced(after)


def _intents(state: State, sweep: Sweep, rules: Rules) -> Step:
    """Ask Redis which save is under way, and whether table and Redis belong together."""
    if _is_apart(state) and "together" not in rules.without:
        return "sweep: apart", state._replace(sweep=Sweep(known=sweep.known))
    intent = state.redis.intent
    under_way = intent.commit if intent is not None and "under way" not in rules.without else 0
    step = "note" if "intents first" in rules.without else "list"
    return "sweep: intents", state._replace(sweep=sweep._replace(step=step, under_way=under_way))


def _is_apart(state: State) -> bool:
    intent = state.redis.intent
    return state.table.saved not in (state.redis.committed, intent.commit if intent is not None else None)


def _list(state: State, sweep: Sweep, rules: Rules) -> Step:
    """Look at the table again."""
    found = sweep.found
    if "again" not in rules.without:
        found = tuple(file for file in state.disk if file not in state.table.files and file in found)
    listed = state._replace(sweep=sweep._replace(found=found))
    if "intents first" in rules.without:
        return "sweep: list", listed._replace(sweep=listed.sweep._replace(step="intents"))
    return "sweep: list", _noted(listed, rules)


def _note(state: State, sweep: Sweep, rules: Rules) -> Step:
    """Without `intents first`, what was found before is noted only now."""
    return "sweep: note", _noted(state, rules)


def _noted(state: State, rules: Rules) -> State:
    """What is unlisted now stays so. Note it; what has been known for longer than the grace is to go."""
    sweep, since = state.sweep, dict(state.sweep.known)
    found = [file for file in sweep.found if not file.commit or file.commit != sweep.under_way]
    known = tuple((file, since.get(file, _new_age(state, rules))) for file in found)
    old = tuple(file for file, age in known if age == OLD)
    return state._replace(sweep=Sweep("last" if old else "look", known, old))


def _sync(state: State, sweep: Sweep, rules: Rules) -> Step:
    """Sync the table's log."""
    after = state if "swept lasts" in rules.without else _synced(state)
    return "sweep: last", after._replace(sweep=sweep._replace(step="delete"))


def _delete(state: State, sweep: Sweep, rules: Rules) -> Step:
    """Delete one file, and go on with the next."""
    if not sweep.found:
        return "sweep: done", state._replace(sweep=Sweep(known=sweep.known))
    file, *rest = sweep.found
    known = tuple(one for one in sweep.known if one[0] != file)
    disk = tuple(one for one in state.disk if one != file)
    return "sweep: delete", state._replace(disk=disk, sweep=Sweep("delete", known, tuple(rest)))


SWEEP: dict[str, Callable[[State, Sweep, Rules], Step | None]] = {
    "look": _find,
    "fence": _fence,
    "intents": _intents,
    "list": _list,
    "note": _note,
    "last": _sync,
    "delete": _delete,
}


# --- the reader, time, senders and the operator ---------------------------------------------------------


def _query(state: State) -> Step | None:
    """Take a snapshot; then read its files. One that is gone by then breaks the query, whenever it reads it."""
    reader = state.reader
    if reader is None:
        return None
    if reader.files is None:
        return "ask", state._replace(reader=Reader(state.table.files))
    is_broken = not {*reader.files} <= {*state.disk}
    known = tuple((file, max(age, WAITS)) for file, age in state.sweep.known)
    return "read", state._replace(reader=Reader(None, is_broken), sweep=state.sweep._replace(known=known))


def _pass_time(state: State) -> Step | None:
    """The grace of all that the sweep knows is over, but for what a query from before may still read."""
    known = tuple((file, OLD if age == WAITS else age) for file, age in state.sweep.known)
    return (
        ("time passes", state._replace(sweep=state.sweep._replace(known=known))) if known != state.sweep.known else None
    )


def _stopped(state: State) -> State:
    """All programs are stopped; they begin anew."""
    return state._replace(
        savers=tuple(Saver() for _ in state.savers),
        compactors=tuple(Compactor() for _ in state.compactors),
        sweep=Sweep(),
        reader=state.reader and Reader(),
    )


def _happen(state: State, rules: Rules) -> Iterator[Move]:
    """What is nobody's step."""
    if state.acknowledged < rules.records:
        number = state.acknowledged + 1
        redis = state.redis._replace(waiting=(*state.redis.waiting, number))
        yield "device", "append", state._replace(redis=redis, acknowledged=number)
    if rules.expires and not state.is_expired:
        yield "clock", "the day expires", state._replace(is_expired=True)
    if (passed := _pass_time(state)) is not None:
        yield "clock", *passed
    if state.cuts_left and state.synced is not None:
        cut = _stopped(state)._replace(table=state.synced, cuts_left=state.cuts_left - 1)
        if _left(cut) <= MOST_LEFT:
            yield "power", "cut", cut
    if state.restores_left and state.copy is None:
        yield "operator", "copy", state._replace(copy=state.table)
    elif state.restores_left and state.copy is not None:
        yield "operator", "restore", _restored(state, state.copy)


def _restored(state: State, copy: Table) -> State:
    disk = tuple(sorted({*state.disk, *copy.files}))
    return _stopped(state)._replace(table=copy, disk=disk, copy=None, restores_left=0, is_restored=True)


def _work(state: State, rules: Rules) -> Iterator[Move]:
    """The steps and crashes of all programs."""
    for me, saver in enumerate(state.savers):
        if (saved := _save(state, me, rules)) is not None:
            yield f"saver {me}", *saved
        if saver.step != "look" and (saver.file is None or _left(state) <= MOST_LEFT):
            yield f"saver {me}", f"crash at {saver.step}", _saves(state, me, Saver())
    for me, one in enumerate(state.compactors):
        for step in COMPACT[one.step](state, me, one, rules):
            yield f"compactor {me}", *step
        if one.step != "plan":
            yield f"compactor {me}", f"crash at {one.step}", _compacts(state, me, Compactor())
    if (swept := _sweep(state, rules)) is not None:
        yield "sweep", *swept
    if state.sweep != Sweep():
        yield "sweep", f"crash at sweep {state.sweep.step}", state._replace(sweep=Sweep())
    if (asked := _query(state)) is not None:
        yield "reader", *asked


def _moves(state: State, rules: Rules) -> Iterator[Move]:
    yield from _happen(state, rules)
    yield from _work(state, rules)


# --- what must never be ---------------------------------------------------------------------------------


def _listed(table: Table) -> list[int]:
    return [row for file in table.files for row in file.rows]


def fault(state: State) -> str | None:
    """What is wrong with a state, in a word or two; None if nothing is.

    Beside an older archive that was restored, records are missing from the table: then it is enough that they are
    on the disk still. And it may have back what was given up since.
    """
    if not {*state.table.files} <= {*state.disk}:
        return "a listed file is deleted"
    if state.reader is not None and state.reader.is_broken:
        return "a query finds a file deleted"
    listed = _listed(state.table)
    if len(listed) != len(set(listed)):
        return "doubled"
    if {*listed} & {*state.given_up} and not state.is_restored:
        return "given up and back"
    held = {*listed, *state.redis.waiting, *state.given_up}
    if state.is_restored and _is_apart(state):
        held |= {row for file in state.disk for row in file.rows}
    if not held >= {*range(1, state.acknowledged + 1)}:
        return "lost"
    return None


def _is_at_rest(state: State, rules: Rules) -> bool:
    """All is saved, nothing is due, nobody is busy, and the table's files are the only ones."""
    return (
        state.acknowledged == rules.records
        and not state.redis.waiting
        and state.redis.intent is None
        and (len(state.table.files) < 2 or not state.compactors)
        and {*state.disk} == {*state.table.files}
        and {*state.savers} <= {Saver()}
        and {*state.compactors} <= {Compactor()}
        and state.sweep == Sweep()
    )


def canonical(state: State) -> State:
    """One state for all that differ only in which saver or compactor is which."""
    return state._replace(savers=_ordered(state.savers), compactors=_ordered(state.compactors))


def _ordered(many: tuple[S, ...]) -> tuple[S, ...]:
    return tuple(sorted(many, key=repr)) if len(many) > 1 and many[0] != many[1] else many


# --- exploring ------------------------------------------------------------------------------------------


class Box(NamedTuple):
    """Who takes part in an exploration. The table begins with `files` files of one record each."""

    files: int = 2
    appends: int = 0
    savers: int = 0
    compactors: int = 0
    reader: bool = False
    expires: bool = False
    cuts: int = 0
    restore: bool = False


def _start(box: Box) -> State:
    files = tuple(File(number, (number,), 0) for number in range(1, box.files + 1))
    table = Table(box.files, files)
    return State(
        redis=Redis((), box.files, None),
        table=table,
        disk=files,
        savers=(Saver(),) * box.savers,
        compactors=(Compactor(),) * box.compactors,
        sweep=Sweep(),
        reader=Reader() if box.reader else None,
        acknowledged=box.files,
        given_up=(),
        is_expired=False,
        synced=table if box.cuts else None,
        cuts_left=box.cuts,
        copy=None,
        restores_left=int(box.restore),
        is_restored=False,
    )


def explore(
    box: Box, without: frozenset[str] = frozenset(), stop_at_first_bad: bool = False, count_stuck: bool = False
) -> Result:
    """Try everything. `without` names `SWITCHES`."""
    if unknown := without - SWITCHES.keys():
        raise ValueError(f"cannot explore without {sorted(unknown)}: choose from {list(SWITCHES)}")
    rules = Rules(box.files + box.appends, box.expires, without)
    model = Model(
        start=_start(box),
        moves=partial(_moves, rules=rules),
        fault=fault,
        is_at_rest=partial(_is_at_rest, rules=rules),
        canonical=canonical,
    )
    return exploring.explore(model, stop_at_first_bad, count_stuck)
