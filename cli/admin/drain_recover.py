"""`whimbrel drain` and `whimbrel recover`: saving without RQ, and mending what stopped it."""

from __future__ import annotations

import argparse
import json
import sys
import time

import duckdb
import redis
from tqdm import tqdm

from cli.command import FAILED, OK, Command
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination.forward_progress import held_by
from telemetry.hot_store.client import check_server, connect
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import IntentChanged
from telemetry.startup.store_setup import apart, set_up
from telemetry.system import clock
from worker.recovery import recover
from worker.saving.save_budget import Bounds
from worker.saving.saver import Saver

EXPLANATION = """\
Redis and the archive don't belong together: one of them was restored, emptied or swapped, and saving has
stopped, so that nothing is lost or doubled. `whimbrel recover --yes` drops from Redis what the archive has
already (same id, same content), gives the rest new ids above the archive's, and lets saving go on. Make a
copy of the data folder first if you are not sure which of the two is the right one."""


class Box:
    """Redis, archive and shards of a box, as the commands need them."""

    def __init__(self, settings: Settings) -> None:
        self.client: redis.Redis = connect(settings)
        check_server(self.client, settings.redis.durability)
        self.archive = Archive(settings.archive_dir, held=held_by(settings))
        self.shards: list[Shard] = set_up(self.client, self.archive, settings.redis.shards)
        self.connection: duckdb.DuckDBPyConnection = open_duckdb(settings.data_dir / "tmp" / "cli")


def run_drain(args: argparse.Namespace, settings: Settings) -> int:
    """Save all that waits now."""
    box = Box(settings)
    p = settings.persist
    saver = Saver(box.archive, box.connection, clock.now_ms, Bounds.of(p), p.quarantine_max_bytes)
    waiting = sum(shard.unsaved() for shard in box.shards)
    saved = 0
    with tqdm(total=waiting, unit=" records", disable=None if not args.json else True) as bar:
        for shard in box.shards:
            until_ms = max(clock.now_ms(), shard.newest_waiting_ms())
            while _waits(shard, until_ms) and (taken := _save(saver, shard)):
                saved += taken
                bar.update(taken)
    print(json.dumps({"saved": saved}) if args.json else f"saved {saved} records")
    return OK


def _waits(shard: Shard, until_ms: int) -> bool:
    """Whether a save is running or records up to that moment are unsaved; later records never stop arriving."""
    oldest_ms = shard.oldest_unsaved_ms()
    return shard.state().intent is not None or (oldest_ms is not None and oldest_ms <= until_ms)


def _save(saver: Saver, shard: Shard) -> int:
    """Returns 0 if nothing is left."""
    while True:
        try:
            return saver.save(shard)
        except IntentChanged:  # the worker is saving the same shard: look again
            time.sleep(0.05)


def run_recover(args: argparse.Namespace, settings: Settings) -> int:
    """Report whether Redis and the archive match, and with `--yes` repair them."""
    box = Box(settings)
    parted = [shard for shard in box.shards if apart(shard, box.archive)]
    if not parted:
        print(json.dumps({"apart": [], "recovered": []}) if args.json else "Redis and the archive belong together.")
        return OK
    if not args.yes:
        print(EXPLANATION, file=sys.stderr)
        if args.json:
            print(json.dumps({"apart": [shard.shard for shard in parted], "recovered": []}))
        return FAILED
    done = [recover(shard, box.archive, box.connection, clock.now_ms()) for shard in parted]
    if args.json:
        print(json.dumps({"apart": [one.shard for one in done], "recovered": [one._asdict() for one in done]}))
    else:
        for one in done:
            print(f"shard {one.shard}: dropped {one.dropped} records that the archive has, kept {one.kept}")
    return OK


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")


def _add_recover_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="repair; without it, only report the fault")
    _add_json(parser)


DRAIN = Command(
    "Save all records that wait in Redis now, without RQ.", _add_json, run_drain, "archive", lambda _: "drain"
)
RECOVER = Command(
    "Mend a box whose Redis and archive don't belong together.",
    _add_recover_arguments,
    run_recover,
    "archive",
    lambda args: "recover" if args.yes else "",
)
