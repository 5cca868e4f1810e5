"""Creates the first admin key of a box that requires keys: without a key, every HTTP request is rejected.

`whimbrel up` does so when the box is ready, in a separate process: `up` itself loads no Redis client.
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
    settings: Settings, environment: Mapping[str, str], is_terminal: bool, say: Callable[[str], None]
) -> None:
    """Create an admin key if there is no key yet. Print it on a terminal (`is_terminal`), else write a private file.

    Output that is not a terminal may be a log, which must not contain keys.
    """
    try:
        done = subprocess.run(
            COMMAND, env={**os.environ, **environment}, text=True, capture_output=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"whimbrel up: cannot create the first key: {error}")
        return
    if done.returncode != 0:
        say(f"whimbrel up: cannot create the first key: {done.stderr.strip()}")
    elif (key := done.stdout.strip()) and is_terminal:
        say(f"whimbrel up: the first admin key, shown only once: {key}")
    elif key:
        path = settings.data_dir / FILE
        write_private(path, f"{key}\n".encode("ascii"))
        say(f"whimbrel up: the first admin key is in {path}; note it and delete the file")
