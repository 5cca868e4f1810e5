"""Everything is killed and stopped while senders send and readers page; then every record is accounted for.

python -m benchmarks.crash_ledger [--seconds 180] [--seed 1] [--shards 1] [--json FILE] [--log FILE]

Exit status 1 if an acknowledged record is lost, any is doubled, or anything else was not as it should be.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.crash_ledger.run import SETTINGS, Run
from benchmarks.crash_ledger.schedule import POISON, TIDY, schedule
from tests.box import PROJECT, Box

WRONG = ("lost", "doubled", "anomalies")


def show(found: dict[str, Any]) -> None:
    """Print the summary for people."""
    for name, value in found.items():
        if isinstance(value, dict):
            print(name)
            for key, count in value.items():
                print(f"  {key:<22} {count:6}")
        elif name != "offenders":
            print(f"{name:<24} {value}")
    for offender in found["offenders"]:
        print(f"! {offender}")


def main() -> int:
    """Run and print. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180, help="how long faults come")
    parser.add_argument("--seed", type=int, default=1, help="the same seed and seconds: the same faults")
    parser.add_argument("--shards", type=int, default=1, help="parts that devices are spread over")
    parser.add_argument("--json", metavar="FILE", help="write the summary there, too")
    parser.add_argument("--log", metavar="FILE", help="write there what the box said")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for fault in schedule(args.seed, args.seconds):
        if fault.action not in (TIDY, POISON):
            print(fault)
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
        settings = SETTINGS | {"redis__shards": str(args.shards)}
        run = Run(Box(Path(folder), (), PROJECT, **settings), Path(folder), args.seed, args.seconds)
        try:
            found = run.carry_out()
        finally:
            if args.log:
                second = Path(folder) / "second-worker.log"
                said = second.read_text(errors="replace") if second.exists() else ""
                Path(args.log).write_text("".join(run.box.output) + said, encoding="utf-8")
    show(found)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 1 if any(found[name] for name in WRONG) else 0


if __name__ == "__main__":
    sys.exit(main())
