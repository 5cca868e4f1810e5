"""Mutated requests, frames and queries against a whole box with keys, while honest senders are timed.

    python -m benchmarks.attack [--seconds 60] [--seed 1] [--json FILE] [--log FILE]

Exit status 1 if an honest client waited longer than 5 s (20 s for records), an acknowledged record is lost, an
input caused a status of 500, a program ended or took more memory than its unit allows, or a traceback is in the log.
The same seed sends the same messages, in an order that depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.attack.run import Run


def main() -> int:
    """Run and print. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="duration of the attack (60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all mutations (1)")
    parser.add_argument("--json", metavar="FILE", help="write the report there, too")
    parser.add_argument("--log", metavar="FILE", help="write the box's log there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        run = Run(Path(folder), args.seed, args.seconds)
        try:
            found = run.carry_out()
        finally:
            if args.log:
                Path(args.log).write_text("".join(run.box.output), encoding="utf-8")
    text = json.dumps(found, indent=1)
    print(text)
    if args.json:
        Path(args.json).write_text(text, encoding="utf-8")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
