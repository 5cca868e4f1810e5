"""All benchmarks that have an aim, one after the other: each figure when it is known, and the same as one file.

    python -m benchmarks [--quick] [--only PART …] [--json FILE]

What each figure is stands in docs/performance.md, and on top of each part's file. With `--quick` all is shorter and
smaller, also fleets and archives: the figures only show that everything runs. The exit status is 1 if a part failed.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from benchmarks import (
    append,
    cores,
    days,
    exports,
    idle,
    imports,
    ingest,
    latest,
    merge,
    past,
    report,
    scale,
    single,
    slow_disk,
    sustained,
)
from benchmarks.report import Finding, Measure, Missing


class Part(NamedTuple):
    """What to run, and the ids of the figures with an aim, or that stand for all of it."""

    run: Measure
    ids: tuple[str, ...]


PARTS = {
    "ingest": Part(ingest.run, (*ingest.KINDS, "cpu_json")),
    "append": Part(append.run, ("append_ratio",)),
    "single": Part(single.run, ("single_http", "single_tcp")),
    "latest": Part(latest.run, ("latest_idle", "latest_busy")),
    "days": Part(days.run, ("day_10m", "day_100m")),
    "past": Part(past.run, ("past_fleet", "past_vanished")),
    "exports": Part(exports.run, ("fleet_hour", "export_parquet", "export_csv")),
    "merge": Part(merge.run, ("bytes", "compact")),
    "imports": Part(imports.run, tuple(f"import_{kind}" for kind in imports.KINDS)),
    "idle": Part(idle.run, ("idle_memory",)),
    "scale": Part(scale.run, ("scale_devices", "scale_days")),
    "cores": Part(cores.run, ("two_cores",)),
    "slow_disk": Part(slow_disk.run, ("slow_disk",)),
    "sustained": Part(sustained.run, ("sustained",)),
}


def run(part: Part, quick: bool) -> tuple[list[Finding], bool]:
    """What a part found, and whether it came to its end; what failed is not measured."""
    found: list[Finding] = []
    try:
        for finding in part.run(quick):
            print(finding, flush=True)
            found.append(finding)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        known = {finding.id for finding in found}
        missing = [Missing(name, why) for name in part.ids if name not in known]
        return [*found, *report.told(missing)], False
    return found, True


def main() -> int:
    """Run and print. Returns the exit status."""
    parser = report.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="all of it in a few minutes, on a smaller scale")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    args = parser.parse_args()
    report.clean_up_when_ended()
    findings: list[Finding] = []
    is_whole = True
    for name in args.only:
        found, is_fine = run(PARTS[name], args.quick)
        findings += found
        is_whole = is_whole and is_fine
        report.write(findings, args.json, quick=args.quick)
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
