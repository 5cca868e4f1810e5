"""The first key of a box that requires keys: without one nobody could make it do anything over HTTP.

`whimbrel up` has it made once the box is ready, in a process of its own: `up` itself loads no Redis client.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping

from telemetry.config.settings import Settings
from telemetry.system.fsync import write_private

FILE = "first-admin-key"
TIMEOUT_S = 60
COMMAND = (
    sys.executable,
    "-m",
    "cli.main",
    "keys",
    "create",
    "--first",
    "--scope",
    "admin",
    "--name",
    "first admin key",
)


def give_first_key(
    settings: Settings, environment: Mapping[str, str], is_seen: bool, say: Callable[[str], None]
) -> None:
    """Make an admin key if there is no key yet, and hand it out: to a terminal (`is_seen`), else in a private file.

    What is not a terminal may be a log, where no key belongs.
    """
    try:
        done = subprocess.run(
            COMMAND, env={**os.environ, **environment}, text=True, capture_output=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"whimbrel up: cannot make a first key: {error}")
        return
    if done.returncode != 0:
        say(f"whimbrel up: cannot make a first key: {done.stderr.strip()}")
    elif (key := done.stdout.strip()) and is_seen:
        say(f"whimbrel up: the first admin key, shown this once: {key}")
    elif key:
        path = settings.data_dir / FILE
        write_private(path, f"{key}\n".encode("ascii"))
        say(f"whimbrel up: the first admin key is in {path}; note it and delete the file")
