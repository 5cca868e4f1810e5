"""supervisord that forks its Python programs without exec, so that shared libraries are loaded only once.

The forks share the libraries' memory, and a box starts with less CPU (docs/decisions/0026-forks.md). Whimbrel's own
modules are not loaded here: a program that restarts after an upgrade must run only new code. On systems other than
Linux, or if the kernel does not let a process change its command line, programs are started by fork and exec.
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
"""Modules that several programs import. None starts a thread or opens a file at import."""

PR_SET_MM, PR_SET_MM_MAP = 35, 14
NO_FILE = 2**32 - 1


class Options(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """supervisord's system calls; only the start of a Python program differs."""

    def execve(self, filename: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Become the program. Called in the child, after its files, working directory and user are set."""
        if sys.platform == "linux" and _is_ours(Path(filename)) and argv[1:2] == ["-m"]:
            with suppress(OSError):  # with supervisord's command line, ps and pgrep would not find the program
                become(argv, env)
        super().execve(filename, argv, env)


def _is_ours(python: Path) -> bool:
    return python.name.startswith("python") and python.parent == Path(sys.executable).parent


def become(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Run `python -m MODULE ARGUMENTS` in this process, and exit as a new interpreter would.

    Raises `OSError`, without any change, if the command line of the process cannot be changed.
    """
    set_command_line(argv)
    gc.freeze()  # inherited garbage may hold closed file descriptors: its finalizers would close files opened later
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
    """The exit status of `sys.exit(code)`."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _leave(status: int) -> NoReturn:
    """Exit as an interpreter does, but without freeing objects: that would close files inherited from supervisord."""
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)


def set_command_line(argv: Sequence[str]) -> None:
    """Replace this process's command line, in the memory of the original one.

    Raises `OSError` if the kernel rejects it, or if the new command line is longer.
    """
    stat = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start_code, end_code, start_stack = map(int, stat[23:26])  # proc(5) counts from 1; two fields precede the bracket
    start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end = map(int, stat[42:49])
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    if len(words) > arg_end - arg_start:
        raise OSError("cannot change the command line: it is longer than the original")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    code_and_data = (start_code, end_code, start_data, end_data, start_brk, libc.sbrk(0), start_stack)
    shown = (arg_start, arg_start + len(words), env_start, env_end)
    prctl_mm_map = struct.pack("=11QQII", *code_and_data, *shown, 0, 0, NO_FILE)
    if libc.prctl(PR_SET_MM, PR_SET_MM_MAP, prctl_mm_map, len(prctl_mm_map), 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot change the command line: the kernel rejects it")
    ctypes.memmove(arg_start, words, len(words))


def main() -> None:
    """Run supervisord until it is asked to exit."""
    if sys.platform == "linux":
        for name in SHARED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # a collection writes to each object, which would copy its memory page in each fork
    is_first = True
    while True:  # the same loop as in supervisord's main()
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
