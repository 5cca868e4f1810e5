"""The units: checked by systemd's own tools, and each started as its unit defines."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.services.supervisor_config import read_procfile
from cli.services.systemd import COMMAND, units
from telemetry.config.loader import load
from telemetry.config.settings import PROJECT
from telemetry.model.errors import ConfigError
from tests.box import Box

READY_S = 90
WATCHDOG_S = 4
PR_SET_MDWE, NO_EXECUTABLE_GAIN = 65, 1
EXPOSURE = 1.5
ENVIRONS: list[dict[str, str]] = [
    {},
    {"WHIMBREL__REDIS__URL": "redis://h"},
    {"WHIMBREL__DATA__GROUP": "analysts"},
]

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def made(user: str = "root", data: Path = Path("/var/lib/whimbrel"), **environ: str) -> dict[str, str]:
    return units(load(environ=environ), user, data, PROJECT / "config.toml")


def values(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)


def test_a_service_for_each_line_of_the_procfile() -> None:
    files = made()
    names = {f"whimbrel-{name}.service" for name in read_procfile(PROJECT / "Procfile")}
    assert set(files) == {"whimbrel.target", "whimbrel.sysusers.conf", *names}
    assert set(values(files["whimbrel.target"], "Wants")[0].split()) == names
    for name in names - {"whimbrel-redis.service"}:
        assert "network.target whimbrel-redis.service" in values(files[name], "After"), "it starts behind Redis"
    for name in names:
        assert values(files[name], "Restart") == ["always"]
        assert values(files[name], "ProtectSystem") == ["strict"]
        assert values(files[name], "StateDirectory") == ["whimbrel"]


def test_only_the_worker_knows_the_group_that_reads_the_archive() -> None:
    files = made(WHIMBREL__DATA__GROUP="analysts")
    for name, text in files.items():
        if name.endswith(".service"):
            is_worker = name == "whimbrel-worker.service"
            assert values(text, "SupplementaryGroups") == (["analysts"] if is_worker else [])
            assert values(text, "UMask") == ["0027" if is_worker else "0077"]
            assert values(text, "RestrictSUIDSGID") == values(text, "PrivateUsers") == ["no" if is_worker else "yes"]
            assert values(text, "StateDirectoryMode") == ["0711"]
    for name in ("whimbrel-redis.service", "whimbrel-worker.service"):
        assert values(made()[name], "StateDirectoryMode") == ["0700"]


def test_an_external_redis_has_no_service() -> None:
    files = made(WHIMBREL__REDIS__URL="redis://h")
    assert "whimbrel-redis.service" not in files
    assert not any("whimbrel-redis" in text for text in files.values())
    assert "AF_INET" in values(files["whimbrel-worker.service"], "RestrictAddressFamilies")[0]


def test_a_folder_elsewhere_is_named() -> None:
    unit = made(data=Path("/srv/box"))["whimbrel-worker.service"]
    assert values(unit, "ReadWritePaths") == ["/srv/box"]
    assert values(unit, "StateDirectory") == []
    with pytest.raises(ConfigError, match="systemd interprets"):
        made(data=Path("/srv/a box"))


@needs_systemd
def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    for name, text in made().items():
        (tmp_path / name).write_text(text)
    files = [str(path) for path in tmp_path.iterdir() if not path.name.endswith(".conf")]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("environ", ENVIRONS, ids=["own Redis", "a Redis of others", "a group"])
@pytest.mark.parametrize("name", sorted(read_procfile(PROJECT / "Procfile")))
def test_little_is_exposed(tmp_path: Path, name: str, environ: dict[str, str]) -> None:
    file = tmp_path / f"whimbrel-{name}.service"
    files = made("root", Path("/var/lib/whimbrel"), **environ)
    if file.name not in files:
        return
    file.write_text(files[file.name])
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= EXPOSURE


class Service:
    """A program started as its unit defines, with a notification socket like systemd's."""

    def __init__(self, unit: str, folder: Path, name: str, environ: dict[str, str]) -> None:
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard.bind(str(folder / name))
        self.heard.settimeout(READY_S)
        environ = {
            **environ,
            **dict(pair.split("=", 1) for line in values(unit, "Environment") for pair in line.split()),
        }
        if values(unit, "Type") == ["notify"]:
            environ |= {"NOTIFY_SOCKET": str(folder / name), "WATCHDOG_USEC": str(WATCHDOG_S * 1_000_000)}
        self.output = (folder / f"{name}.log").open("wb")
        [command], [cwd] = values(unit, "ExecStart"), values(unit, "WorkingDirectory")
        self.process = subprocess.Popen(
            shlex.split(command),
            cwd=cwd,
            env=environ,
            stdout=self.output,
            stderr=self.output,
            preexec_fn=_like_systemd,  # noqa: PLW1509 - no thread has been started
        )

    def next(self) -> str:
        return self.heard.recv(1_000).decode()

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()
        self.heard.close()


def _like_systemd() -> None:
    """MemoryDenyWriteExecute, if the kernel supports it."""
    ctypes.CDLL(None).prctl(PR_SET_MDWE, NO_EXECUTABLE_GAIN, 0, 0, 0)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[dict[str, Service]]:
    """All programs of a box, each started as its unit defines."""
    box = Box(tmp_path)
    environ = {name: value for name, value in box.environ.items() if name != "WHIMBREL__DATA__DIR"}
    (tmp_path / "data").mkdir()
    found: dict[str, Service] = {}
    with contextlib.ExitStack() as ends:
        for file, unit in made(data=tmp_path / "data").items():
            if file.endswith(".service"):
                name = file.removeprefix("whimbrel-").removesuffix(".service")
                found[name] = Service(unit, tmp_path, name, environ)
                ends.callback(found[name].close)
        yield found
    box.http.close()


@pytest.mark.slow
def test_each_program_is_ready_gives_signs_and_ends(services: dict[str, Service]) -> None:
    redis = services.pop("redis")
    assert services.pop("courier").next() == "READY=1\nWATCHDOG_USEC=0", "it has nothing to do"
    for service in services.values():
        assert service.next() == "READY=1"
        assert service.next() == "WATCHDOG=1"
    for name in ("collector", "scheduler"):  # a stopped program falls silent, and goes on when it may
        service = services[name]
        os.kill(service.process.pid, signal.SIGSTOP)
        service.heard.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            while service.next():
                pass
        service.heard.settimeout(WATCHDOG_S)
        with pytest.raises(TimeoutError):
            service.next()
        os.kill(service.process.pid, signal.SIGCONT)
        service.heard.settimeout(READY_S)
        assert service.next() == "WATCHDOG=1"
    assert {name: service.end() for name, service in services.items()} == dict.fromkeys(services, 0)
    assert redis.end() == 0


def test_the_command_writes_what_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(write=str(tmp_path / "u"), user="bird", data="/var/lib/bird", config=None)
    assert COMMAND.run(args, load(environ={})) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(str(path) for path in (tmp_path / "u").iterdir())
    assert values((tmp_path / "u" / "whimbrel-api.service").read_text(), "User") == ["bird"]
