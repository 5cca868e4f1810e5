"""Process settings of the operating system: a tie to the supervisor, and the open-files limit."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

SUPERVISED = "WHIMBREL_SUPERVISED"
"""Environment variable with the process id of the supervisor; unset without one."""

PR_SET_PDEATHSIG = 1


def is_supervised() -> bool:
    """True if a supervisor started this program and will restart it."""
    return bool(os.environ.get(SUPERVISED))


def die_with_parent() -> None:
    """Receive SIGTERM when the supervisor exits for whatever reason; no effect without a supervisor.

    Only for programs that the supervisor starts itself, as their first call: a child process would consider itself an
    orphan and exit. The tie survives exec. Linux only; other systems lack this feature.
    """
    supervisor = os.environ.get(SUPERVISED)
    if not supervisor or sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot tie this process to its supervisor")
    if os.getppid() != int(supervisor):  # it exited before the call
        os.kill(os.getpid(), signal.SIGTERM)


def allow_open_files(wanted: int) -> int:
    """Raise the open-files limit to `wanted`, or as far as allowed. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def die_with_whoever_started() -> None:
    """Receive SIGKILL when the parent process exits. Linux only, as above."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
