"""Lists imports, and takes one back: `whimbrel import --list` and `--undo`."""

from __future__ import annotations

import argparse
import json
import sys

from tqdm import tqdm

from cli.admin.drain_recover import Box
from cli.command import OK
from cli.imports.journal import Journal, short
from telemetry.model.terminal_text import printable
from telemetry.model.utc import iso
from telemetry.system import clock
from telemetry.system.failpoints import step_reporter
from worker.import_undo import Undoer
from worker.saving.saver import Saver


def list_imports(journal: Journal, is_json: bool) -> int:
    """Print all imports, the oldest first."""
    for one in journal.entries():
        begun = iso(int(one.begun_s) * 1_000_000)
        if is_json:
            said = {"id": short(one.name), "name": one.name, "file": one.file, "begun": begun}
            print(json.dumps({**said, "records": one.records, "state": one.state}))
        else:
            records = "?" if one.records is None else one.records
            print(printable(f"{short(one.name)}  {begun}  {records} records  {one.state}  {one.file}"))
    return OK


def undo_import(args: argparse.Namespace, box: Box, saver: Saver, name: str) -> int:
    """Take an import back and say what went."""
    is_off = args.quiet or args.json or not sys.stderr.isatty()
    with tqdm(unit=" files", disable=is_off, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        undoer = Undoer(box.archive, box.shards, box.connection, saver, clock.now_ms, step_reporter("undo"), advance)
        done = undoer.undo(name)
    if args.json:
        print(json.dumps({"id": short(name), **done._asdict()}))
    elif not args.quiet:
        print(f"{done.records} records of import {short(name)} are gone, of {done.files} files; ", end="")
        print(f"latest of {done.devices} devices changed")
    return OK
