"""A flame graph as a picture: stacks and how often each was seen, drawn as bars upon bars.

Each bar is a function, as wide as the share of the looks that found it; above it what it called. A bar says its name
and share to who points at it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, BAR, TOP, MARGIN = 1200, 17, 34, 10
LETTER, LEAST = 6.6, 0.0015
"""Width of a letter, and the least share that is drawn."""

_STYLE = "text{font:11px ui-monospace,monospace;fill:#1c1c1c}.t{font:15px system-ui,sans-serif}rect{stroke:#fff}"


class Bar(NamedTuple):
    """A function: where its bar begins and how wide it is, as shares of all, and how many are below it."""

    name: str
    start: float
    share: float
    depth: int


def bars(stacks: Mapping[tuple[str, ...], int]) -> Iterator[Bar]:
    """The bars of all stacks, each of which is named from the outermost function on."""
    total = sum(stacks.values())
    open_bars: list[tuple[str, int]] = []
    at = 0

    def closed(depth: int) -> Iterator[Bar]:
        while len(open_bars) > depth:
            name, start = open_bars.pop()
            yield Bar(name, start / total, (at - start) / total, len(open_bars))

    for stack in sorted(stacks):
        same = 0
        while same < min(len(stack), len(open_bars)) and open_bars[same][0] == stack[same]:
            same += 1
        yield from closed(same)
        open_bars += [(name, at) for name in stack[same:]]
        at += stacks[stack]
    yield from closed(0)


def svg(stacks: Mapping[tuple[str, ...], int], title: str) -> str:
    """The picture."""
    shown = [bar for bar in bars(stacks) if bar.share >= LEAST]
    height = TOP + BAR * (1 + max((bar.depth for bar in shown), default=0)) + MARGIN
    drawn = "\n".join(_drawn(bar, height) for bar in sorted(shown, key=lambda bar: (bar.depth, bar.start)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text class="t" x="{MARGIN}" y="20">{escape(title)}</text>\n{drawn}\n</svg>\n'
    )


def _drawn(bar: Bar, height: int) -> str:
    inside = WIDTH - 2 * MARGIN
    x, y = MARGIN + bar.start * inside, height - MARGIN - (bar.depth + 1) * BAR
    width = bar.share * inside
    letters = int((width - 4) / LETTER)
    name = bar.name if len(bar.name) <= letters else bar.name[: letters - 1] + "…"
    label = f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(name)}</text>' if letters > 2 else ""
    hue = 20 + zlib.crc32(bar.name.partition(" ")[2].encode()) % 190  # a file has one colour
    return (
        f"<g><title>{escape(bar.name)}: {bar.share:.1%}</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="hsl({hue} 60% 78%)"/>{label}</g>'
    )
