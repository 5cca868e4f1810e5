"""Pages of records with long texts end at `page_bytes`, and together they have each record once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

import duckdb
import msgspec
import pytest

from api.records.device_page import OneDevice
from api.records.downsampling import Thinned
from api.records.range_query import Question, body, shown_page
from api.requests.params import Position
from api.snapshot.snapshot import Wanted
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Sent
from telemetry.model.utc import DAY_US
from tests.api.stores import ALL, MIDNIGHT_US, Stores

PAGE_BYTES = 4_000
DEVICES = ("a", "b", "c")
SAVES, BATCH = 4, 12


def text(dice: Random) -> str | None:
    size = dice.choice((0, 0, 30, 300, 1_900, 5_000))
    return '{"t":"' + dice.choice("xyü") * size + '"}' if size else None


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    """Records of three days, with equal times and texts of any length; the last ones are unsaved."""
    found, dice = Stores([shard], archive, connection), Random(1)
    for part in range(SAVES):
        for _ in range(BATCH):
            us = MIDNIGHT_US + dice.randrange(3) * DAY_US + dice.randrange(20)
            location = dice.choice((None, "Antalya", 1_500 * "z"))
            record = Record(us, "tcp", "json", 1.0, 2.0, location=location, attributes=text(dice))
            found.append(Sent(dice.choice(DEVICES), record))
        if part < SAVES - 1:
            found.save()
    return found


def pages(stores: Stores, question: Question, one_device: OneDevice | None = None) -> Iterator[list[dict[str, object]]]:
    while True:
        with stores.connection.cursor() as cursor:
            found = msgspec.json.decode(body(shown_page(cursor, stores.snapshots, question, one_device)))
        yield found["records"]
        if found["next_cursor"] is None:
            return
        question = question._replace(after=Position(*map(int, found["next_cursor"].split("-"))))


def texts_bytes(record: dict[str, object]) -> int:
    attributes = record["attributes"]
    size = 0 if attributes is None else len(msgspec.json.encode(attributes))
    return size + len(str(record["location"] or ""))


ONE = Wanted(("b",), EARLIEST_US, LATEST_US)
TWO = Wanted(("a", "c"), 0, LATEST_US)


def assert_pages(stores: Stores, question: Question, one_device: OneDevice | None = None) -> None:
    [expected] = pages(stores, question._replace(limit=10_000))
    assert expected
    found = list(pages(stores, question._replace(page_bytes=PAGE_BYTES), one_device))
    assert [record for records in found for record in records] == expected
    assert len(found) > 3
    for records, following in zip(found, [*found[1:], []], strict=True):
        assert 0 < len(records) <= question.limit
        assert len(records) == 1 or sum(map(texts_bytes, records)) <= PAGE_BYTES
        if following and len(records) < question.limit:  # it ends no earlier than it must
            assert sum(map(texts_bytes, [*records, following[0]])) > PAGE_BYTES


THINNED = {"all": Thinned(), "thinned": Thinned(every_us=2), "distinct": Thinned(is_distinct=True)}


@pytest.mark.parametrize("thinned", THINNED.values(), ids=THINNED)
def test_pages_end_at_their_bytes(stores: Stores, thinned: Thinned) -> None:
    for wanted, is_descending in product((ALL, ONE, TWO), (False, True)):
        assert_pages(stores, Question(wanted, is_descending, thinned=thinned))


def test_pages_end_at_their_limit_or_their_bytes(stores: Stores) -> None:
    assert_pages(stores, Question(ALL, limit=4))


def test_pages_of_one_device_end_at_their_bytes(stores: Stores) -> None:
    for is_descending in (False, True):
        assert_pages(stores, Question(ONE, is_descending), OneDevice())


def test_long_texts_of_which_only_the_end_differs_are_distinct(stores: Stores) -> None:
    beginning = '{"t":"' + 5_000 * "x"
    for end in "aba":
        stores.append(Sent("d", Record(MIDNIGHT_US, "tcp", "json", attributes=f'{beginning}{end}"}}')))
    stores.save()
    question = Question(Wanted(("d",), 0, LATEST_US), thinned=Thinned(is_distinct=True), page_bytes=4_000_000)
    [records] = pages(stores, question)
    assert [record["attributes"]["t"][-1] for record in records] == ["a", "b"]  # type: ignore[index]
