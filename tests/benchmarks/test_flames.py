"""Flame graphs: what py-spy says becomes bars as wide as their shares."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.flame_svg import Bar, bars, svg
from benchmarks.flames import stacks

RAW = """\
Options.execve (/opt/whimbrel/cli/services/fork_server.py:51);_run_code (<frozen runpy>:88);\
<module> (api/query.py:1);main \
(/opt/whimbrel/telemetry/startup/program.py:34);page (/opt/whimbrel/api/records/range_query.py:121) 3
Supervisor.run (supervisor/supervisord.py:80);main (/opt/whimbrel/telemetry/startup/program.py:34) 1
Thread._bootstrap (threading.py:9);_worker (concurrent/futures/thread.py:69) 7
Runner.run (asyncio/runners.py:86) 5
"""


def test_threads_that_wait_and_what_stands_around_programs_are_left_out() -> None:
    assert stacks(RAW) == {
        ("main (startup/program.py)", "page (records/range_query.py)"): 3,
        ("main (startup/program.py)",): 1,
    }


def test_of_a_loop_all_is_seen() -> None:
    assert stacks(RAW, is_loop=True)[("Runner.run (asyncio/runners.py)",)] == 5


def test_bars_lie_on_the_bars_of_their_callers() -> None:
    seen = {("a", "b"): 2, ("a", "c"): 1, ("a",): 1, ("d", "b"): 4}
    assert sorted(bars(seen), key=lambda bar: (bar.depth, bar.start)) == [
        Bar("a", 0, 0.5, 0),
        Bar("d", 0.5, 0.5, 0),
        Bar("b", 0.125, 0.25, 1),
        Bar("c", 0.375, 0.125, 1),
        Bar("b", 0.5, 0.5, 1),
    ]


@pytest.mark.parametrize("seen", [{}, {("<listcomp> (a&b.py)",): 1}, {("a", "b"): 2, ("c",): 1}])
def test_the_picture_is_well_formed_and_names_each_bar(seen: dict[tuple[str, ...], int]) -> None:
    picture = ElementTree.fromstring(svg(seen, 'a < b & "c"'))
    said = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert said[0] == 'a < b & "c"'
    assert {(text or "").rpartition(": ")[0] for text in said[1:]} == {name for stack in seen for name in stack}
