"""Settings: config.toml says all of them, the last source wins, and what is wrong stops the start by name."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from telemetry.config import PROJECT, SECTIONS, Settings, is_loopback, load
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
    }


def test_config_toml_holds_every_setting_with_its_default() -> None:
    shipped = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    declared = {name: msgspec.structs.asdict(kind()) for name, kind in SECTIONS.items()}
    assert shipped == declared


def test_config_toml_says_what_each_setting_means() -> None:
    said: dict[tuple[str, str], str] = {}
    section, comment = "", ""
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section, comment = found[1], ""
        elif line.startswith("# "):
            comment = f"{comment} {line[2:]}".strip()
        elif found := re.match(r"(\w+) = ", line):
            said[section, found[1]] = comment
            comment = ""
    for name, sentence in described().items():
        assert said[name].startswith(sentence), name


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
        ("[api]\nprot = 1\n", "settings.toml: unknown setting api.prot; known are host"),
        ("[apis]\nport = 1\n", "settings.toml: unknown section [apis]; known are data, api"),
        ("base = 'x'\n", "unknown section [base]"),
        ("api = 3\n", "api must be a section"),
        ("[api]\nport = '8000'\n", "cannot use api.port = '8000'"),
        ("[api]\nport = 65536\n", "cannot use api.port = 65536"),
        ("[api]\nport = 8000.5\n", "cannot use api.port = 8000.5"),
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
