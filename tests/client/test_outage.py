"""A client with a spool while its box is stopped, killed and started: each record is there once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.box import Box
from tests.client.conftest import Kind
from tests.client.proxy import AFTER, AMID, BEFORE, Proxy
from tests.senders import wait_until
from whimbrel_client import Client, KeyRefused, Sent, Spool

pytestmark = pytest.mark.slow


def some(device: str, count: int, first: int = 0) -> list[dict[str, object]]:
    return [{"device_id": device, "altitude_m": number} for number in range(first, first + count)]


def numbers(box: Box, device: str) -> list[float]:
    with Client(f"http://127.0.0.1:{box.api_port}") as client:
        return [record["altitude_m"] for record in client.records(device_id=device)]


def test_what_is_sent_while_the_box_is_away_arrives_once(kind: Kind, box: Box, proxy: Proxy, tmp_path: Path) -> None:
    with kind(proxy.url, spool=tmp_path) as client:
        assert client.send(some("away", 10)) == Sent(accepted=10)
        proxy.cut.append(AFTER)
        lost = client.send(some("away", 10, 10))
        assert (lost.accepted, lost.waiting) == (0, 10), "it is on the box, but nobody heard so"
        box.stop()
        for first in range(20, 60, 10):
            sent = client.send(some("away", 10, first))
        assert sent.waiting == 50
        assert "cannot ask" in str(sent.error)
    with kind(proxy.url, spool=tmp_path) as client:  # another process could be that
        assert client.drain(timeout_s=0.5).waiting == 50
        box.start()
        proxy.cut.extend([BEFORE, AMID, AFTER, "", AFTER])
        assert client.drain(timeout_s=60) == Sent(accepted=50)
        assert client.send(some("away", 1, 60)) == Sent(accepted=1)
    assert numbers(box, "away") == list(range(61))


def test_a_box_that_is_killed_amid_batches(kind: Kind, box: Box, proxy: Proxy, tmp_path: Path) -> None:
    with kind(proxy.url, spool=tmp_path) as client:
        with client.writer(max_records=20, max_delay_s=0.05) as writer:
            for first in range(0, 3_000, 100):
                for record in some("killed", 100, first):
                    writer.write(record)
                if first == 1_000:
                    box.kill()
                    box.start()
        client.drain(timeout_s=60)
    assert numbers(box, "killed") == list(range(3_000))


def test_a_writer_sends_what_waits_by_itself(kind: Kind, box: Box, proxy: Proxy, tmp_path: Path) -> None:
    with kind(proxy.url, spool=tmp_path) as client, client.writer(max_delay_s=0.05) as writer:
        proxy.cut.extend([BEFORE, BEFORE, AFTER])
        writer.write(device_id="by itself", altitude_m=0)
        wait_until(lambda: writer.totals.accepted == 1, 30)
        assert writer.totals.waiting == 0
    assert numbers(box, "by itself") == [0]


def test_what_was_refused_is_told_and_kept_aside(kind: Kind, proxy: Proxy, tmp_path: Path) -> None:
    with kind(proxy.url, spool=tmp_path) as client:
        sent = client.send([*some("aside", 1), {"device_id": "aside", "latitude": 91}])
        assert (sent.accepted, sent.waiting, [one.field for one in sent.refused]) == (1, 0, ["latitude"])
    assert '"latitude": 91' in (tmp_path / "refused.ndjson").read_text()


SENDING = """
import sys
from whimbrel_client import Client
with Client(sys.argv[1], spool=sys.argv[2]) as client:
    for number in range(1_000_000):
        client.send([{"device_id": sys.argv[3], "altitude_m": number}])
        print(number, flush=True)
"""


def test_a_sender_that_is_killed_again_and_again(kind: Kind, box: Box, proxy: Proxy, tmp_path: Path) -> None:
    """It begins at 0 each time, so that each life is a device of its own."""
    chance = random.Random(7)
    kept = []
    for life in range(3):
        command = [sys.executable, "-c", SENDING, proxy.url, str(tmp_path), f"life {life}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [process.stdout.readline()]
        proxy.cut.extend(chance.choice([BEFORE, AFTER, AMID, ""]) for _ in range(4))
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].splitlines()
        kept.append(int(said[-1]))
    proxy.cut.clear()
    with kind(proxy.url, spool=tmp_path) as client:
        assert client.drain(timeout_s=60).waiting == 0
    for life, last in enumerate(kept):
        found = numbers(box, f"life {life}")
        assert found == list(range(len(found)))
        assert last + 1 <= len(found) <= last + 2


def test_a_wrong_key_keeps_what_waits(kind: Kind, tmp_path: Path) -> None:
    with Box(tmp_path / "box", auth__required="true") as box:
        url = f"http://127.0.0.1:{box.api_port}"
        with kind(url, "wk_wrong", spool=tmp_path / "spool") as client:
            sent = client.send(some("keyed", 2))
            assert sent.waiting == 2
            assert isinstance(sent.error, KeyRefused)
            with pytest.raises(KeyRefused):
                client.drain()
        with Spool(tmp_path / "spool") as spool:
            assert spool.waiting_records == 2
