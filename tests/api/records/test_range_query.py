"""Records of any range over HTTP: the same answer before a save, half-way and after it, page by page."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import duckdb
import httpx
import pytest

from api.execution.query_pool import Queries
from api.execution.slots import SlotLimits
from telemetry.archive.operations import commits
from telemetry.archive.table import commit_number
from telemetry.http.problem_responses import ProblemError
from telemetry.model.errors import IntentChanged
from telemetry.model.record import EARLIEST_US, Sent, Stored
from telemetry.model.utc import DAY_US
from telemetry.system import clock
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.conftest import RedisServer
from worker.recovery import recover
from worker.saving.save_budget import Bounds

MIDNIGHT_US = 1_768_003_200_000_000
"""2026-01-10T00:00:00Z."""

HOUR_US = 3_600_000_000
ATTRIBUTES = '{"big":123456789012345678901234567890,"exact":2.50,"ü":"😀","deep":{"a":[1,null,true,{}]},"e":""}'

# Each line is one group of records, in the order of their arrival.
GROUPS = [
    [Sent("a", record(MIDNIGHT_US - 1)), Sent("a", record(MIDNIGHT_US)), Sent("b", record(MIDNIGHT_US))],
    [Sent("a", record(MIDNIGHT_US + 1)), Sent("b", record(MIDNIGHT_US)), Sent("a", record(MIDNIGHT_US))],
    [Sent("ü/😀%", record(MIDNIGHT_US + HOUR_US, "tcp", fix=False, attributes=ATTRIBUTES))],
    [Sent("o'brien\\\"\n", record(MIDNIGHT_US + HOUR_US, speed_kmh=60.0, location="x'y\nü\u2028"))],
    [Sent("a", record(MIDNIGHT_US - 30 * DAY_US)), Sent("a", record(MIDNIGHT_US + DAY_US - 1))],
    [Sent("b", record(MIDNIGHT_US + DAY_US)), Sent("b", record(EARLIEST_US)), Sent("b", record(MIDNIGHT_US - 1))],
    [Sent("a", record(MIDNIGHT_US + 12 * HOUR_US + n * 1_000)) for n in range(9)],
    [Sent("a", record(MIDNIGHT_US)), Sent("c", record(MIDNIGHT_US + 500_000, altitude_m=-0.0, heading_deg=1e300))],
]


def save_half(box: Box) -> None:
    """Leave some records saved, some not, of one device both."""
    box.save(bounds=Bounds(max_devices=1))


STAGES: dict[str, tuple[Callable[[Box], None], Callable[[Box], None]]] = {
    "before saving": (lambda _: None, lambda _: None),
    "half-way": (Box.save, save_half),
    "after saving": (Box.save, Box.save),
}
"""What is saved when half of the groups are in, and when all are."""


class Corpus:
    """A box with the records of GROUPS, and these as they are at rest."""

    def __init__(self, box: Box, stage: str) -> None:
        self.box = box
        self.stored: list[Stored] = []
        first, second = STAGES[stage]
        for number, group in enumerate(GROUPS):
            if number == len(GROUPS) // 2:
                first(box)
            self.stored += box.append(*group)
        second(box)

    def expected(self, is_wanted: Callable[[Stored], bool]) -> list[dict[str, Any]]:
        return [shown(one) for one in in_order(self.stored) if is_wanted(one)]


def in_order(stored: Iterable[Stored]) -> list[Stored]:
    return sorted(stored, key=lambda one: (one.record.timestamp_us, one.id))


def iso(timestamp_us: int) -> str:
    seconds, fraction = divmod(timestamp_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{fraction:06}Z"


def moment(record: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(record["timestamp"])


def shown(stored: Stored) -> dict[str, Any]:
    """What JSON shows of a record, told another way than the API does."""
    r = stored.record
    return {
        "device_id": stored.device_id,
        "timestamp": iso(r.timestamp_us),
        "received_at": iso(stored.received_ms * 1_000),
        "id": stored.id,
        **{name: getattr(r, name) for name in ("transport", "source", "latitude", "longitude", "altitude_m")},
        **{name: getattr(r, name) for name in ("speed_kmh", "heading_deg", "accuracy_m", "location")},
        "attributes": None if r.attributes is None else json.loads(r.attributes),
    }


@pytest.fixture(scope="module", params=STAGES)
def corpus(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Corpus]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("history"), redis__shards="2") as box:
        yield Corpus(box, request.param)


@pytest.fixture
def fresh(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box for one test."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("history")) as box:
        yield box


Query = list[tuple[str, str | int]]


def ask(box: Box, query: Query) -> list[dict[str, Any]]:
    """One page that holds all."""
    answer = box.get("/v1/records", *query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found) == ["records", "next_cursor"]
    assert found["next_cursor"] is None
    return found["records"]  # type: ignore[no-any-return]


def walk(
    box: Box, query: Query, limit: int, between: Callable[[], None] = lambda: None
) -> Iterator[list[dict[str, Any]]]:
    """Page after page; `between` is called between two."""
    cursor: Query = []
    while True:
        answer = box.get("/v1/records", ("limit", limit), *query, *cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["records"]) <= limit
        yield page["records"]
        if page["next_cursor"] is None:
            return
        assert len(page["records"]) == limit
        cursor = [("cursor", page["next_cursor"])]
        between()


def spans(start_us: int, end_us: int, *devices: str) -> Callable[[Stored], bool]:
    return lambda one: start_us <= one.record.timestamp_us < end_us and (not devices or one.device_id in devices)


FOREVER_US = 2**62
DAY_END_US = MIDNIGHT_US + DAY_US
NOON_US = MIDNIGHT_US + 12 * HOUR_US

QUESTIONS: dict[str, tuple[Query, Callable[[Stored], bool]]] = {
    "all": ([], spans(0, FOREVER_US)),
    "one device": ([("device_id", "a")], spans(0, FOREVER_US, "a")),
    "two devices, one unknown, one twice": (
        [("device_id", "b"), ("device_id", "nobody"), ("device_id", "ü/😀%"), ("device_id", "b")],
        spans(0, FOREVER_US, "b", "ü/😀%"),
    ),
    "quotes, backslash and line break": ([("device_id", "o'brien\\\"\n")], spans(0, FOREVER_US, "o'brien\\\"\n")),
    "unknown device": ([("device_id", "nobody")], lambda _: False),
    "no device's id": ([("device_id", "")], lambda _: False),
    "an id that no device can have": ([("device_id", "a\0' OR 1=1 --")], lambda _: False),
    "start is inclusive": ([("start", "2026-01-10T00:00:00Z")], spans(MIDNIGHT_US, FOREVER_US)),
    "end is exclusive": ([("end", "2026-01-10T00:00:00Z")], spans(0, MIDNIGHT_US)),
    "one microsecond": (
        [("start", "2026-01-10T00:00:00.000001Z"), ("end", "2026-01-10T00:00:00.000002Z")],
        spans(MIDNIGHT_US + 1, MIDNIGHT_US + 2),
    ),
    "a whole day": ([("start", "2026-01-10"), ("end", "2026-01-10")], spans(MIDNIGHT_US, DAY_END_US)),
    "two whole days": ([("start", "2026-01-10"), ("end", "2026-01-11")], spans(MIDNIGHT_US, DAY_END_US + DAY_US)),
    "a day to an instant": (
        [("start", "2026-01-10"), ("end", "2026-01-10T12:00:00Z")],
        spans(MIDNIGHT_US, NOON_US),
    ),
    "epoch seconds": ([("start", MIDNIGHT_US // 10**6), ("end", NOON_US // 10**6)], spans(MIDNIGHT_US, NOON_US)),
    "epoch with a fraction": ([("start", "1768003200.000001")], spans(MIDNIGHT_US + 1, FOREVER_US)),
    "without a zone": ([("start", "2026-01-10T12:00:00.001")], spans(NOON_US + 1_000, FOREVER_US)),
    "in a zone": ([("start", "2026-01-10T03:00:00+03:00")], spans(MIDNIGHT_US, FOREVER_US)),
    "in a zone, its plus a space": ([("start", "2026-01-10T03:00:00 03:00")], spans(MIDNIGHT_US, FOREVER_US)),
    "in a zone west": ([("end", "2026-01-09T19:00:00-05:00")], spans(0, MIDNIGHT_US)),
    "before the day of a late record": ([("end", "2026-01-01")], spans(0, MIDNIGHT_US - 9 * DAY_US + DAY_US)),
    "from before all time to after it": ([("start", "0001-01-01"), ("end", "9999-12-31")], spans(0, FOREVER_US)),
    "start after end": ([("start", "2026-01-11"), ("end", "2026-01-09")], lambda _: False),
    "start is end": ([("start", "2026-01-10T00:00:00Z"), ("end", "2026-01-10T00:00:00Z")], lambda _: False),
    "a day without records": ([("start", "2026-01-05"), ("end", "2026-01-05")], lambda _: False),
    "all at once": (
        [("device_id", "a"), ("device_id", "b"), ("start", "2026-01-09"), ("end", "2026-01-10"), ("limit", 50_000)],
        spans(MIDNIGHT_US - DAY_US, DAY_END_US, "a", "b"),
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_is_what_is_wanted_in_its_order(corpus: Corpus, question: str) -> None:
    query, is_wanted = QUESTIONS[question]
    expected = corpus.expected(is_wanted)
    assert ask(corpus.box, query) == expected
    assert ask(corpus.box, [*query, ("order", "asc")]) == expected
    assert ask(corpus.box, [*query, ("order", "desc")]) == expected[::-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 7, 23, 24, 25])
def test_pages_to_the_end_are_one_large_page(corpus: Corpus, order: str, limit: int) -> None:
    assert len(corpus.stored) == 24
    whole = ask(corpus.box, [("order", order)])
    pages = list(walk(corpus.box, [("order", order)], limit))
    assert [one for page in pages for one in page] == whole
    assert len(pages) == -(-24 // limit), "no empty page at the end"


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_cursor_works_with_any_filter(corpus: Corpus, order: str) -> None:
    query: Query = [
        ("device_id", "a"),
        ("device_id", "b"),
        ("start", "2026-01-09"),
        ("end", "2026-01-10"),
        ("order", order),
    ]
    assert [one for page in walk(corpus.box, query, 3) for one in page] == ask(corpus.box, query)


def test_ties_are_broken_by_id(corpus: Corpus) -> None:
    found = [one for one in ask(corpus.box, []) if one["timestamp"] == "2026-01-10T00:00:00.000000Z"]
    assert [one["id"] for one in found] == sorted(one["id"] for one in found)
    assert len(found) == 5
    assert {one["device_id"] for one in found} == {"a", "b"}


def test_attributes_come_back_as_they_were_sent(corpus: Corpus) -> None:
    answer = corpus.box.get("/v1/records", ("device_id", "ü/😀%"))
    assert f'"attributes":{ATTRIBUTES}}}' in answer.text
    assert answer.json()["records"][0]["attributes"]["big"] == 123456789012345678901234567890


def test_without_a_limit_a_page_has_a_thousand(fresh: Box) -> None:
    fresh.append(*(Sent("a", record(MIDNIGHT_US + n)) for n in range(1_001)))
    answer = fresh.get("/v1/records").json()
    assert len(answer["records"]) == 1_000
    assert answer["next_cursor"] is not None
    assert len(fresh.get("/v1/records", ("cursor", answer["next_cursor"])).json()["records"]) == 1


def test_head_is_get_without_a_body(corpus: Corpus) -> None:
    headed = corpus.box.http.head("/v1/records", headers={"Accept-Encoding": "identity"})
    assert headed.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-length"] == str(len(corpus.box.http.get("/v1/records").content))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("start", text) for text in ("yesterday", "2026-02-30", "nan", "2026-01-10T10:25:00+25:00", "\0")),
        *(("end", text) for text in ("tomorrow", "2026-13-01T00:00:00Z", "24/11/2026")),
        *(("limit", text) for text in ("0", "-1", "50001", "1e3", "x", "", "0000050000999", "9" * 5_000)),
        *(("cursor", text) for text in ("x", "1", "1-", "-1-1", "1-2-3", "9" * 17 + "-1")),
        *(("order", text) for text in ("up", "DESC", "")),
        ("devise_id", "a"),
    ],
)
def test_what_can_not_be_used_is_refused_by_name(corpus: Corpus, name: str, value: str) -> None:
    answer = corpus.box.get("/v1/records", (name, value))
    found = assert_problem(answer, 400, "invalid-parameter")
    assert found["parameter"] == name
    assert str(found["detail"]).startswith(f"{name} ")


def test_more_devices_than_may_be_named_are_refused(corpus: Corpus) -> None:
    many: Query = [("device_id", n) for n in range(1_000)]
    assert ask(corpus.box, many) == []
    found = assert_problem(corpus.box.get("/v1/records", *many, ("device_id", "x")), 400, "invalid-parameter")
    assert found["parameter"] == "device_id"


# While records arrive and are saved ------------------------------------------------------------------


def test_answers_stay_the_same_through_a_save(fresh: Box) -> None:
    for group in GROUPS:
        fresh.append(*group)
    before = {name: fresh.get("/v1/records", *query).content for name, (query, _) in QUESTIONS.items()}
    for _ in range(len(GROUPS)):
        save_half(fresh)
        after = {name: fresh.get("/v1/records", *query).content for name, (query, _) in QUESTIONS.items()}
        assert after == before
    assert fresh.shards[0].unsaved() == 0


def test_accepted_means_visible(fresh: Box) -> None:
    for number in range(5):
        sent = {"device_id": "a", "timestamp": MIDNIGHT_US // 10**6 + number, "n": number}
        assert fresh.http.post("/v1/records", json=sent).status_code == 202
        assert [one["attributes"] for one in ask(fresh, [])] == [{"n": n} for n in range(number + 1)]
        if number % 2:
            fresh.save()


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("seed", range(3))
def test_pages_hold_what_was_there_before_the_first_exactly_once(fresh: Box, order: str, seed: int) -> None:
    chance = random.Random(seed)

    def arrive(many: int) -> list[Stored]:
        return fresh.append(
            *(Sent(chance.choice("abc"), record(MIDNIGHT_US + chance.randint(-3, 3))) for _ in range(many))
        )

    def between() -> None:
        arrive(chance.randint(0, 3))
        if chance.random() < 0.6:
            fresh.save(bounds=Bounds(max_records=chance.choice([1, 5, 100])))

    before = arrive(20)
    fresh.save(bounds=Bounds(max_records=8))
    before += arrive(10)
    pages = list(walk(fresh, [("order", order)], 4, between))
    seen = [(moment(one), one["id"]) for page in pages for one in page]
    assert seen == sorted(set(seen), reverse=order == "desc"), "each once, in order"
    assert {one.id for one in before} <= {number for _, number in seen}


def test_no_gap_and_no_double_while_a_worker_saves_all_the_time(fresh: Box) -> None:
    before = fresh.append(*(Sent(f"d{n % 7}", record(MIDNIGHT_US + n % 11 * HOUR_US * 3)) for n in range(60)))
    expected = {one.id for one in before}
    stop = threading.Event()
    chance = random.Random(7)

    saves: list[int] = []

    def work() -> None:
        while not stop.is_set():
            fresh.append(Sent(chance.choice("xyz"), record(MIDNIGHT_US + chance.randint(0, 40) * HOUR_US)))
            fresh.save(bounds=Bounds(max_records=chance.choice([1, 3, 1000])))
            saves.append(1)

    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(work)
        try:
            end_s = time.monotonic() + 1.5
            while time.monotonic() < end_s or (len(saves) <= 10 and not saving.done()):
                ids = [one["id"] for page in walk(fresh, [], 40) for one in page]
                assert len(set(ids)) == len(ids), "a double"
                assert expected <= set(ids), "a gap"
        finally:
            stop.set()
        saving.result()


# When it can't be answered ---------------------------------------------------------------------------


def test_an_archive_of_another_redis_is_said_and_mended_by_recover(fresh: Box) -> None:
    fresh.append(Sent("a", record(MIDNIGHT_US)))
    fresh.save()
    [late] = fresh.append(Sent("a", record(MIDNIGHT_US + 1)))
    before = ask(fresh, [])
    [shard] = fresh.shards
    foreign = commit_number(commit_number(shard.state().committed))
    commits.commit(fresh.archive, fresh.archive.open(), [], 0, foreign, clock.now_ms())
    answer = fresh.get("/v1/records")
    assert "whimbrel recover" in str(assert_problem(answer, 503, "not-together")["detail"])
    assert int(answer.headers["retry-after"]) > 0
    recover(shard, fresh.archive, fresh.connection, clock.now_ms())
    after = ask(fresh, [])
    assert after[0] == before[0]
    assert after[1]["id"] > late.id, "it may be told apart from what the archive has"
    assert after[1] | {"id": late.id} == before[1]


def test_an_emptied_redis_beside_its_archive_answers_again_once_set_up(fresh: Box) -> None:
    fresh.append(Sent("a", record(MIDNIGHT_US)))
    fresh.save()
    before = ask(fresh, [])
    fresh.client.flushall()
    assert "not set up" in str(assert_problem(fresh.get("/v1/records"), 503, "busy")["detail"])
    fresh.set_up()
    assert ask(fresh, []) == before
    [stored] = fresh.append(Sent("a", record(MIDNIGHT_US + 1)))
    assert ask(fresh, []) == [*before, shown(stored)]
    assert stored.id > before[0]["id"]


def test_without_redis_it_says_so_and_recovers(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with box_on(own_redis.url, tmp_path_factory.mktemp("away")) as box:
        stored = box.append(Sent("a", record(MIDNIGHT_US)))
        box.save()
        stored += box.append(Sent("a", record(MIDNIGHT_US + 1)))
        own_redis.kill()
        for _ in range(2):
            answer = box.get("/v1/records")
            assert "Redis" in str(assert_problem(answer, 503, "busy")["detail"])
            assert int(answer.headers["retry-after"]) > 0
        own_redis.start()
        assert ask(box, []) == [shown(one) for one in stored]


def test_a_full_queue_is_an_answer(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("full")
    with box_on(own_redis.url, folder, api__query_threads="1", api__query_queue="1") as box:
        box.append(Sent("a", record(MIDNIGHT_US)))
        assert len(ask(box, [])) == 1
        box.client.client_pause(700, all=True)
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: box.get("/v1/records"), range(5)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) == 3
        for answer in refused:
            assert "too many queries" in str(assert_problem(answer, 503, "busy")["detail"])
            assert int(answer.headers["retry-after"]) > 0
        assert len(ask(box, [])) == 1


async def busy(queries: Queries, ask: Callable[[duckdb.DuckDBPyConnection], object]) -> str:
    with pytest.raises(ProblemError) as caught:
        await queries.run(ask)
    assert caught.value.kind.status == 503
    return str(caught.value)


def test_a_query_has_its_time_and_the_next_one_has_its_own(connection: duckdb.DuckDBPyConnection) -> None:
    async def run() -> None:
        queries = Queries(connection, SlotLimits(1, 1, 5), 0.05)
        said = await busy(
            queries, lambda c: c.execute("SELECT sum(hash(r.range)) FROM range(100000000000) r").fetchall()
        )
        assert "0.05 s" in said
        assert await queries.run(lambda c: c.execute("SELECT 1").fetchall()) == [(1,)]
        await queries.close()

    asyncio.run(run())


def test_threads_and_places_are_bounded_and_come_back(connection: duckdb.DuckDBPyConnection) -> None:
    async def run() -> None:
        queries = Queries(connection, SlotLimits(2, 3, 5), 5)
        go = threading.Event()
        running: list[str] = []

        def wait(cursor: duckdb.DuckDBPyConnection) -> int:
            running.append(threading.current_thread().name)
            assert go.wait(5)
            return len(cursor.execute("SELECT 1").fetchall())

        for _ in range(2):
            go.clear()
            running.clear()
            tasks = [asyncio.create_task(queries.run(wait)) for _ in range(5)]
            await asyncio.sleep(0.05)
            assert len(running) == 2
            assert "too many queries" in await busy(queries, wait)
            go.set()
            assert await asyncio.gather(*tasks) == [1] * 5
        await queries.close()

    asyncio.run(run())


def test_what_a_query_raises_gives_its_place_back(connection: duckdb.DuckDBPyConnection) -> None:
    def fail(_: duckdb.DuckDBPyConnection) -> None:
        raise IntentChanged("cannot reach Redis")

    async def run() -> None:
        queries = Queries(connection, SlotLimits(1, 1, 5), 5)
        for _ in range(5):
            assert await busy(queries, fail) == "cannot reach Redis"
        await queries.close()

    asyncio.run(run())


def test_a_query_that_ends_at_once_gives_its_place_back(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread may have the answer before the loop hears that it began."""

    def at_once(_: ThreadPoolExecutor, work: Callable[..., object], *args: object) -> Future[object]:
        done: Future[object] = Future()
        done.set_result(work(*args))
        return done

    async def run() -> None:
        queries = Queries(connection, SlotLimits(1, 1, 5), 5)
        for _ in range(5):
            assert await queries.run(lambda c: c.execute("SELECT 1").fetchall()) == [(1,)]
        await queries.close()

    monkeypatch.setattr(ThreadPoolExecutor, "submit", at_once)
    asyncio.run(run())


def test_a_client_that_leaves_costs_no_place(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("leaves")
    with box_on(own_redis.url, folder, api__query_threads="1", api__query_queue="1") as box:
        with httpx.Client(base_url=f"http://127.0.0.1:{box.port}", timeout=0.05) as impatient:
            box.client.client_pause(700, all=True)
            for _ in range(2):
                with pytest.raises(httpx.ReadTimeout):
                    impatient.get("/v1/records")
        stop_s = time.monotonic() + 5
        while box.get("/v1/records").status_code == 503:
            assert time.monotonic() < stop_s
            time.sleep(0.02)
        for _ in range(3):
            assert ask(box, []) == []
