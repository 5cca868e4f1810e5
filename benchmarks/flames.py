"""Where programs spend their time under load: a flame graph each, drawn by py-spy.

    python -m benchmarks.flames [--seconds 20] [--out docs/images]

Needs py-spy (`pip install py-spy`) and the right to look into processes: root, or `kernel.yama.ptrace_scope = 0`.
Each program is looked at 200 times a second while it does one thing; the width of a bar is the share of the looks that
found the program there. What C does (msgspec, DuckDB, Arrow) counts for the line that calls it.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, repeat
from pathlib import Path
from random import Random

import psutil

from benchmarks import answers, archives, days, flame_svg, latest, messages
from benchmarks.boxes import archive_of, box, saved, wait_merged, wait_saved
from benchmarks.cpu import program
from benchmarks.ingest import CONNECTIONS, FRAME_WINDOW, warm_up
from benchmarks.sending import Connection, Message, send
from tests.box import Box

LOOKS_PER_S = 200
RECORDS_PER_S, RECORDS = 60_000, 400_000
"""What is sent a second, less than a box takes, and how many different records."""

DAYS = 3

WAITS = re.compile(r"^(\S+\.)?(wait|_worker|select|can_read|_socket_can_read|read_from_socket|recv|Runner\.run) ")
"""Functions that wait: a thread in which one of these is the innermost does nothing."""

OUTER = re.compile(
    r"^(_bootstrap|_bootstrap_inner|Thread\.\S+|<module>) "
    r"|\((<frozen runpy>|.*supervisor/\w+\.py|.*cli/services/fork_server\.py):"
)
"""What stands around each program and thread, and says nothing: who started it."""

_FILE = re.compile(r"\((?:.*?/)??((?:[\w-]+/)?[\w.-]+):\d+\)$")


def process_of(box: Box, name: str) -> int:
    """The process of a program. Raises `StopIteration` if there is none."""
    found = psutil.Process(box.pid).children(recursive=True)
    return next(one.pid for one in found if program(one.cmdline()) == name)


@contextmanager
def drawn(box: Box, name: str, title: str, file: Path, is_loop: bool = False) -> Iterator[None]:
    """Look at a program while something is done. Raises `RuntimeError` with what py-spy says if it may not.

    Of a loop only what holds the interpreter's lock is seen: else its waiting would look like work.
    """
    with tempfile.NamedTemporaryFile(suffix=".txt") as raw:
        command = ["py-spy", "record", "--pid", str(process_of(box, name)), "--rate", str(LOOKS_PER_S), "--function"]
        command += ["--duration", "unlimited", "--format", "raw", "--output", raw.name, *["--gil"] * is_loop]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as looking:
            try:
                yield
            finally:
                looking.send_signal(signal.SIGINT)
                said = looking.communicate()[0]
        if looking.returncode:
            raise RuntimeError(said)
        file.write_text(flame_svg.svg(stacks(raw.read().decode(), is_loop), title), encoding="utf-8")
    print(f"{file}: {title}", flush=True)


def stacks(raw: str, is_loop: bool = False) -> Counter[tuple[str, ...]]:
    """Stacks of a thread that works, from the outermost function on, and how often each was seen."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in raw.splitlines():
        named, _, times = line.rpartition(" ")
        stack = [one for one in named.split(";") if not OUTER.search(one)]
        if stack and (is_loop or not WAITS.match(stack[-1])):
            found[tuple(_FILE.sub(r"(\1)", one) for one in stack)] += int(times)
    return found


def frames(bodies: Sequence[bytes], round_number: int, number: int) -> Iterator[Message]:
    """What one of the connections sends, without end, a day after the other."""
    batch = count(1)
    for day in count(10 * round_number):
        for body in bodies[number::CONNECTIONS]:
            yield messages.frame(f"flames-{round_number}-{number}", next(batch), messages.on_day(body, day))


def receive(box: Box, bodies: Sequence[bytes], round_number: int, seconds: float) -> None:
    """Have the box take records for so long."""
    address = "127.0.0.1", box.tcp_port
    found = [
        Connection(address, frames(bodies, round_number, n), answers.Frames(), FRAME_WINDOW) for n in range(CONNECTIONS)
    ]
    send(found, RECORDS_PER_S, seconds)


def writing(box: Box, seconds: float, out: Path) -> None:
    """The collector while it takes records, the worker while it saves them, and while it merges what it saved."""
    warm_up(box)
    bodies = messages.msgpack_bodies(messages.batches(RECORDS))
    what = "msgpack frames of 1,000 records, 10 consecutive ones of each device"
    with drawn(box, "collector", f"collector: {what}", out / "flames-collector.svg", is_loop=True):
        receive(box, bodies, 1, seconds)
    wait_saved(box)
    with drawn(box, "worker", f"worker, saving: {what}", out / "flames-saving.svg"):
        receive(box, bodies, 2, seconds)
        wait_saved(box)
    title = f"worker, merging: {saved(box):,} records"
    with drawn(box, "worker", title, out / "flames-merging.svg"):
        wait_merged(box)


def ask(box: Box, questions: Iterator[Message], seconds: float) -> None:
    """Ask one question after the other, over one connection, for so long."""
    send([Connection(("127.0.0.1", box.api_port), questions, answers.Http())], seconds=seconds)


def reading(box: Box, seconds: float, out: Path) -> None:
    """The API while it answers latest, and the query program while it answers a device's day."""
    archives.add_days(archive_of(box), archives.one_day(), 0, DAYS)
    some = map(days.question, days.questions(Random(1), DAYS, 100_000))
    with drawn(box, "query", "query program: a device's day of 1,000 records as JSON", out / "flames-query.svg"):
        ask(box, some, seconds)
    latest.fill(box)
    with drawn(box, "api", "API: latest of one device", out / "flames-api.svg", is_loop=True):
        ask(box, repeat(latest.QUESTION), seconds)


def main() -> int:
    """Draw all. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each is looked at (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    args = parser.parse_args()
    with box() as found:
        reading(found, args.seconds, args.out)
    with box() as found:
        writing(found, args.seconds, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
