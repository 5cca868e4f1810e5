"""The crash ledger finds what it is there to find."""

from __future__ import annotations

import pytest

from benchmarks.crash_ledger.ledger import Entry, Ledger, Row

DAY_US = 1_795_500_000_000_000


def entry(number: int) -> Entry:
    return Entry(f"a#{number}", "a", DAY_US + number, number)


def row(number: int) -> Row:
    return Row(f"a#{number}", "a", DAY_US + number, number, 1_000 + number)


@pytest.fixture
def ledger() -> Ledger:
    """Records 0 to 4, of which 0 to 2 were acknowledged."""
    found = Ledger()
    for number in range(5):
        found.will_send(entry(number))
    found.acknowledge(found.entries[:3])
    return found


def test_all_is_well(ledger: Ledger) -> None:
    rows = [row(number) for number in range(4)]
    verdict = ledger.judge({"one": rows, "other": rows})
    assert (verdict.acknowledged, verdict.stored, verdict.unacknowledged_stored) == (3, 4, 1)
    assert (verdict.lost, verdict.doubled, verdict.offenders) == (0, 0, [])
    assert not ledger.anomalies


def test_a_record_that_one_way_does_not_find_is_lost(ledger: Ledger) -> None:
    all_rows = [row(number) for number in range(3)]
    verdict = ledger.judge({"one": all_rows, "other": all_rows[1:]})
    assert (verdict.lost, verdict.doubled) == (1, 0)
    assert "a#0" in verdict.offenders[0]
    assert ledger.anomalies == {"ways differ": 1}


def test_a_record_that_was_shown_may_not_go_away(ledger: Ledger) -> None:
    ledger.entries[4].seen_s = 0.0
    verdict = ledger.judge({"one": [row(number) for number in range(3)]})
    assert verdict.lost == 1


def test_a_record_under_two_ids_is_doubled(ledger: Ledger) -> None:
    verdict = ledger.judge({"one": [*(row(number) for number in range(3)), row(1)._replace(id=7)]})
    assert (verdict.lost, verdict.doubled) == (0, 1)
    assert ledger.anomalies == {"another id": 1}


def test_a_record_listed_twice_is_doubled(ledger: Ledger) -> None:
    verdict = ledger.judge({"one": [*(row(number) for number in range(3)), row(1)]})
    assert (verdict.lost, verdict.doubled) == (0, 1)
    assert ledger.anomalies == {"id twice": 1}


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (row(0)._replace(key="b#0"), "foreign row"),
        (row(0)._replace(timestamp_us=1), "changed row"),
        (row(0)._replace(device_id="b"), "changed row"),
        (row(0)._replace(number=9), "changed row"),
    ],
)
def test_a_row_that_nobody_sent_so(wrong: Row, kind: str, ledger: Ledger) -> None:
    assert ledger.check(wrong, "here") is None
    assert ledger.anomalies == {kind: 1}
    assert "here" in ledger.named[0]
