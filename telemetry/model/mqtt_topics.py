"""Topics of MQTT that are heard: filters, in which the level that is the device's id may be written `{device_id}`.

    fleet/{device_id}/position      owntracks/+/+

`+` stands for one level, `#` for all further ones (MQTT 3.1.1, section 4.7). A shared subscription,
`$share/<group>/<filter>`, gets messages of the topics of its filter; so do `$queue/` and `$exclusive/` of EMQX.
"""

from __future__ import annotations

from typing import NamedTuple

DEVICE = "{device_id}"
ONE_LEVEL, ALL_LEVELS = "+", "#"

PREFIX_LEVELS = {"$share": 2, "$queue": 1, "$exclusive": 1}
"""Levels that stand before a filter and are no part of the topics that it matches."""


class Filter(NamedTuple):
    """A topic to hear, level by level."""

    levels: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Filter:
        """Raises `ValueError` for what is no filter."""
        levels = tuple(text.split("/"))
        for place, level in enumerate(levels):
            is_last = place == len(levels) - 1
            if not text or (ALL_LEVELS in level and not (level == ALL_LEVELS and is_last)):
                raise ValueError("# stands for all further levels, and so alone at the end")
            if level not in (ONE_LEVEL, DEVICE) and set(level) & set("+{}"):
                raise ValueError("+ and {device_id} stand for a whole level")
        if levels.count(DEVICE) > 1:
            raise ValueError("a topic has one device")
        return cls(levels)

    @property
    def subscription(self) -> str:
        """As the broker knows it."""
        return "/".join(ONE_LEVEL if level == DEVICE else level for level in self.levels)

    def device_of(self, topic: str) -> str | None:
        """The device that a topic names, empty if this filter doesn't say where; None if it is no topic of its."""
        found, levels = "", topic.split("/")
        wanted = self.levels[PREFIX_LEVELS.get(self.levels[0], 0) :]
        for place, level in enumerate(wanted):
            if level == ALL_LEVELS:
                return found
            if place >= len(levels) or level not in (ONE_LEVEL, DEVICE, levels[place]):
                return None
            if level == DEVICE:
                found = levels[place]
        return found if len(levels) == len(wanted) else None
