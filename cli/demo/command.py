"""`whimbrel demo`: starts a box in a temporary folder, tells it a story, and says where to look."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import uuid
import webbrowser
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from cli import arguments
from cli.command import OK, Command
from cli.demo import city, replay, suez, temporary_box
from cli.demo.story import Report, Story
from cli.http_client import client
from cli.sending.http_sender import TIMEOUT_S, HttpSender
from cli.sending.send import say
from cli.sending.sender import Patience, Tally
from telemetry.config.settings import Settings
from telemetry.config.urls import api_url, collector_url
from telemetry.system import clock

STORIES = {"suez": suez.STORY, "city": city.STORY}
RETRY_S = 30.0

DESCRIPTION = """\
Start a box in a temporary folder, tell it a story, and print the address of its page. Ctrl-C stops the box and
removes all of it.

The story is moved to the present. It is told --speed times as fast as it happened, and its records keep their own
pace: those of the ships are dated so that the story ends now when its telling does. So the first ones that are told
are a day old, and distances, durations and speeds are those of the ships. story_time, an attribute of ships, is when
they really were there. Vehicles of the city, which have no end, are dated as they are told.

  whimbrel demo                        ships at Suez in March 2021, as the Ever Given blocks the canal
  whimbrel demo --speed 60 --open      the same in an hour, in a browser that is opened
  whimbrel demo --story city           simulated vehicles
  whimbrel demo --keep suez            keep the box: `whimbrel --config suez/config.toml up` starts it again

Settings of your own and WHIMBREL_* are not those of this box, but for redis.server.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--story", choices=STORIES, default="suez", help="(default: suez)")
    add(
        "--speed",
        type=arguments.quantity,
        metavar="TIMES",
        help=f"how much faster than it happened (default: {suez.SPEED:g} for suez, 1 for city)",
    )
    add("--port", type=arguments.count, metavar="PORT", help="of the page (default: one that is free)")
    add("--keep", type=Path, metavar="DIR", help="keep the box in this folder, which is empty or not there yet")
    add("--open", action="store_true", help="open the page in a browser")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run until SIGINT, SIGTERM or a terminal that is closed; then nothing is left, and the status is 0."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    story = STORIES[args.story]
    with temporary_box.running(args.keep, args.port, settings.redis.server) as started:
        say(f"whimbrel demo: starting a box for {story.sentence}")
        started.await_ready()
        tally = Tally("demo", say, lambda _: None)
        patience = Patience(RETRY_S, time.monotonic, started.sleep, say)
        connection = client(collector_url(started.settings), TIMEOUT_S)
        with closing(HttpSender(connection, patience, tally, lambda: uuid.uuid4().hex)) as sender:
            _tell(story, args, started, sender, tally)
        started.await_end()
    return OK


def _leave(*_: object) -> NoReturn:
    sys.exit(OK)


def _tell(story: Story, args: argparse.Namespace, started: temporary_box.Box, sender: HttpSender, tally: Tally) -> None:
    speed = args.speed or story.speed
    before, later = replay.parted(story)
    dates = replay.dating(story, speed, clock.now_us())
    _bring_in(before, dates, started)
    url = f"{api_url(started.settings)}/"
    print(url, flush=True)
    say(f"whimbrel demo: the story goes on, {speed:g} times as fast as it happened; Ctrl-C ends it")
    say(f"whimbrel demo: other commands ask this box with `whimbrel --config {started.file} …`")
    if args.open:
        webbrowser.open(url)
    _send_live(later, story, speed, dates, started, sender, tally)
    say("whimbrel demo: the story is over; the box stays until Ctrl-C")


def _bring_in(before: list[Report], dates: replay.Dating, started: temporary_box.Box) -> None:
    """What was before, at its own pace.

    Imported, not sent: devices were heard when they reported, so that one that left days ago is not taken to be there.
    """
    file = started.folder / "before.ndjson"
    with file.open("wb") as lines:
        lines.writelines(row.body + b"\n" for row in replay.rows(before, dates._replace(pace=1.0)))
    started.whimbrel("import", str(file), "--quiet")
    file.unlink()


def _send_live(
    later: Iterator[Report],
    story: Story,
    speed: float,
    dates: replay.Dating,
    started: temporary_box.Box,
    sender: HttpSender,
    tally: Tally,
) -> None:
    remarks = replay.Remarks(story, say)
    start_s = time.monotonic()
    coming = replay.live(later, dates, speed, lambda: time.monotonic() - start_s, started.sleep)
    with _progress(story) as bar:
        for told in coming:
            remarks.until(told.at_s)
            tally.sent += len(told.batch)
            if told.batch:
                sender.send(told.batch)
            bar.set_description_str(f"{story.clock(told.at_s)}, {tally.accepted} records", refresh=False)
            bar.update(told.at_s - bar.n)


def _progress(story: Story) -> tqdm[NoReturn]:
    """How far the story is."""
    if story.length_s is None:
        return _bar(bar_format="{desc}")
    return _bar(total=story.length_s, bar_format="{desc} |{bar}| {percentage:3.0f}%")


def _bar(**how: object) -> tqdm[NoReturn]:
    """On standard error, if a person looks at it."""
    return tqdm(disable=not sys.stderr.isatty(), leave=False, file=sys.stderr, **how)  # type: ignore[call-overload, no-any-return]


COMMAND = Command(
    "Start a box in a temporary folder and tell it a story, to look at its page.", add_arguments, run, writes="data"
)
