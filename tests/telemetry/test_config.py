"""Settings: config.toml says all of them, the last source wins, and what is wrong stops the start by name."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telemetry.config import (
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
    is_loopback,
    load,
)
from telemetry.errors import ConfigError

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


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(tmp_path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), environ)
    return str(caught.value)


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


def test_without_any_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = load(written(tmp_path, ""), {})
    assert settings == Settings(base=str(tmp_path))


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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[api]\nprot = 1\n", "settings.toml: unknown setting api.prot; known are cors_origins, host"),
        ("[apis]\nport = 1\n", "settings.toml: unknown section [apis]; known are data, api"),
        ("base = 'x'\n", "unknown section [base]"),
        ("api = 3\n", "api must be a section"),
        ("[api]\nport = '8000'\n", "cannot use api.port = '8000'"),
        ("[api]\nport = 65536\n", "cannot use api.port = 65536"),
        ("[api]\nport = 8000.5\n", "cannot use api.port = 8000.5"),
        ('[[collector.mqtt]]\nhost = "h"\ntopics = ["a#"]\n', "collector.mqtt[1].topics: 'a#' is no filter of topics"),
        ('[[collector.mqtt]]\nhost = "h"\ntopics = []\n', "collector.mqtt[1].topics"),
        (2 * '[[collector.mqtt]]\nhost = "h"\ntopics = ["a"]\n', "collector.mqtt[2].client_id = 'whimbrel' is that of"),
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
    monkeypatch.setattr("telemetry.config.Settings", dict)
    monkeypatch.setattr("telemetry.config._check", lambda _: None)
    text = "[[log.ports]]\ndevice = 'a'\n[[log.ports]]\nprefix = 'b'\n"
    found: Any = load(written(tmp_path, text), {})
    assert [rule.prefix for rule in found["log"].ports] == ["", "b"]
    found = load(written(tmp_path, text), {"WHIMBREL__LOG__PORTS": '[{"prefix": "c"}]'})
    assert [rule.prefix for rule in found["log"].ports] == ["c"]
    assert "cannot use log.ports[2].prefix: Expected `str`" in refused(tmp_path, text.replace("'b'", "3"))
    assert "WHIMBREL__LOG__PORTS: cannot use log.ports[1]: " in refused(tmp_path, WHIMBREL__LOG__PORTS='[{"x": 1}]')


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("protocol = 'gt06'\nport = 8000", "collector.listen[1].port = 8000 is that of api.port"),
        ("protocol = 'gt06'\nport = 9999", "is that of api.port, collector.http_port or collector.tcp_port, too"),
        ("protocol = 'gt06'\nport = 5\n[[collector.listen]]\nprotocol = 'auto'\nport = 5", "collector.listen[1], too"),
        ("protocol = 'osmand'\nport = 5", "osmand is spoken over http"),
        ("protocol = 'gt06'\nport = 5\ntransport = 'http'", "gt06 is spoken over tcp or udp"),
        ("protocol = 'json'\nport = 5\ntransport = 'udp'", "json is spoken over tcp"),
        ("protocol = 'gt06'\nport = 5\ntimezone = 'Mars'", "collector.listen[1].timezone = 'Mars' is no time zone"),
        (
            "protocol = 'gt06'\nport = 5\nhost = '0.0.0.0'",
            "listen[1].host = '0.0.0.0' lets other machines in",
        ),
        ("protocol = 'gt07'\nport = 5", "cannot use collector.listen[1].protocol"),
        ("port = 5", "collector.listen[1]"),
    ],
)
def test_a_wrong_listener_is_refused_by_its_place(tmp_path: Path, entry: str, names: str) -> None:
    assert names in refused(tmp_path, f"[[collector.listen]]\n{entry}\n")


def test_udp_may_have_the_number_of_a_tcp_port(tmp_path: Path) -> None:
    both = "".join(
        f"[[collector.listen]]\nprotocol = 'teltonika'\nport = 5027\ntransport = '{name}'\n" for name in ("tcp", "udp")
    )
    assert len(load(written(tmp_path, both), {}).collector.listen) == 2


def test_other_variables_are_not_ours(tmp_path: Path) -> None:
    others = {"WHIMBRELS__API__PORT": "1", "WHIMBREL_SUPERVISED": "7", "PATH": "/bin"}
    assert load(written(tmp_path, ""), others) == load(written(tmp_path, ""), {})


@pytest.mark.parametrize("section", ["api", "collector"])
def test_other_machines_get_in_only_on_purpose(tmp_path: Path, section: str) -> None:
    text = f'[{section}]\nhost = "0.0.0.0"\n'
    assert f"{section}.host = '0.0.0.0' lets other machines in" in refused(tmp_path, text)
    allowed = load(written(tmp_path, text), {"WHIMBREL__AUTH__ALLOW_ANONYMOUS": "true"})
    assert getattr(allowed, section).host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "box.example", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[api]\nport = 8001\n", "api.port, collector.http_port and collector.tcp_port must differ"),
        ("[redis]\nresume_percent = 90\n", "redis.resume_percent must not be above redis.full_percent"),
        ("[persist]\nmax_records = 10\n", "persist.flush_records must not be above persist.max_records"),
    ],
)
def test_values_that_are_wrong_together(tmp_path: Path, text: str, names: str) -> None:
    assert names in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("protocol", "transport"), [("h02", "tcp"), ("gt06", "udp"), ("teltonika", "tcp"), ("auto", "tcp")]
)
def test_who_can_not_say_a_key_is_let_in_by_its_own_port_alone(tmp_path: Path, protocol: str, transport: str) -> None:
    entry = f"[[collector.listen]]\nprotocol = '{protocol}'\ntransport = '{transport}'\nport = 5027\n"
    said = refused(tmp_path, f"[auth]\nrequired = true\nallow_anonymous = true\n{entry}")
    assert (
        f"collector.listen[1]: auth.required is set, and who speaks {protocol} over {transport} can't say a key" in said
    )
    load(written(tmp_path, f"[auth]\nrequired = true\n{entry}allow_anonymous = true\nhost = '0.0.0.0'\n"), {})


def test_others_let_in_by_a_key(tmp_path: Path) -> None:
    entries = [
        ("osmand", "http"),
        ("influx", "http"),
        ("any", "tcp"),
        ("json", "tcp"),
        ("frames", "tcp"),
        ("msgpack", "tcp"),
    ]
    text = "[auth]\nrequired = true\n[api]\nhost = '0.0.0.0'\n[collector]\nhost = '::'\n"
    for number, (protocol, transport) in enumerate(entries):
        text += f"[[collector.listen]]\nprotocol = '{protocol}'\ntransport = '{transport}'\nport = {5_000 + number}\n"
    assert len(load(written(tmp_path, text), {}).collector.listen) == len(entries)
    assert "auth.required = true" in refused(tmp_path, "[api]\nhost = '0.0.0.0'\n")
