"""A whole box is scraped: the counts of all programs add up, and the dashboard uses existing metrics."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import pytest
from prometheus_client.metrics_core import Metric

from collector.http.record_body import FORMS
from collector.http_protocols import NAMES
from collector.inspection import protocol_metrics
from collector.protocols import protocols_of
from telemetry.audit import writer
from telemetry.coordination import rejection_counts
from telemetry.coordination.job_allowlist import ALLOWED, short_name
from telemetry.hot_store import corruption
from telemetry.observability import metrics
from telemetry.observability.metric_types import Counter
from tests.box import PROJECT, Box
from tests.promtool import OPERATIONS, names_in, needs_promtool, promtool
from tests.scrape import Scrape, families

pytestmark = pytest.mark.slow

WAIT_S = 60.0
POSTS, LINES = 5, 120


class Pages(NamedTuple):
    """A box's page before anything came, and after things were sent, saved and asked."""

    first: str
    later: str


@pytest.fixture(scope="module")
def page(pages: Pages) -> str:
    """The later page."""
    return pages.later


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """The metrics of a box with two collector processes."""
    box = Box(tmp_path_factory.mktemp("scraped"), collector__processes="2", persist__flush_records="10")
    with box:
        first = first_page(box)
        for number in range(POSTS):
            body = [{"device_id": f"p{number}-{at}"} for at in range(10)]
            assert box.http.post("/v1/records", json=body).status_code == 202
        assert box.http.post("/v1/records", content=b"{").status_code == 400
        for number in range(6):
            send_lines(box, f"t{number}", LINES // 6)
        assert box.http.get("/v1/records?device_id=p0-0").status_code == 200
        yield Pages(first, settled(box))


def first_page(box: Box) -> str:
    """The page once all programs have published their metrics."""
    stop_s = time.monotonic() + WAIT_S
    while True:
        text = box.http.get("/metrics").text
        if set(Scrape.of(text).get("whimbrel_up", {}).values()) == {1}:
            return text
        assert time.monotonic() < stop_s, text
        time.sleep(0.2)


def send_lines(box: Box, device: str, count: int) -> None:
    with socket.create_connection(("127.0.0.1", box.tcp_port)) as connection, connection.makefile("rw") as lines:
        for _ in range(count):
            print(json.dumps({"device_id": device}), file=lines, flush=True)
            assert "Data received" in lines.readline()


def settled(box: Box) -> str:
    """The page once all records are saved and all programs have published their metrics."""
    stop_s = time.monotonic() + WAIT_S
    while True:
        answer = box.http.get("/metrics")
        assert answer.status_code == 200
        found = Scrape.of(answer.text)
        is_saved = sum(found.get("whimbrel_records_saved_total", {}).values()) == POSTS * 10 + LINES
        if is_saved and sum(found.get("whimbrel_archive_records", {}).values()) == POSTS * 10 + LINES:
            return answer.text
        assert time.monotonic() < stop_s, answer.text
        time.sleep(0.5)


def test_what_all_programs_count_adds_up(page: str) -> None:
    found = Scrape.of(page)
    accepted = found["whimbrel_records_accepted_total"]
    assert sum(accepted.values()) == POSTS * 10 + LINES
    assert found.value("whimbrel_records_accepted_total", program="api") == POSTS * 10
    assert {dict(labels)["process"] for labels in accepted if dict(labels)["program"] == "collector"} == {"0", "1"}
    over_tcp = {"protocol": "json", "transport": "tcp"}.items()
    messages = found["whimbrel_messages_total"]
    assert sum(value for labels, value in messages.items() if over_tcp <= dict(labels).items()) == LINES
    assert sum(found["whimbrel_ack_duration_seconds_count"].values()) == POSTS + LINES
    assert sum(found["whimbrel_group_records_sum"].values()) == POSTS * 10 + LINES
    assert found.value("whimbrel_refused_total", reason="invalid-json") == 1
    assert found.value("whimbrel_save_duration_seconds_count", program="worker") >= 1
    assert found.value("whimbrel_unsaved_records", shard="0") == 0
    assert set(found["whimbrel_up"].values()) == {1}
    assert found.value("whimbrel_http_request_duration_seconds_count", program="query", route="/v1/records") == 1


OVER_HTTP = {(name, "http") for name in {form.name.lower() for form in FORMS.values()} | set(NAMES.values())}
OVER_TCP = {(name, "tcp") for name in (*protocols_of("any"), protocol_metrics.UNKNOWN)}
REASONS = [kind.name for kind in protocol_metrics.REASONS]
LOOPS = {
    "api": ["meters", "reports", "samples of the box", "refusals", "live"],
    "collector": ["meters", "refusals", "frames", "answers", "last answers", "idle connections", "held connections"],
    "query": ["meters", "refusals", "gauges of the archive"],
    "worker": ["meters"],
    "scheduler": ["meters"],
}
ROUTES = {
    "api": ["/v1/records", "/v1/devices/{device_id}/latest", "/metrics", "/healthz", "other"],
    "query": ["/v1/records", "/v1/export", "/v1/summary", "/readyz", "other"],
}
CLASSES = ["2xx", "3xx", "4xx", "5xx"]

KNOWN: dict[str, list[dict[str, str]]] = {
    "whimbrel_job_failures_total": [{"job_name": short_name(one), "program": "worker"} for one in (*ALLOWED, None)],
    "whimbrel_loop_errors_total": [{"program": one, "loop": name} for one, names in LOOPS.items() for name in names],
    "whimbrel_undecodable_values_total": [
        {"kind": kind, "program": program} for kind in get_args(corruption.Kind) for program in LOOPS
    ],
    "whimbrel_messages_total": [{"protocol": name, "transport": how} for name, how in OVER_HTTP | OVER_TCP],
    "whimbrel_decoded_records_total": [{"protocol": name, "transport": how} for name, how in OVER_HTTP | OVER_TCP],
    "whimbrel_rejected_messages_total": [
        {"protocol": name, "transport": how, "reason": why} for name, how in OVER_HTTP | OVER_TCP for why in REASONS
    ],
    "whimbrel_http_answers_total": [
        {"program": program, "route": route, "status": status}
        for program, routes in ROUTES.items()
        for route in routes
        for status in CLASSES
    ],
    "whimbrel_log_lines_total": [
        {"program": program, "level": level} for program in LOOPS for level in ("warning", "error", "critical")
    ],
    "whimbrel_audit_entries_total": [{"kind": kind, "program": "api"} for kind in writer.KINDS],
    "whimbrel_refused_total": [{"reason": reason} for reason in rejection_counts.REASONS],
}
"""Counter → the labels of its series that a fresh box has."""

ONLY_IF_SET = {
    "whimbrel_mqtt_retained_repeated_total",
    "whimbrel_datagrams_total",
    "whimbrel_datagrams_dropped_total",
}
"""Counters of brokers and of UDP ports, begun where a box has one."""


def test_every_counter_is_there_before_anything_is_counted(pages: Pages) -> None:
    found = Scrape.of(pages.first)
    declared = {name: family.labels for name, family in metrics.FAMILIES.items() if family.kind is Counter}
    assert {name for name, labels in declared.items() if labels} - ONLY_IF_SET <= set(KNOWN)
    for name in declared.keys() - ONLY_IF_SET:
        assert found.get(name), name
    for name, known in KNOWN.items():
        series = [dict(labels).items() for labels in found[name]]
        missing = [labels for labels in known if not any(labels.items() <= one for one in series)]
        assert not missing, name


def test_what_is_seen_later_was_counted_from_zero_on(pages: Pages) -> None:
    first, later = Scrape.of(pages.first), Scrape.of(pages.later)
    for family in families(pages.later):
        if family.type == "counter":
            name = f"{family.name}_total"
            assert not later.get(name, {}).keys() - first.get(name, {}).keys(), name


def test_no_label_has_a_name_of_prometheus_itself(page: str) -> None:
    names = {label for series in Scrape.of(page).values() for labels in series for label, _ in labels}
    assert not names & {"job", "instance"}


@needs_promtool
def test_prometheus_finds_nothing_to_say_against_the_page(page: str) -> None:
    promtool("check", "metrics", stdin=page)


def samples_of(family: Metric) -> set[str]:
    """The names under which a family is asked for."""
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
    return {family.name.removesuffix("_total") + end for end in ends}


def names(page: str) -> set[str]:
    return {name for family in families(page) for name in samples_of(family)}


def queries() -> list[str]:
    """Every query of the dashboard."""
    dashboard = json.loads((OPERATIONS / "dashboard.json").read_text(encoding="utf-8"))
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value["expr"]] if "expr" in value else [])
            value = list(value.values())
        for one in value if isinstance(value, list) else ():
            collect(one)

    collect(dashboard)
    return found


def test_the_dashboard_asks_for_what_there_is(page: str) -> None:
    there = names(page)
    assert len(queries()) > 40
    for query in queries():
        assert names_in(query), query
        assert names_in(query) <= there, query


@needs_promtool
def test_prometheus_understands_the_dashboard(tmp_path_factory: pytest.TempPathFactory) -> None:
    rules = [{"record": f"q:{at}", "expr": query} for at, query in enumerate(queries())]
    file = tmp_path_factory.mktemp("rules") / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML, too
    promtool("check", "rules", str(file))


def test_every_metric_is_in_the_list(page: str) -> None:
    listed = set(re.findall(r"`(whimbrel_\w+)`", (PROJECT / "docs" / "operations" / "metrics.md").read_text()))
    assert {family.name for family in families(page)} == {name.removesuffix("_total") for name in listed}
