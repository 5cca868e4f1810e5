"""supervisord, whose Python programs are forks of it that never exec: the libraries that most need are loaded once.

Of these a program by itself took 15 MB and 0.15 s of CPU before its first own line; forks share the memory, and a box
starts with half the CPU. Our own modules are not loaded here, so that a program which is started again after an
upgrade is whole of the new code. Where there is no Linux, or its kernel does not let a process change the words of its
command line, programs begin the usual way.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import os
import runpy
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import go

SHARED = (
    "asyncio",
    "logging.handlers",
    "msgspec",
    "redis.asyncio",
    "rq",
    "starlette.applications",
    "uvicorn",
    "uvloop",
)
"""What several programs load. None of it starts a thread or opens a file as it is loaded."""

PR_SET_MM, PR_SET_MM_MAP = 35, 14
NO_FILE = 2**32 - 1


class Options(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """supervisord's way to the system, but for how a Python program begins."""

    def execve(self, filename: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """In the child, with its files, folder and user as they are to be: become the program."""
        if sys.platform == "linux" and _is_ours(Path(filename)) and argv[1:2] == ["-m"]:
            with suppress(OSError):  # shown as supervisord nobody would find it
                become(argv, env)
        super().execve(filename, argv, env)


def _is_ours(python: Path) -> bool:
    return python.name.startswith("python") and python.parent == Path(sys.executable).parent


def become(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Run `python -m MODULE ARGUMENTS` in this process and end it, as an interpreter of its own would.

    Raises `OSError`, with nothing changed, if the process can't be shown as that.
    """
    show_as(argv)
    gc.freeze()  # garbage that is here may have numbers of files, which are closed, and in time are another file's
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(argv[2:])
    status = 0
    try:
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = _status_of(end.code)
    except BaseException:
        traceback.print_exc()
        status = 1
    _leave(status)


def _status_of(code: object) -> int:
    """The exit status that `sys.exit(code)` makes."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _leave(status: int) -> NoReturn:
    """End as an interpreter does, but for taking apart what is in memory, where supervisord's files are open still."""
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)


def show_as(argv: Sequence[str]) -> None:
    """Have the kernel show these words as this process's command line, in the place of those that it began with.

    Raises `OSError` if it refuses, or the place is too short.
    """
    stat = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start_code, end_code, start_stack = map(int, stat[23:26])  # proc(5) counts from 1, and two are before the bracket
    start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end = map(int, stat[42:49])
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    if len(words) > arg_end - arg_start:
        raise OSError("the command line is longer than the one that the process began with")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    code_and_data = (start_code, end_code, start_data, end_data, start_brk, libc.sbrk(0), start_stack)
    shown = (arg_start, arg_start + len(words), env_start, env_end)
    prctl_mm_map = struct.pack("=11QQII", *code_and_data, *shown, 0, 0, NO_FILE)
    if libc.prctl(PR_SET_MM, PR_SET_MM_MAP, prctl_mm_map, len(prctl_mm_map), 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel keeps the command line")
    ctypes.memmove(arg_start, words, len(words))


def main() -> None:
    """Run supervisord until it is told to end."""
    if sys.platform == "linux":
        for name in SHARED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # looking for garbage writes to each object, whose page a fork then has for itself
    is_first = True
    while True:  # as supervisord's own
        options = Options()
        options.realize()
        options.first, options.test = is_first, False
        go(options)
        options.close_httpservers()
        options.close_logger()
        is_first = False
        if options.mood < SupervisorStates.RESTARTING:
            return


if __name__ == "__main__":
    main()
