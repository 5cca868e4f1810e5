"""Background loops that survive unexpected errors."""

from __future__ import annotations

import asyncio

import pytest

from telemetry.observability import metrics
from telemetry.system import periodic
from telemetry.system.periodic import backoff_s, run_periodically


def test_a_loop_goes_on_after_errors_which_are_logged_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(periodic, "FIRST_WAIT_S", 0.01)
    counted = metrics.LOOP_ERRORS.of("test").value

    async def test() -> int:
        runs, is_done = 0, asyncio.Event()

        async def act() -> None:
            nonlocal runs
            runs += 1
            if runs < 3:
                raise LookupError(f"run {runs}")
            is_done.set()

        task = asyncio.create_task(run_periodically("test", 0.001, act))
        async with asyncio.timeout(10):
            await is_done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        return runs

    assert asyncio.run(test()) >= 3
    assert metrics.LOOP_ERRORS.of("test").value == counted + 2
    assert [str(one.exc_info[1]) for one in caplog.records if one.exc_info] == ["run 1", "run 2"]


def test_waits_double_up_to_the_longest() -> None:
    assert [backoff_s(failures) for failures in (0, 1, 2, 3, 4, 5, 6, 9_999)] == [0, 1, 2, 4, 8, 15, 15, 15]
