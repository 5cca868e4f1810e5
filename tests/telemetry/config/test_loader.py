"""Where settings come from: the last source wins, and what is wrong stops the start by name."""

from pathlib import Path
from typing import Any

import pytest

from telemetry.config.loader import load
from telemetry.config.settings import SECTIONS, Section, Settings, SilenceRule
from telemetry.model.errors import ConfigError
from tests.settings_file import refused, written


def test_without_any_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = load(written(tmp_path, ""), {})
    assert settings == Settings(base=str(tmp_path), file=settings.file)
    assert Path(settings.file).parent == tmp_path


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[api]\nport = 7000\nhost = "localhost"\n')
    settings = load(file, {"WHIMBREL__API__PORT": "7001", "whimbrel__auth__allow_anonymous": "true"})
    assert (settings.api.port, settings.api.host) == (7001, "localhost")
    assert settings.auth.allow_anonymous is True


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[api]\nport = 7000\n")
    other = tmp_path / "other.toml"
    other.write_text("[api]\nport = 7002\n")
    assert load(None, {"WHIMBREL_CONFIG": str(file)}).api.port == 7000
    assert load(other, {"WHIMBREL_CONFIG": str(file)}).api.port == 7002


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    for file, environ in ((missing, {}), (None, {"WHIMBREL_CONFIG": str(missing)})):
        with pytest.raises(ConfigError, match=r"missing\.toml: no such file"):
            load(file, environ)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[api]\nprot = 1\n", "settings.toml: unknown setting api.prot; known are cors_origins, export_wait_s, host"),
        ("[apis]\nport = 1\n", "settings.toml: unknown section [apis]; known are data, api"),
        ("base = 'x'\n", "unknown section [base]"),
        ("api = 3\n", "api must be a section"),
        ("[api]\nport = '8000'\n", "cannot use api.port = '8000'"),
        ("[api]\nport = 65536\n", "cannot use api.port = 65536"),
        ("[api]\nport = 8000.5\n", "cannot use api.port = 8000.5"),
        (
            '[[collector.mqtt]]\nhost = "h"\ntopics = ["a#"]\n',
            "collector.mqtt[1].topics: 'a#' is not a valid topic filter",
        ),
        ('[[collector.mqtt]]\nhost = "h"\ntopics = []\n', "collector.mqtt[1].topics"),
        (2 * '[[collector.mqtt]]\nhost = "h"\ntopics = ["a"]\n', "collector.mqtt[2].client_id = 'whimbrel' is used by"),
        ('[[collector.mqtt]]\nhost = "h"\ntopics = ["a"]\nca_file = "x"\n', "without collector.mqtt[1].tls"),
        ("[redis]\nserver = 'docker'\n", "cannot use redis.server = 'docker'"),
        ("[persist]\nflush_seconds = 0\n", "cannot use persist.flush_seconds = 0"),
        ("[api\n", "settings.toml: "),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    assert names in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("WHIMBREL__API__PROT", "1", "environment variable WHIMBREL__API__PROT: unknown setting api.prot"),
        ("WHIMBREL__APIS__PORT", "1", "environment variable WHIMBREL__APIS__PORT: unknown section"),
        ("WHIMBREL__API__PORT", "eight", "environment variable WHIMBREL__API__PORT: cannot use api.port = 'eight'"),
        ("WHIMBREL__AUTH__ALLOW_ANONYMOUS", "perhaps", "auth.allow_anonymous"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(tmp_path: Path, variable: str, value: str, names: str) -> None:
    assert names in refused(tmp_path, **{variable: value})


TWO = '[{"name": "a", "url": "https://a.example"}, {"name": "b", "url": "s3://b"}]'


def test_a_list_comes_from_the_file_or_whole_from_the_environment(tmp_path: Path) -> None:
    text = '[[forward]]\nname = "hq"\nurl = "whimbrel://hq:9999"\n[[alert]]\nname = "x"\nurl = "http://x"\n'
    text += '[[alert.rules]]\nprefix = "t"\nsilent_after_s = 5\n'
    settings = load(written(tmp_path, text), {})
    assert [one.url for one in settings.forward] == ["whimbrel://hq:9999"]
    assert settings.alert[0].rules == (SilenceRule(prefix="t", silent_after_s=5),)
    settings = load(written(tmp_path, text), {"whimbrel__forward": TWO})
    assert [one.name for one in settings.forward] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[[forward]]\nname = "a"\n', "settings.toml: cannot use forward[1]: Object missing required field `url`"),
        ('[[forward]]\nname = "a"\nurl = "s3://x"\nulr = 1\n', "forward[1]: Object contains unknown field `ulr`"),
        ('[[forward]]\nname = "A"\nurl = "s3://x"\n', "cannot use forward[1].name: "),
        ('[[forward]]\nname = "a"\nurl = "ftp://x"\n', "forward[1].url must be one of whimbrel://"),
        ('[[forward]]\nname = "a"\nurl = "s3:///"\n', "forward[1].url must be"),
        ("[forward]\nname = 'a'\n", "cannot use forward: Expected `array`"),
        (
            '[[alert]]\nname = "a"\nurl = "http://x"\n[[alert.rules]]\n',
            "alert[1].rules[1] must name a device or a prefix",
        ),
        ('[[alert]]\nname = "a"\nurl = "http://x"\nevents = ["x"]\n', "cannot use alert[1].events[1]: "),
    ],
)
def test_a_wrong_entry_is_refused_by_its_place(tmp_path: Path, text: str, names: str) -> None:
    assert names in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[", "environment variable WHIMBREL__FORWARD: cannot use forward: it must be a JSON array"),
        (TWO.replace('"s3://b"', "3"), "WHIMBREL__FORWARD: cannot use forward[2].url: Expected `str`, got `int`"),
        (TWO.replace('"b"', '"a"'), "forward: 2 entries have the name 'a'"),
    ],
)
def test_a_wrong_entry_of_the_environment_is_refused_by_its_place(tmp_path: Path, text: str, names: str) -> None:
    assert names in refused(tmp_path, WHIMBREL__FORWARD=text)


