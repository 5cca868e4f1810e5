"""A backup beside saves as a model: every order of its steps and theirs (cli/backup/consistent_point.py).

The box is that of save_model.py: two workers that may die at any step, two devices. Beside it a backup takes five
steps, between any two of which anything may happen:

    begin     note the table's version and what was acknowledged; it keeps every version from here on
    before    ask which commit numbers Redis knows
    fork      Redis is copied
    after     ask again
    choose    the newest version whose number was known before and after, or begin anew

Then, at any time, a box starts with nothing but the copy and that version, and goes on: all that was acknowledged
before the backup began must be in it, nothing may be doubled, then or later, and the two must belong together.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

from tests import exploring
from tests.exploring import Model, Result
from tests.worker import save_model
from tests.worker.save_model import Commit, Redis, Rules, State, Table, Worker

SWITCHES = {
    "before": "a number counts only if Redis knew it before the fork, too",
    "after": "and after it, too",
    "fit": "the version is one with such a number, not just the newest",
    "keep": "older versions than the newest may be chosen, too",
    "trimmed": "of a save whose trim has begun, the number before it no longer counts",
    "order": "Redis is copied before the version is chosen, not the version that was there at the beginning",
}
NEEDED = SWITCHES.keys() - {"keep"}
"""Without `keep` nothing is wrong: more tries are needed."""

Numbers: TypeAlias = tuple[Commit, ...]


class Backup(NamedTuple):
    """How far it is; what it knows of the box as it began, before the fork and after it."""

    step: str = "begin"
    promised: tuple[int, ...] = ()
    versions: tuple[Table, ...] = ()
    known: Numbers = ()
    copy: Redis | None = None
    chosen: Table | None = None


class Both(NamedTuple):
    """The box and its backup. `fault` is what was wrong with a backup as a box began with it."""

    box: State
    backup: Backup | None
    fault: str | None = None


Move: TypeAlias = exploring.Move[Both]


def numbers(redis: Redis, rules: Rules) -> Numbers:
    """The commit numbers with which a table may end that belongs to this Redis."""
    if redis.intent is None:
        return (redis.committed,)
    if redis.finishing and "trimmed" not in rules.without:
        return (redis.intent.number,)
    return (redis.committed, redis.intent.number)


def _step(both: Both, backup: Backup, rules: Rules) -> Backup | None:
    """The backup's next step; None if it has none before a restore."""
    redis = both.box.redis
    if backup.step == "begin":
        return Backup("before", both.box.acknowledged, (both.box.table,))
    if backup.step == "before":
        return backup._replace(step="fork", known=numbers(redis, rules))
    if backup.step == "fork":
        return backup._replace(step="after", copy=redis)
    if backup.step == "after":
        return backup._replace(step="choose", known=_common(backup.known, numbers(redis, rules), rules))
    return _choose(backup, rules) if backup.step == "choose" else None


def _common(before: Numbers, after: Numbers, rules: Rules) -> Numbers:
    if "before" in rules.without:
        return after
    return before if "after" in rules.without else tuple(number for number in before if number in after)


def _choose(backup: Backup, rules: Rules) -> Backup:
    versions = backup.versions[::-1]
    if "order" in rules.without:
        return backup._replace(step="restore", chosen=versions[-1])
    if "fit" in rules.without:
        return backup._replace(step="restore", chosen=versions[0])
    candidates = versions[:1] if "keep" in rules.without else versions
    fits = [table for table in candidates if table.transaction in backup.known]
    return backup._replace(step="restore", chosen=fits[0]) if fits else Backup()


def _restored(both: Both, backup: Backup, rules: Rules) -> Both:
    """A box that begins with the copy and the chosen version; what only the old box had is excused."""
    copy, table = backup.copy, backup.chosen
    assert copy is not None
    assert table is not None
    held = [{*save_model._saved(table, device), *copy.streams[device]} for device in save_model.DEVICES]
    lost = any(not set(range(1, count + 1)) <= has for count, has in zip(backup.promised, held, strict=True))
    apart = table.transaction not in numbers(copy, rules)
    excused = tuple(
        tuple(number for number in range(1, count + 1) if number not in has)
        for count, has in zip(both.box.acknowledged, held, strict=True)
    )
    box = both.box._replace(redis=copy, table=table, workers=(Worker(), Worker()), excused=excused)
    return Both(box, None, "lost by the backup" if lost else "apart" if apart else None)


def _moves(both: Both, rules: Rules) -> Iterator[Move]:
    for who, what, box in (*save_model._send(both.box, rules), *save_model._work(both.box, rules)):
        yield who, what, both._replace(box=box, backup=_noticed(both.backup, box.table))
    if both.backup is None:
        return
    if both.backup.step == "restore":
        yield "operator", "restore", _restored(both, both.backup, rules)
    elif (after := _step(both, both.backup, rules)) is not None:
        what = "choose: none" if both.backup.step == "choose" and after.step == "begin" else both.backup.step
        yield "backup", what, both._replace(backup=after)


def _noticed(backup: Backup | None, table: Table) -> Backup | None:
    """The table keeps each version that came since the backup began, until one is chosen."""
    if backup is None or backup.step in ("begin", "restore") or backup.versions[-1] == table:
        return backup
    return backup._replace(versions=(*backup.versions, table))


def _canonical(both: Both) -> Both:
    return both._replace(box=save_model._swapped(both.box)) if save_model._in_wrong_order(both.box) else both


def explore(appends: tuple[int, int], without: frozenset[str] = frozenset(), stop_at_first_bad: bool = False) -> Result:
    """Try everything. `appends` says how many records each device sends; `without` names `SWITCHES`."""
    rules = Rules(appends, without)
    model = Model(
        start=Both(save_model._empty_box(restore=False, reader=False), Backup()),
        moves=partial(_moves, rules=rules),
        fault=lambda both: both.fault or save_model.fault(both.box),
        is_at_rest=lambda both: both.backup is None and save_model._at_rest(both.box, rules),
        canonical=_canonical,
    )
    return exploring.explore(model, stop_at_first_bad)
