"""Telling a webhook: signed, in order, again and again until it has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from telemetry.model.errors import BusyError
from telemetry.system import clock
from telemetry.system.failpoints import Step, no_step_reporter
from tests.box import PROJECT
from tests.worker.courier.forwards import KillAt, Killed
from tests.worker.courier.receiver import HANG_UP, NO_ANSWER, Post, Receiver
from worker.courier.alerts.events import box_event
from worker.courier.alerts.notifier import MOST_EVENTS, Teller
from worker.courier.delivery.backoff import LONGEST_ASKED_S, Patience
from worker.courier.delivery.http_client import Peer, shown
from worker.courier.delivery.state_db import Store

SECRET = "hush"
NOW_MS = 1_795_500_000_000

Make = Callable[..., Teller]


@pytest.fixture
def teller(store: Store, receiver: Receiver) -> Iterator[Make]:
    """Makes what tells the receiver, each as after a start of the program."""
    peers: list[Peer] = []

    def make(reached: Step = no_step_reporter, secret: str = SECRET, timeout_s: float = 5) -> Teller:
        peers.append(Peer(receiver.url, timeout_s))
        patience = Patience(1, lambda: 0.0)
        return Teller(
            *("desk", shown(receiver.url), "box", secret, peers[-1], store, patience, lambda: NOW_MS, reached)
        )

    yield make
    for peer in peers:
        peer.close()


def add(store: Store, count: int) -> list[str]:
    """Have events wait; their ids."""
    bodies = [box_event([f"reason {number}"], clock.now_ms()) for number in range(count)]
    store.add_events("desk", bodies)
    return [json.loads(body)["id"] for body in bodies]


def told(receiver: Receiver) -> list[str]:
    """The ids of the events that the receiver has."""
    return [event["id"] for post in receiver.posts for event in json.loads(post.body)["events"]]


def verified(secret: bytes, headers: dict[str, str], body: bytes, now_s: float) -> bool:
    """As docs/operations/forward.md says, in its own words."""
    page = (PROJECT / "docs" / "operations" / "forward.md").read_text(encoding="utf-8")
    code = page[page.index("import hashlib, hmac, time") :].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    names["time"] = SimpleNamespace(time=lambda: now_s)
    is_genuine: bool = names["is_genuine"](secret, headers, body)
    return is_genuine


def test_a_post_is_signed(teller: Make, store: Store, receiver: Receiver) -> None:
    add(store, 1)
    teller().step()
    [post] = receiver.posts
    assert verified(SECRET.encode(), post.headers, post.body, NOW_MS / 1_000)
    assert not verified(b"other", post.headers, post.body, NOW_MS / 1_000)
    assert not verified(SECRET.encode(), post.headers, post.body + b" ", NOW_MS / 1_000)
    assert not verified(SECRET.encode(), post.headers, post.body, NOW_MS / 1_000 + 301)
    assert post.headers["Content-Type"] == "application/json"
    assert json.loads(post.body)["host"] == "box"


def test_without_a_secret_it_is_not_signed(teller: Make, store: Store, receiver: Receiver) -> None:
    add(store, 1)
    teller(secret="").step()
    assert not [name for name in receiver.posts[0].headers if name.startswith("Whimbrel-")]


def test_events_come_in_order_some_in_a_post(teller: Make, store: Store, receiver: Receiver) -> None:
    ids = add(store, MOST_EVENTS + 20)
    desk = teller()
    assert [desk.step(), desk.step(), desk.step()] == [True, True, False]
    assert told(receiver) == ids
    assert len(receiver.posts) == 2
    report = desk.report()
    assert (report.pending_events, report.sent_events, report.last_success_ms) == (0, MOST_EVENTS + 20, NOW_MS)


@pytest.mark.parametrize("status", [HANG_UP, NO_ANSWER, 301, 400, 401, 404, 410, 429, 500, 503])
def test_whatever_is_wrong_it_is_told_again(status: int, teller: Make, store: Store, receiver: Receiver) -> None:
    ids = add(store, 3)
    receiver.answer = lambda _: (status, {"Retry-After": "7"})
    desk = teller(timeout_s=0.5)
    for _ in range(2):
        with pytest.raises((BusyError, OSError)) as caught:
            desk.step()
        assert not isinstance(caught.value, BusyError) or caught.value.retry_after_s == 7
    assert desk.report().pending_events == 3
    receiver.answer = lambda _: (200, {})
    assert desk.step()
    assert told(receiver) == ids


@pytest.mark.parametrize(("step", "times"), [("post", 1), ("forget", 2)])
def test_killed_on_the_way_it_is_told_again_under_the_same_id(
    step: str, times: int, teller: Make, store: Store, receiver: Receiver
) -> None:
    ids = add(store, 2)
    with pytest.raises(Killed):
        teller(KillAt(step)).step()
    teller().step()
    assert told(receiver) == ids * times
    assert teller().report().pending_events == 0


def test_what_waits_outlives_the_program(teller: Make, store: Store, receiver: Receiver, tmp_path: Path) -> None:
    ids = add(store, 2)
    store.close()
    again = Store(tmp_path / "courier")
    peer = Peer(receiver.url, 5)
    more: tuple[Any, ...] = (peer, again, Patience(1), lambda: NOW_MS)
    Teller("desk", receiver.url, "box", SECRET, *more).step()
    peer.close()
    again.close()
    assert told(receiver) == ids


def test_a_trouble_is_shown(teller: Make, store: Store, receiver: Receiver) -> None:
    add(store, 1)
    answers: Iterator[tuple[int, dict[str, str]]] = iter([(503, {}), (200, {})])

    def answer(_post: Post) -> tuple[int, dict[str, str]]:
        shown_troubles.append(desk.report().trouble)
        return next(answers)

    shown_troubles: list[str] = []
    receiver.answer = answer
    desk = teller()

    class Rounds:
        """Stops after two rounds."""

        def __init__(self) -> None:
            self.left = 3

        def is_set(self) -> bool:
            self.left -= 1
            return self.left < 0

        def wait(self, _seconds: float) -> None:
            """Don't."""

    desk.run(Rounds())  # type: ignore[arg-type]
    assert shown_troubles == ["", "it answers 503 ok"]
    assert desk.report().trouble == ""


def test_a_pause_without_end_is_not_kept(teller: Make, store: Store, receiver: Receiver) -> None:
    """`Retry-After` of 400 digits is infinite as a number: it must not end the thread that posts."""
    add(store, 1)
    receiver.answer = lambda _: (503, {"Retry-After": "9" * 400})
    with pytest.raises(BusyError) as caught:
        teller().step()
    assert caught.value.retry_after_s == LONGEST_ASKED_S