def test_a_wrong_entry_is_not_shown_for_it_may_hold_a_secret(tmp_path: Path) -> None:
    text = '[[alert]]\nname = "a"\nurl = 3\nsecret = "hush"\n'
    assert "hush" not in refused(tmp_path, text)


class Listening(Section, frozen=True):
    ports: tuple[SilenceRule, ...] = ()


def test_a_list_inside_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SECTIONS, "log", Listening)
    monkeypatch.setattr("telemetry.config.loader.Settings", dict)
    monkeypatch.setattr("telemetry.config.loader.check", lambda _: None)
    text = "[[log.ports]]\ndevice = 'a'\n[[log.ports]]\nprefix = 'b'\n"
    found: Any = load(written(tmp_path, text), {})
    assert [rule.prefix for rule in found["log"].ports] == ["", "b"]
    found = load(written(tmp_path, text), {"WHIMBREL__LOG__PORTS": '[{"prefix": "c"}]'})
    assert [rule.prefix for rule in found["log"].ports] == ["c"]
    assert "cannot use log.ports[2].prefix: Expected `str`" in refused(tmp_path, text.replace("'b'", "3"))
    assert "WHIMBREL__LOG__PORTS: cannot use log.ports[1]: " in refused(tmp_path, WHIMBREL__LOG__PORTS='[{"x": 1}]')


def test_other_variables_are_not_ours(tmp_path: Path) -> None:
    others = {"WHIMBRELS__API__PORT": "1", "WHIMBREL_SUPERVISED": "7", "PATH": "/bin"}
    assert load(written(tmp_path, ""), others) == load(written(tmp_path, ""), {})
