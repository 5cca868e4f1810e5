"""`whimbrel compact` and `whimbrel retain`: by hand what the worker does by itself."""

from __future__ import annotations

import argparse
import json

from tqdm import tqdm

from cli.command import OK, Command
from compactor.compaction import Compactor
from compactor.jobs import connection_of, limits_of
from compactor.plan import Rewrite
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination.forward_progress import held_by
from telemetry.model.errors import PlanOutdated
from telemetry.system import clock


def run_compact(args: argparse.Namespace, settings: Settings) -> int:
    """Compact the days that are due, or with `--dry-run` list them."""
    compactor = _compactor(settings, args.all)
    if args.dry_run:
        return _say(args, "to merge", [_described(rewrite) for rewrite in compactor.due()])
    done: list[Rewrite] = []
    with tqdm(total=len(compactor.due()), unit=" days", disable=True if args.json else None) as bar:
        while (rewrite := _compact(compactor)) is not None:
            done.append(rewrite)
            bar.update()
    return _say(args, "merged", [_described(rewrite) for rewrite in done])


def _compact(compactor: Compactor) -> Rewrite | None:
    while True:
        try:
            return compactor.compact()
        except PlanOutdated:  # the worker merges the same day: look again
            continue


def run_retain(args: argparse.Namespace, settings: Settings) -> int:
    """Delete the days beyond retention, or with `--dry-run` list them."""
    compactor = _compactor(settings, is_all=False)
    days = compactor.expired() if args.dry_run else compactor.retain()
    return _say(args, "to give up" if args.dry_run else "given up", [{"day": day.isoformat()} for day in days])


def _compactor(settings: Settings, is_all: bool) -> Compactor:
    archive = Archive(settings.archive_dir, held=held_by(settings))
    return Compactor(archive, lambda: connection_of(settings, "cli"), clock.now_us, limits_of(settings), is_all=is_all)


def _described(rewrite: Rewrite) -> dict[str, object]:
    return {
        "day": rewrite.day.isoformat(),
        "files": len(rewrite.files),
        "into": rewrite.pieces,
        "records": sum(file.rows or 0 for file in rewrite.files),
        "size_bytes": sum(file.size_bytes for file in rewrite.files),
    }


def _say(args: argparse.Namespace, what: str, found: list[dict[str, object]]) -> int:
    if args.json:
        print(json.dumps({"dry_run": args.dry_run, "days": found}))
        return OK
    for one in found:
        more = f": {one['files']} files into {one['into']}, {one['records']} records" if "files" in one else ""
        print(f"{one['day']}{more}")
    print(f"{what}: {len(found)} days" if found else "nothing is due")
    return OK


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only list the work")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _add_compact_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="every day, the open one too, without waiting for quiet")
    _add_arguments(parser)


COMPACT = Command(
    "Merge small files of the archive; the worker does it by itself.",
    _add_compact_arguments,
    run_compact,
    "archive",
    lambda args: "" if args.dry_run else "compact",
)
RETAIN = Command(
    "Give up days that archive.retention_* keep no longer.",
    _add_arguments,
    run_retain,
    "archive",
    lambda args: "" if args.dry_run else "retain",
)
