"""A whole box whose Redis is stopped by SIGSTOP: it does not respond, as on a stuck disk or during swapping."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from benchmarks.crash_ledger.http_sender import HttpWay
from benchmarks.crash_ledger.ledger import Ledger
from benchmarks.crash_ledger.readback import with_duckdb
from benchmarks.crash_ledger.senders import Sender as LedgerSender
from benchmarks.crash_ledger.senders import Way
from benchmarks.crash_ledger.tcp_senders import Frames
from tests.box import Box
from tests.senders import Sender, assert_all_once, post, reasons, server_pid, tcp_answer, wait_until

pytestmark = pytest.mark.slow

SILENT = "cannot reach Redis: Timeout"

FIRST_ANSWER_S = 20
"""Who is with Redis as it falls silent waits this long at most: 15 s and what the machine adds; who was behind it, or
comes later, a few seconds more than it takes to look whether Redis still is."""

LATER_ANSWER_S = 8


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """One box for both: each must leave it as it was."""
    with (
        tempfile.TemporaryDirectory(prefix="silent-") as folder,
        Box(Path(folder), persist__flush_seconds="1", data__min_free_bytes="0") as found,
    ):
        yield found
        assert found.stop() == 0


@contextmanager
def silent_redis(box: Box) -> Iterator[None]:
    """Its Redis stands still and runs on afterwards."""
    pid = server_pid(box)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def repeating(box: Box, ledger: Ledger, name: str) -> Iterator[None]:
    """Senders that give up after a second and send the same again, over HTTP with a key and in frames of a sender."""
    complain = partial(ledger.anomaly, "wrong answer to a sender")
    ways: tuple[Way, ...] = (
        HttpWay((box.http_port,), "json", True, False, complain),
        Frames(box.tcp_port, True, complain),
    )
    senders = [
        LedgerSender(f"{name} {number}", ledger, way, random.Random(number), 5, (1, 8), 0.1)
        for number, way in enumerate(ways)
    ]
    for sender in senders:
        sender.start()
    try:
        yield
    finally:
        for sender in senders:
            sender.stop(time.monotonic() + 60)
        for sender in senders:
            sender.join()


def took_s(since_s: float) -> float:
    return time.monotonic() - since_s


def test_for_a_moment_answers_come_late(box: Box, tmp_path: Path) -> None:
    with Sender(box, device="moment") as sender:
        wait_until(lambda: len(sender.acknowledged) > 50)
        with silent_redis(box):
            time.sleep(5)
        before = len(sender.acknowledged)
        wait_until(lambda: len(sender.acknowledged) > before + 50)
    assert (sender.refused, sender.others) == (0, set())
    assert 4 < sender.longest_s < 10
    wait_until(lambda: reasons(box) == [], 10)
    assert_all_once(box, tmp_path, sender.acknowledged, "moment")


def test_for_long_senders_hear_so_and_all_goes_on_by_itself(box: Box, tmp_path: Path) -> None:
    ledger = Ledger()
    with Sender(box, device="long") as sender, repeating(box, ledger, "long"):
        wait_until(lambda: len(sender.acknowledged) > 50 and len(ledger.entries) > 50)
        with silent_redis(box):
            begun_s = time.monotonic()
            assert SILENT in reasons(box)[0]
            assert took_s(begun_s) < FIRST_ANSWER_S
            wait_until(lambda: sender.refused > 0, FIRST_ANSWER_S - took_s(begun_s))
            for _ in range(2):
                asked_s = time.monotonic()
                answer = post(box, 0, device="asks")
                assert (answer.status_code, SILENT in answer.json()["detail"]) == (503, True)
                assert took_s(asked_s) < LATER_ANSWER_S
                asked_s = time.monotonic()
                answered = tcp_answer(box)
                assert (answered["retry"], SILENT in str(answered["error"])) == (True, True)
                assert took_s(asked_s) < LATER_ANSWER_S
            time.sleep(max(0.0, 30 - took_s(begun_s)))
        before = len(sender.acknowledged)
        wait_until(lambda: len(sender.acknowledged) > before + 50, 15)
        wait_until(lambda: reasons(box) == [], 15)
    assert sender.others == set()
    assert sender.longest_s < FIRST_ANSWER_S
    assert_all_once(box, tmp_path, sender.acknowledged, "long")
    check(box, ledger)


def check(box: Box, ledger: Ledger) -> None:
    """See that each record of the ledger that was acknowledged is in the archive once."""
    devices = {entry.device_id for entry in ledger.entries}
    rows = [row for row in with_duckdb(box.data / "archive") if row.device_id in devices]
    verdict = ledger.judge({"duckdb": rows})
    assert (verdict.lost, verdict.doubled, ledger.anomalies) == (0, 0, {}), [*verdict.offenders, *ledger.named]
    assert verdict.acknowledged > 100
