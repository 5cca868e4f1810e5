"""Declared settings: config.toml says all of them, with their defaults and sentences."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from telemetry.config.loader import load
from telemetry.config.settings import (
    LISTS,
    PROJECT,
    SECTIONS,
    Alert,
    Forward,
    Listen,
    Mqtt,
    Section,
    Settings,
    SilenceRule,
)
from tests.settings_file import written

SHIPPED = PROJECT / "config.toml"

FIXED = {
    "data.dir": "data",
    "api.host": "127.0.0.1",
    "api.port": 8000,
    "collector.http_port": 8001,
    "collector.tcp_port": 9999,
    "collector.max_body_bytes": 8 * 2**20,
    "collector.max_message_bytes": 2**20,
    "collector.max_future_seconds": 86_400,
    "redis.url": "",
    "redis.server": "auto",
    "persist.flush_records": 20_000,
    "persist.flush_seconds": 30,
}
"""Names that scripts of others rely on, with the defaults that they were promised."""


INNER_LISTS: dict[str, type[Section]] = {"collector.listen": Listen, "collector.mqtt": Mqtt}
"""Settings inside a section that are lists of entries."""


def described() -> dict[tuple[str, str], str]:
    """Section and key of each declared setting, and its sentence."""
    schema = msgspec.json.schema(Settings)["$defs"]
    return {
        (section, key): value["description"]
        for section, kind in SECTIONS.items()
        for key, value in schema[kind.__name__]["properties"].items()
        if f"{section}.{key}" not in INNER_LISTS
    }


def test_config_toml_holds_every_setting_with_its_default() -> None:
    shipped = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    declared = {
        section: {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in msgspec.structs.asdict(kind()).items()
            if f"{section}.{key}" not in INNER_LISTS
        }
        for section, kind in SECTIONS.items()
    }
    assert shipped == declared


def sentences(lines: Iterable[str]) -> dict[tuple[str, str], str]:
    """Section and key of each setting, and the comment above it."""
    said: dict[tuple[str, str], str] = {}
    section, comment = "", ""
    for line in lines:
        if found := re.fullmatch(r"\[+([\w.]+)\]+", line):
            said["", found[1]] = comment
            section, comment = found[1], ""
        elif line.startswith("# "):
            comment = f"{comment} {line[2:]}".strip()
        elif found := re.match(r"(\w+) = ", line):
            said[section, found[1]] = comment
            comment = ""
    return said


def test_config_toml_says_what_each_setting_means() -> None:
    said = sentences(SHIPPED.read_text(encoding="utf-8").splitlines())
    for name, sentence in described().items():
        assert said[name].startswith(sentence), name


EXAMPLES = [
    line.removeprefix("#:")[1:] for line in SHIPPED.read_text(encoding="utf-8").splitlines() if line[:2] == "#:"
]


def test_the_examples_of_lists_name_every_setting_with_its_default(tmp_path: Path) -> None:
    examples = tomllib.loads("\n".join(EXAMPLES))
    settings = load(written(tmp_path, "\n".join(EXAMPLES)), {})
    [rule] = examples["alert"][0].pop("rules")
    assert rule.keys() == msgspec.structs.asdict(SilenceRule()).keys()
    [listener] = examples["collector"]["listen"]
    assert msgspec.convert(listener, Listen) == Listen(protocol="teltonika", port=5027)
    assert listener.keys() == msgspec.structs.asdict(Listen(protocol="teltonika", port=5027)).keys()
    assert len(settings.collector.listen) == 1
    [broker] = examples["collector"]["mqtt"]
    local = Mqtt(host=broker["host"], topics=tuple(broker["topics"]))
    assert msgspec.convert(broker, Mqtt) == local
    assert broker.keys() == msgspec.structs.asdict(local).keys()
    for name, kind in LISTS.items():
        [example] = examples[name]
        plain = msgspec.structs.asdict(kind(name=example["name"], url=example["url"]))
        plain.pop("rules", None)
        assert msgspec.convert(example, kind) == kind(**plain)
        assert example.keys() == plain.keys()
        assert len(getattr(settings, name)) == 1


@pytest.mark.parametrize(
    ("section", "kind"),
    [("forward", Forward), ("alert", Alert), ("alert.rules", SilenceRule), *INNER_LISTS.items()],
)
def test_the_examples_of_lists_say_what_each_setting_means(section: str, kind: type[Section]) -> None:
    said = sentences(EXAMPLES)
    for name, value in msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"].items():
        place = ("", f"{section}.{name}") if name == "rules" else (section, name)
        assert said[place].startswith(value["description"]), name


@pytest.mark.parametrize("name", FIXED)
def test_names_and_defaults_that_others_rely_on(name: str) -> None:
    section, key = name.split(".")
    assert getattr(getattr(load(SHIPPED, {}), section), key) == FIXED[name]


def test_data_dir_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    written(tmp_path / "etc", '[data]\ndir = "box"\n')
    monkeypatch.chdir(tmp_path)
    settings = load("etc/settings.toml", {})
    monkeypatch.chdir("/")
    assert settings.data_dir == tmp_path / "etc" / "box"
    assert settings.archive_dir == tmp_path / "etc" / "box" / "archive"


def test_data_dir_may_be_absolute_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = written(tmp_path, "")
    assert load(file, {"WHIMBREL__DATA__DIR": "/srv/box"}).data_dir == Path("/srv/box")
    assert load(file, {"WHIMBREL__DATA__DIR": "~/box"}).data_dir == tmp_path / "home" / "box"
