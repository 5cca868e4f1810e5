"""Signing in with a password: one check at a time, with back-off after failed attempts.

Counts of attempts are kept in this process, of which a box has one; a restart clears them. Each check takes about
0.25 s of one core, in a single thread: however many attempts come, they take at most one core, and `MAX_WAITING` wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from telemetry.access.passwords import MAX_BYTES, verify
from telemetry.access.users import MAX_NAME_CHARACTERS, User
from telemetry.http.problem_responses import ProblemError
from telemetry.limits.backoff import Backoff
from telemetry.model import problems

MAX_WAITING = 16
RETRY_S = 2

MAX_WAIT_S, FORGET_S = 300.0, 3_600.0
FREE_OF_USER, FREE_OF_ADDRESS = 5, 20
"""Attempts before the first wait. More people may be behind one address than have one name."""

MAX_KNOWN = 100_000
"""Names, and addresses, whose attempts are counted; about 200 bytes each."""


class Passwords:
    """Checks passwords. Belongs to the event loop."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._of_users = Backoff(FREE_OF_USER, MAX_WAIT_S, FORGET_S, MAX_KNOWN, clock_s)
        self._of_addresses = Backoff(FREE_OF_ADDRESS, MAX_WAIT_S, FORGET_S, MAX_KNOWN, clock_s)
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._waiting = 0

    async def check(self, name: str, user: User | None, password: str, address: str) -> User:
        """The user, if this is the password. Raises `ProblemError`: wrong, tried too often, or too many at once.

        A name that does not exist takes the same time and is answered alike.
        """
        name = name[: MAX_NAME_CHARACTERS + 1]
        self._begin(name, address)
        stored = user.password if user is not None and not user.is_disabled else ""
        fits = len(password) <= MAX_BYTES
        is_right = await self._verified(password if fits else "", stored if fits else "")
        if user is None or not is_right:
            raise ProblemError(problems.WRONG_LOGIN, "check both; an administrator can set a new password")
        self._of_users.clear(name)
        self._of_addresses.take_back(address)
        return user

    def _begin(self, name: str, address: str) -> None:
        wait_s = max(self._of_users.wait_s(name), self._of_addresses.wait_s(address))
        if wait_s:
            whole_s = math.ceil(wait_s)
            headers = {"Retry-After": str(whole_s)}
            raise ProblemError(problems.LOGINS_LIMITED, f"cannot sign in yet: try again in {whole_s} s", headers)
        if self._waiting >= MAX_WAITING:
            headers = {"Retry-After": str(RETRY_S)}
            raise ProblemError(problems.BUSY, "cannot sign in now: too many people do; try again", headers)
        self._of_users.begin(name)
        self._of_addresses.begin(address)

    async def _verified(self, password: str, stored: str) -> bool:
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, verify, password, stored)
        finally:
            self._waiting -= 1
