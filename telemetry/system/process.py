"""What a program asks of the system: a tie to the supervisor that started it, and files enough."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

SUPERVISED = "WHIMBREL_SUPERVISED"
"""Environment variable with the process id of the supervisor; unset where there is none."""

PR_SET_PDEATHSIG = 1


def is_supervised() -> bool:
    """Whether a supervisor started this program, and will start it again."""
    return bool(os.environ.get(SUPERVISED))


def die_with_parent() -> None:
    """Get a SIGTERM when the supervisor is gone, however it went; nothing without a supervisor.

    For programs that the supervisor starts itself, as their first act: a child of theirs would take
    itself for an orphan and end. The tie survives exec. Linux only; other systems have no such tie.
    """
    supervisor = os.environ.get(SUPERVISED)
    if not supervisor or sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot tie this process to its supervisor")
    if os.getppid() != int(supervisor):  # it was gone before we asked
        os.kill(os.getpid(), signal.SIGTERM)


def allow_open_files(wanted: int) -> int:
    """Raise the limit of open files to `wanted`, or as far as may be. Returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def die_with_whoever_started() -> None:
    """Be killed when the process that started this one is gone. Linux only, as above."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
