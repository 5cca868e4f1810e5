"""The containers run the commands of the Procfile, with existing settings, on a Redis configured like Whimbrel's.

Tests with compose's parser are skipped if `docker-compose` isn't installed: scripts/check-compose installs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable

from cli.redis_server.command import configuration, find
from cli.services.supervisor_config import REDIS, read_procfile
from telemetry.config.loader import load
from telemetry.hot_store.client import check_server, connect, wait
from tests.box import PROJECT, free_ports
from tests.conftest import server_choice

COMPOSE = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"\\\n\s*", "", DOCKERFILE).splitlines()
    if re.match(r"[A-Z]", line)
]
PROCFILE = read_procfile(PROJECT / "Procfile")
PROGRAMS = [name for name in PROCFILE if name != REDIS]
PLACE = {"dir", "port", "unixsocket", "unixsocketperm", "daemonize", "logfile", "maxmemory"}
"""Redis settings for place and size, which have no effect on the stored records."""


def arguments_of(instruction: str) -> list[str]:
    return [line for name, line in INSTRUCTIONS if name == instruction]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in arguments_of("ENV") for pair in shlex.split(line))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as compose understands them."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed; scripts/check-compose installs it")
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("WHIMBREL", "COMPOSE", "DOCKER"))
    }
    command = [program, "--file", str(PROJECT / "docker-compose.yml"), "config", "--format", "json"]
    done = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found["volumes"]) == {"archive", "audit", "courier", "redis", "run", "scratch"}
    services: dict[str, Any] = found["services"]
    return services


# Without compose's parser ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_of_the_procfile_is_a_service(name: str) -> None:
    assert re.search(rf"^  {name}:\n    <<: \*program\n    command: {re.escape(PROCFILE[name])}$", COMPOSE, re.M)


def test_ports_are_published_on_loopback_alone() -> None:
    published = re.findall(r'^ +- "(.*:\d+:\d+)"$', COMPOSE, re.M)
    assert sorted(published) == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:9999:9999"]


def test_versions_are_named() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    images = set(re.findall(r"^ +image: (.+)$", COMPOSE, re.M))
    assert {image.partition("@")[0] for image in images} == {"redis:8", f"whimbrel:{version}"}
    assert [image.partition("@")[0] for image in arguments_of("FROM")] == ["python:3.13-slim"]


def test_images_of_others_are_pinned_by_digest() -> None:
    images = [*re.findall(r"^ +image: (.+)$", COMPOSE, re.M), *arguments_of("FROM")]
    for image in images:
        assert image.startswith("whimbrel:") or re.search(r"@sha256:[0-9a-f]{64}$", image), image


def test_the_image_is_made_by_the_steps_of_scripts_venv() -> None:
    script = (PROJECT / "scripts" / "venv").read_text(encoding="utf-8")
    steps = re.findall(r"(?:^|\{ )pip (--[^;\n]+)", script, re.M)
    assert [step.rpartition(" ")[2] for step in steps] == ['"$lock"', '"$1"']
    run = "\n".join(arguments_of("RUN"))
    for step in steps:
        assert "pip install --quiet " + step.replace('"$lock"', "requirements.lock").replace('"$1"', ".") in run


def test_the_image_runs_as_nobody_special() -> None:
    assert arguments_of("USER") == ["10001:10001"]
    assert "--uid 10001 --gid whimbrel" in "\n".join(arguments_of("RUN"))
    assert [*image_environment()][-1] == "WHIMBREL__DATA__DIR"
    assert len(arguments_of("HEALTHCHECK")) == len(arguments_of("CMD")) == 1


def copied() -> list[str]:
    """The names that the Dockerfile copies."""
    return [name for line in arguments_of("COPY") for name in line.split()[:-1]]


def test_what_is_copied_is_let_through_and_nothing_else() -> None:
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    assert [line[1:] for line in ignored if line.startswith("!")] == copied()


def test_the_files_that_are_copied_are_enough_for_every_program(tmp_path: Path) -> None:
    for name in copied():
        path = PROJECT / name
        if path.is_dir():
            shutil.copytree(path, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tmp_path / name)
    packages = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]
    assert all((tmp_path / package.replace(".", "/")).is_dir() for package in packages)
    starts = [[*command.split()[1:], "--help"] for name, command in PROCFILE.items() if name != REDIS]
    for arguments in [*starts, ["-m", "cli.main", "--help"]]:
        # -S and PYTHONPATH keep the editable install, which would find the project itself, out of it.
        done = python_in(tmp_path, arguments)
        assert done.returncode == 0, done.stderr
        assert "usage: " in done.stdout
    where = python_in(tmp_path, ["-c", "from telemetry.config.loader import PROJECT, load; print(PROJECT); load()"])
    assert where.stdout.strip() == str(tmp_path), where.stderr


def python_in(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    [libraries] = [path for path in sys.path if path.endswith("site-packages")]
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}{os.pathsep}{libraries}", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )


# As compose understands it ---------------------------------------------------------------------------


def test_services_are_the_procfile_s(services: dict[str, Any]) -> None:
    assert set(services) == set(PROCFILE)
    for name in PROGRAMS:
        assert services[name]["command"] == PROCFILE[name].split()


def test_redis_gets_what_whimbrel_redis_gives_its_own(services: dict[str, Any]) -> None:
    command = services[REDIS]["command"]
    flags = {name.removeprefix("--"): value for name, value in zip(command[::2], command[1::2], strict=True)}
    lines = configuration(load(environ={})).decode().splitlines()
    own = {name: value.strip('"') for name, _, value in (line.partition(" ") for line in lines)}
    assert {name: value for name, value in flags.items() if name not in {*PLACE, "protected-mode"}} == {
        name: value
        for name, value in own.items()
        if name not in {*PLACE, "aclfile"}  # of users it has none
    }
    entrypoint = [word.replace("$$", "$") for word in services[REDIS]["entrypoint"]]  # compose prints it escaped
    assert entrypoint == ["sh", "-c", 'umask 077 && exec redis-server "$@"', "redis-server"]
    assert "ports" not in services[REDIS]


def test_a_server_takes_these_flags(services: dict[str, Any], tmp_path: Path) -> None:
    with (
        redis_as_in_compose(services, tmp_path) as url,
        connect(load(environ={"WHIMBREL__REDIS__URL": url})) as client,
    ):
        assert wait(client, lambda _: None)
        check_server(client, "aof")


@pytest.mark.parametrize("name", PROGRAMS)
def test_settings_of_a_program_are_known(name: str, services: dict[str, Any]) -> None:
    settings = load(environ=image_environment() | services[name]["environment"])
    assert str(settings.data_dir) == "/data"
    assert settings.redis.url == f"redis://{REDIS}:6379/0"
    published = {port["target"] for port in services[name].get("ports", [])}
    ports = {"api": {settings.api.port}, "collector": {settings.collector.http_port, settings.collector.tcp_port}}
    assert published == ports.get(name, set())


def test_who_may_write_where(services: dict[str, Any]) -> None:
    mounts = {
        (name, volume["target"]): (volume["source"], not volume.get("read_only", False))
        for name, service in services.items()
        for volume in service.get("volumes", [])
    }
    assert mounts == {
        (REDIS, "/data"): ("redis", True),
        ("worker", "/data/archive"): ("archive", True),
        ("worker", "/data/tmp"): ("scratch", True),
        ("worker", "/data/audit"): ("audit", True),
        ("query", "/data/archive"): ("archive", False),
        ("query", "/data/redis"): ("redis", False),
        ("query", "/data/run"): ("run", True),
        ("query", "/data/tmp"): ("scratch", True),
        ("api", "/data/archive"): ("archive", False),
        ("api", "/data/redis"): ("redis", False),
        ("api", "/data/run"): ("run", True),
        ("api", "/data/audit"): ("audit", True),
        ("collector", "/data/archive"): ("archive", False),
        ("collector", "/data/redis"): ("redis", False),
        ("collector", "/data/audit"): ("audit", True),
        ("courier", "/data/archive"): ("archive", False),
        ("courier", "/data/courier"): ("courier", True),
    }
    folders = {target for (name, target) in mounts if name != REDIS}
    assert all(folder in "\n".join(arguments_of("RUN")) for folder in folders), "the image has them, and so their owner"


def test_nobody_has_more_rights_than_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["user"] == ("999:999" if name == REDIS else "10001:10001")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_how_long_they_run_and_what_they_wait_for(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["restart"] == "unless-stopped"
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
        assert "stop_grace_period" in service
        if name != REDIS:
            assert service["depends_on"] == {REDIS: {"condition": "service_healthy", "required": True}}
    checked = {name for name, service in services.items() if not service["healthcheck"].get("disable")}
    assert checked == {REDIS, "collector", "api"}


# Running ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis_as_in_compose(services: dict[str, Any], folder: Path) -> Iterator[str]:
    """A server of this machine on TCP with the flags of the compose file, but for folder and port; its URL."""
    [port] = free_ports(1)
    command = [str(folder) if one == "/data" else one for one in services[REDIS]["command"]]
    server = [str(find(server_choice()).path), *command, "--port", str(port), "--bind", "127.0.0.1"]
    process = subprocess.Popen(server, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@contextlib.contextmanager
def programs_as_in_compose(services: dict[str, Any], environ: dict[str, str], folder: Path) -> Iterator[None]:
    """All programs but Redis, each started as in its container, without a supervisor."""
    started = []
    for name in PROGRAMS:
        command = [sys.executable, *services[name]["command"][1:]]
        environment = {**os.environ, **image_environment(), **services[name]["environment"], **environ}
        with (folder / f"{name}.log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=log, stdout=log))
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        statuses = [process.wait(15) for process in started]
    logs = "".join((folder / f"{name}.log").read_text() for name in PROGRAMS)
    assert statuses == [0] * len(started), logs
    assert "Traceback" not in logs, logs


@pytest.mark.slow
def test_the_programs_work_together_without_a_supervisor(services: dict[str, Any], tmp_path: Path) -> None:
    api, http, tcp = free_ports(3)
    data = tmp_path / "data"
    for name in ("archive", "redis", "run", "tmp"):  # as in the image
        (data / name).mkdir(parents=True)
    with redis_as_in_compose(services, data / "redis") as url:
        environ = {
            "WHIMBREL__REDIS__URL": url,
            "WHIMBREL__DATA__DIR": str(data),
            "WHIMBREL__API__PORT": str(api),
            "WHIMBREL__COLLECTOR__HTTP_PORT": str(http),
            "WHIMBREL__COLLECTOR__TCP_PORT": str(tcp),
            "WHIMBREL__PERSIST__FLUSH_SECONDS": "1",
        }
        with programs_as_in_compose(services, environ, tmp_path):
            ready(f"http://127.0.0.1:{api}/readyz")
            for check in ("api", "collector"):
                run_check(services[check]["healthcheck"]["test"], {8000: api, 8001: http, 9999: tcp})
            sent = {"device_id": "van-7", "latitude": 53.44, "longitude": -2.93}
            ready(f"http://127.0.0.1:{http}/healthz")
            assert httpx.post(f"http://127.0.0.1:{http}/v1/records", json=sent).json() == {"accepted": 1}
            latest = httpx.get(f"http://127.0.0.1:{api}/v1/devices/van-7/latest").json()
            assert (latest["latitude"], latest["longitude"]) == (53.44, -2.93)
            until(lambda: DeltaTable(str(data / "archive")).to_pyarrow_table().num_rows == 1)


def run_check(test: list[str], ports: dict[int, int]) -> None:
    """Run a service's health check on the ports of this test."""
    kind, command = test
    assert kind == "CMD-SHELL"
    for written, real in ports.items():
        command = re.sub(rf"\b{written}\b", str(real), command)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["/bin/sh", "-c", command], env={"PATH": path}, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


def ready(url: str) -> None:
    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url, timeout=5).status_code == 200
        return False

    until(answers)


def until(is_so: Any) -> None:
    stop_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < stop_s
        time.sleep(0.1)
