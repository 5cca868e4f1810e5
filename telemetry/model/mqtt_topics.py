"""MQTT topic filters to subscribe to, in which `{device_id}` may stand for the level that holds the device's id.

    fleet/{device_id}/position      owntracks/+/+

`+` matches one level, `#` all further levels (MQTT 3.1.1, section 4.7). A shared subscription,
`$share/<group>/<filter>`, receives messages on the topics of its filter; so do `$queue/` and `$exclusive/` of EMQX.
"""

from __future__ import annotations

from typing import NamedTuple

DEVICE = "{device_id}"
ONE_LEVEL, ALL_LEVELS = "+", "#"

PREFIX_LEVELS = {"$share": 2, "$queue": 1, "$exclusive": 1}
"""Number of levels before the filter proper; they are not part of the topics that it matches."""


class Filter(NamedTuple):
    """A topic filter, as a list of levels."""

    levels: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Filter:
        """Parse a filter. Raises `ValueError` if it is not valid."""
        levels = tuple(text.split("/"))
        for index, level in enumerate(levels):
            is_last = index == len(levels) - 1
            if not text or (ALL_LEVELS in level and not (level == ALL_LEVELS and is_last)):
                raise ValueError("# matches all further levels and must be the last level")
            if level not in (ONE_LEVEL, DEVICE) and set(level) & set("+{}"):
                raise ValueError("+ and {device_id} must be a whole level")
        if levels.count(DEVICE) > 1:
            raise ValueError("a topic may have only one {device_id}")
        return cls(levels)

    @property
    def subscription(self) -> str:
        """The filter as sent to the broker."""
        return "/".join(ONE_LEVEL if level == DEVICE else level for level in self.levels)

    def device_of(self, topic: str) -> str | None:
        """The device id in a topic, empty if this filter has no such level; None if the topic does not match."""
        device_id, levels = "", topic.split("/")
        wanted = self.levels[PREFIX_LEVELS.get(self.levels[0], 0) :]
        for index, level in enumerate(wanted):
            if level == ALL_LEVELS:
                return device_id
            if index >= len(levels) or level not in (ONE_LEVEL, DEVICE, levels[index]):
                return None
            if level == DEVICE:
                device_id = levels[index]
        return device_id if len(levels) == len(wanted) else None
