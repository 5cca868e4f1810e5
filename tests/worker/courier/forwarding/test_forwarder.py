"""A forward to an HTTP endpoint: what is sent, how often, and what becomes of it when anything is in the way."""

from __future__ import annotations

import hashlib
import hmac
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telemetry.config.settings import Forward
from telemetry.model.errors import BusyError, SenderError, StoreError
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from tests.senders import wait_until
from tests.worker.courier.conftest import Made
from tests.worker.courier.forwards import Forwards, KillAt, Killed, cleaned, received, run
from tests.worker.courier.receiver import HANG_UP, NO_ANSWER, Post, Receiver
from worker.courier.alerts.events import SIGNATURE, TIMESTAMP
from worker.courier.delivery.backoff import LONGEST_ASKED_S
from worker.courier.delivery.state_db import Store


def entry(receiver: Receiver, **more: Any) -> Forward:
    return Forward(**{"name": "hq", "url": receiver.url, "start": "all", **more})


def keys(receiver: Receiver) -> list[str]:
    return [post.headers["Idempotency-Key"] for post in receiver.posts]


def test_each_save_is_sent_once_and_merges_are_not(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    hq = forwards(entry(receiver))
    run(hq)
    for _ in range(3):
        made.save("a", "b", "c", days=2)
        run(hq)
    made.merge()
    run(hq)
    made.save("d")
    run(hq)
    assert received(receiver) == made.ledger.acknowledged
    assert len(set(keys(receiver))) == len(keys(receiver))
    report = hq.report()
    assert (report.sent_records, report.behind_versions, report.trouble) == (10, 0, "")
    assert report.version == made.archive.open().version()
    assert receiver.posts[0].headers["Content-Type"] == "application/x-ndjson"


@pytest.mark.parametrize(("start", "expected"), [("all", {"a": 2, "b": 1}), ("now", {"b": 1})])
def test_a_new_forward_begins_with_all_or_with_now(
    start: str, expected: dict[str, int], made: Made, forwards: Forwards, receiver: Receiver
) -> None:
    made.save("a")
    made.save("a")
    made.merge()
    hq = forwards(entry(receiver, start=start))
    run(hq)
    made.save("b")
    run(hq)
    found: dict[str, int] = {}
    for device, _ in received(receiver).elements():
        found[device] = found.get(device, 0) + 1
    assert found == expected


STEPS = ["begin", "send", "keep", "advance", "done"]


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_loses_nothing_and_repeats_only_what_was_under_way(
    step: str, nth: int, made: Made, forwards: Forwards, receiver: Receiver
) -> None:
    hq = entry(receiver, batch_records=3)
    run(forwards(hq))
    for _ in range(3):
        made.save(*"abcdefg")
    with pytest.raises(Killed):
        run(forwards(hq, KillAt(step, nth)))
    made.merge()
    made.save("h")
    run(forwards(hq))
    found = received(receiver)
    assert found.keys() == made.ledger.acknowledged.keys()
    by_key: dict[str, bytes] = {}
    for post in receiver.posts:
        assert by_key.setdefault(post.headers["Idempotency-Key"], post.body) == post.body, "the same key, the same body"
    assert sum(found.values()) - len(found) <= 3, "one batch at most came twice"
    assert (step == "keep") == (sum(found.values()) > len(found))


def test_a_size_of_batches_that_was_changed_loses_nothing(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    made.save(*"abcdefghij")
    with pytest.raises(Killed):
        run(forwards(entry(receiver, batch_records=4), KillAt("send", 2)))
    run(forwards(entry(receiver, batch_records=3)))
    assert [len(post.lines) for post in receiver.posts] == [4, 3, 3]
    assert received(receiver) == made.ledger.acknowledged


@pytest.mark.parametrize("status", [HANG_UP, NO_ANSWER, 408, 429, 500, 503])
def test_a_receiver_that_has_no_room_gets_the_same_again(
    status: int, made: Made, forwards: Forwards, receiver: Receiver
) -> None:
    made.save()
    bodies: list[bytes] = []

    def answer(post: Post) -> tuple[int, dict[str, str]]:
        bodies.append(post.body)
        return (200, {}) if len(bodies) > 2 else (status, {"Retry-After": "7"})

    receiver.answer = answer
    hq = forwards(entry(receiver))
    for _ in range(2):
        with pytest.raises((BusyError, OSError)) as caught:
            hq.step()
        if status > 0:
            assert isinstance(caught.value, BusyError)
            assert caught.value.retry_after_s == 7
    run(hq)
    assert len(set(bodies)) == 1
    assert received(receiver) == made.ledger.acknowledged


def test_what_is_refused_stops_a_forward_or_is_skipped_and_counted(
    made: Made, forwards: Forwards, receiver: Receiver
) -> None:
    made.save(*"abcd")
    receiver.answer = lambda post: (422, {}) if any(b'"c"' in line for line in post.lines) else (200, {})
    stops = forwards(entry(receiver, batch_records=2))
    for _ in range(2):
        with pytest.raises(SenderError, match="it answers 422 ok"):
            run(stops)
    assert [device for device, _ in received(receiver)] == ["a", "b"]
    skips = forwards(entry(receiver, batch_records=2, on_refused="skip"))
    made.save("e")
    run(skips)
    assert [device for device, _ in received(receiver)] == ["a", "b", "e"]
    assert (skips.report().refused_records, skips.report().sent_records) == (2, 3)


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_wrong_address_or_key_skips_nothing(status: int, made: Made, forwards: Forwards, receiver: Receiver) -> None:
    made.save()
    receiver.answer = lambda _: (status, {})
    hq = forwards(entry(receiver, on_refused="skip"))
    with pytest.raises(SenderError, match=str(status)):
        run(hq)
    receiver.answer = lambda _: (200, {})
    run(hq)
    assert received(receiver) == made.ledger.acknowledged


def test_headers_are_sent(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    made.save()
    run(forwards(entry(receiver, headers={"Authorization": "Bearer x"})))
    assert receiver.posts[0].headers["Authorization"] == "Bearer x"


# What waits ------------------------------------------------------------------------------------------


def test_what_waits_is_measured_while_the_receiver_is_away(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    made.save("a")
    hq = forwards(entry(receiver))
    run(hq)
    receiver.answer = lambda _: (503, {})
    stopped = threading.Event()
    thread = threading.Thread(target=hq.run, args=(stopped,))
    thread.start()
    begun_ms = clock.now_ms()
    made.save("b", "c")
    made.merge()
    wait_until(lambda: hq.report().behind_versions == 2 and bool(hq.report().trouble), 20)
    report = hq.report()
    assert (report.behind_records, report.version) == (2, 1)
    assert report.oldest_waiting_ms is not None
    assert begun_ms - 2 <= report.oldest_waiting_ms <= report.noted_ms
    assert report.behind_bytes > 0
    assert report.behind_s == (report.noted_ms - report.oldest_waiting_ms) / 1_000
    assert report.trouble == "it answers 503 ok"
    receiver.answer = lambda _: (200, {})
    wait_until(lambda: hq.report().behind_versions == 0 and not hq.report().trouble, 20)
    stopped.set()
    thread.join()
    assert received(receiver) == made.ledger.acknowledged


def test_beyond_its_limit_the_oldest_are_given_up_and_counted(
    made: Made, forwards: Forwards, receiver: Receiver
) -> None:
    made.save("a")
    receiver.answer = lambda _: (503, {})
    size_bytes = sum(file.size_bytes for file in made.archive.live(made.archive.open()))
    hq = forwards(entry(receiver, start="now", max_lag_bytes=size_bytes * 5 // 2))
    run(hq)
    for name in "bcde":
        made.save(name)
        with pytest.raises(BusyError):
            run(hq)
        hq.look()
    receiver.answer = lambda _: (200, {})
    run(hq)
    assert [device for device, _ in received(receiver)] == ["d", "e"]
    assert (hq.report().dropped_records, hq.report().dropped_versions) == (2, 2)


# An archive that changes under it --------------------------------------------------------------------


def test_entries_that_are_gone_are_said_and_the_rest_goes_on(
    made: Made, forwards: Forwards, receiver: Receiver
) -> None:
    hq = entry(receiver)
    made.save("a")
    run(forwards(hq))
    for name in "bcd":
        made.save(name)
    cleaned(made.archive, 4)
    found = forwards(hq)
    run(found)
    assert [device for device, _ in received(receiver)] == ["a", "d"]
    assert found.report().dropped_versions == 2


def test_entries_that_were_sent_may_be_cleaned(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    made.save("a")
    made.save("b")
    hq = forwards(entry(receiver))
    run(hq)
    cleaned(made.archive, 2)
    run(hq)
    made.save("c")
    run(hq)
    assert received(receiver) == made.ledger.acknowledged
    assert hq.report().dropped_versions == 0


def test_a_file_that_is_gone_is_said_and_the_rest_goes_on(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    hq = entry(receiver)
    made.save("a")
    run(forwards(hq))
    made.save("b")
    [gone] = [one for one in made.archive.live(made.archive.open()) if one.first_device == "b"]
    Path(gone.path).unlink()
    made.save("c")
    found = forwards(hq)
    run(found)
    assert [device for device, _ in received(receiver)] == ["a", "c"]
    assert (found.report().dropped_records, found.report().dropped_versions) == (1, 1)


def test_without_an_archive_it_waits(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    made.save("a")
    hq = forwards(entry(receiver))
    run(hq)
    away = made.archive.root.rename(made.archive.root.with_name("away"))
    with pytest.raises(StoreError, match="there is no archive"):
        hq.step()
    away.rename(made.archive.root)
    made.save("b")
    run(hq)
    assert received(receiver) == made.ledger.acknowledged


@pytest.mark.parametrize("sees_it_short", [True, False])
def test_an_archive_that_was_put_back_goes_on_where_both_are_alike(
    sees_it_short: bool, made: Made, forwards: Forwards, receiver: Receiver, tmp_path: Path
) -> None:
    hq = forwards(entry(receiver))
    made.save("a")
    shutil.copytree(made.archive.root, tmp_path / "backup")
    for name in "bcd":
        made.save(name)
    run(hq)
    shutil.rmtree(made.archive.root)
    shutil.copytree(tmp_path / "backup", made.archive.root)
    made.shard.client.flushall()
    again = made._replace(shard=set_up(made.shard.client, made.archive, 1)[0])
    if sees_it_short:
        run(hq)
    for name in "xyzw":
        again.save(name)
    run(hq)
    assert [device for device, _ in received(receiver)] == list("abcdxyzw")
    assert set(received(receiver).values()) == {1}
    assert len(set(keys(receiver))) == len(keys(receiver)), "no key came twice with other records"


def test_another_archive_is_sent_from_its_beginning(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    hq = forwards(entry(receiver))
    for name in "ab":
        made.save(name)
    run(hq)
    shutil.rmtree(made.archive.root)
    made.shard.client.flushall()
    again = made._replace(shard=set_up(made.shard.client, made.archive, 1)[0])
    again.save("x")
    run(hq)
    assert [device for device, _ in received(receiver)] == ["a", "b", "x"]


def test_what_was_begun_is_kept_as_it_was_counted(
    made: Made, forwards: Forwards, receiver: Receiver, store: Store
) -> None:
    made.save(*"abcde")
    with pytest.raises(Killed):
        run(forwards(entry(receiver, batch_records=2), KillAt("send", 3)))
    found = store.progress("hq")
    assert found is not None
    assert (found.done_rows, found.number, found.sent_records) == (4, 2, 4)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_pause_without_end_is_not_kept(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    """`Retry-After` of 400 digits is infinite as a number: it must not end the thread that forwards."""
    made.save()
    receiver.answer = lambda _: (503, {"Retry-After": "9" * 400})
    with pytest.raises(BusyError) as caught:
        forwards(entry(receiver)).step()
    assert caught.value.retry_after_s == LONGEST_ASKED_S


def test_requests_are_signed_where_a_secret_is_set(made: Made, forwards: Forwards, receiver: Receiver) -> None:
    """The signature covers the compressed body and the time, and the secret may stand in the environment."""
    made.save()
    run(forwards(entry(receiver, secret="shared")))
    [post] = receiver.posts
    message = post.headers[TIMESTAMP].encode() + b"." + post.body
    assert post.headers[SIGNATURE] == "sha256=" + hmac.new(b"shared", message, hashlib.sha256).hexdigest()
    assert abs(int(post.headers[TIMESTAMP]) - clock.now_ms() // 1_000) < 60
