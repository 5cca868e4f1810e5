"""The alarms: Prometheus accepts them, each fires only under its condition, and each is documented."""

from __future__ import annotations

import json
import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.box import PROJECT
from tests.promtool import ALERTS, OPERATIONS, alarms, needs_promtool, promtool

RUNBOOK_URL = (
    "{{{{ with $externalLabels.whimbrel_url }}}}{{{{ . }}}}{{{{ else }}}}http://{{{{ $labels.instance }}}}{{{{ end }}}}"
    "/static/runbook.html#{}"
)

MINUTES = 8 * 60
"""How long each case is watched, so that any `for` and any look back are over."""

Series = dict[str, str]


class Case(NamedTuple):
    """Series of one value a minute, in promtool's notation: series that fire an alarm, and series that do not.

    `1x3` is 1 and three more of it, `0+5x3` is 0 5 10 15, `_` is a scrape that failed.
    """

    fires: Series
    quiet: Series


def steady(value: float) -> str:
    return f"{value}x{MINUTES}"


def rising(start: float, step: float) -> str:
    return f"{start}+{step}x{MINUTES}" if step >= 0 else f"{start}{step}x{MINUTES}"


def starts_within_15_minutes(count: int) -> str:
    """`count` starts within the last 15 minutes, the last one 3 minutes ago."""
    times = [MINUTES - 3 - 5 * number for number in reversed(range(count))]
    parts = [f"0x{times[0] - 1}", *(f"{60 * minute}x4" for minute in times[:-1]), f"{60 * times[-1]}x3"]
    return " ".join(parts)


def ratio(name: str, limit: str, most: float, fires: float, quiet: float, labels: str = "") -> Case:
    """An alarm on one gauge over another."""
    return Case(
        {name + labels: steady(most * fires), limit + labels: steady(most)},
        {name + labels: steady(most * quiet), limit + labels: steady(most)},
    )


def gauge(name: str, fires: float, quiet: float) -> Case:
    return Case({name: steady(fires)}, {name: steady(quiet)})


def counter(name: str) -> Case:
    """An alarm on a counter that should not rise; its earlier value is no alarm."""
    return Case({name: rising(0, 1)}, {name: steady(1_000)})


MEMORY = {"whimbrel_redis_memory_limit_bytes": steady(1e9), "whimbrel_redis_memory_refuse_ratio": steady(0.8)}
MIN_FREE = {"whimbrel_disk_min_free_bytes": steady(1e9)}
DAY_S = 86_400
BACKUP = {
    "whimbrel_backup_age_limit_seconds": steady(2 * DAY_S),
    'whimbrel_archive_age_seconds{program="query"}': steady(30 * DAY_S),
    'whimbrel_archive_records{program="query"}': steady(9),
}
BUCKET = 'whimbrel_ack_duration_seconds_bucket{{le="{}"}}'

CASES: dict[str, Case] = {
    "WhimbrelApiDown": gauge('up{job="whimbrel"}', 0, 1),
    "WhimbrelProgramDown": gauge('whimbrel_up{program="worker"}', 0, 1),
    "WhimbrelProgramRestarts": Case(
        {'whimbrel_start_time_seconds{program="worker"}': rising(0, 60)},
        {'whimbrel_start_time_seconds{program="worker"}': starts_within_15_minutes(2)},
    ),
    "WhimbrelNotReady": gauge("whimbrel_ready", 0, 1),
    "WhimbrelRedisDown": gauge("whimbrel_redis_up", 0, 1),
    "WhimbrelRedisWritesFail": gauge("whimbrel_redis_aof_last_write_ok", 0, 1),
    "WhimbrelRedisMemoryFull": Case(
        {"whimbrel_redis_memory_bytes": steady(0.81e9), **MEMORY},
        {"whimbrel_redis_memory_bytes": steady(0.79e9), **MEMORY},
    ),
    "WhimbrelRedisMemoryHigh": Case(
        {"whimbrel_redis_memory_bytes": steady(0.7e9), **MEMORY},
        {"whimbrel_redis_memory_bytes": steady(0.6e9), **MEMORY},
    ),
    "WhimbrelDiskFull": Case(
        {"whimbrel_disk_free_bytes": steady(0.9e9), **MIN_FREE},
        {"whimbrel_disk_free_bytes": steady(1.1e9), **MIN_FREE},
    ),
    "WhimbrelDiskFillsUp": Case(
        {"whimbrel_disk_free_bytes": rising(100e9, -0.1e9), **MIN_FREE},
        {"whimbrel_disk_free_bytes": rising(100e9, -0.01e9), **MIN_FREE},
    ),
    "WhimbrelUnsavedOld": gauge('whimbrel_unsaved_age_seconds{shard="0"}', 301, 60),
    "WhimbrelSavesFail": counter("whimbrel_save_failures_total"),
    "WhimbrelJobsFail": counter('whimbrel_job_failures_total{job_name="compact"}'),
    "WhimbrelErrorsLogged": Case(
        {'whimbrel_log_lines_total{program="worker",level="error"}': rising(0, 1)},
        {
            'whimbrel_log_lines_total{program="worker",level="error"}': steady(1_000),
            'whimbrel_log_lines_total{program="worker",level="warning"}': rising(0, 1),
        },
    ),
    "WhimbrelJobsPileUp": Case(
        {"whimbrel_jobs_waiting": steady(7), 'whimbrel_unsaved_records{shard="0"}': steady(0)},
        {"whimbrel_jobs_waiting": steady(4), 'whimbrel_unsaved_records{shard="0"}': steady(0)},
    ),
    "WhimbrelAckSlow": Case(
        {BUCKET.format(0.5): rising(0, 90), BUCKET.format(2.5): rising(0, 100), BUCKET.format("+Inf"): rising(0, 100)},
        {BUCKET.format(0.5): rising(0, 995), BUCKET.format(2.5): rising(0, 1e3), BUCKET.format("+Inf"): rising(0, 1e3)},
    ),
    "WhimbrelRefusesBusy": counter('whimbrel_refused_total{reason="busy"}'),
    "WhimbrelNonsenseReceived": Case(
        {'whimbrel_refused_total{reason="invalid-frame"}': rising(0, 10), "whimbrel_messages_total": rising(0, 100)},
        {'whimbrel_refused_total{reason="invalid-frame"}': rising(0, 4), "whimbrel_messages_total": rising(0, 100)},
    ),
    "WhimbrelPendingHigh": ratio("whimbrel_pending_bytes", "whimbrel_pending_limit_bytes", 6e7, 0.9, 0.5),
    "WhimbrelDatagramsDropped": counter("whimbrel_datagrams_dropped_total"),
    "WhimbrelDevicesHigh": ratio("whimbrel_devices", "whimbrel_devices_limit", 200_000, 0.95, 0.85),
    "WhimbrelSendersHigh": ratio("whimbrel_senders", "whimbrel_senders_limit", 200_000, 0.95, 0.85),
    "WhimbrelIdempotencyKeysHigh": ratio(
        "whimbrel_idempotency_keys", "whimbrel_idempotency_keys_limit", 100_000, 0.95, 0.85
    ),
    "WhimbrelConnectionsHigh": ratio(
        "whimbrel_http_connections", "whimbrel_http_connections_limit", 4_000, 0.95, 0.85, '{port="8000"}'
    ),
    "WhimbrelOpenFilesHigh": ratio("whimbrel_process_open_fds", "whimbrel_process_max_fds", 20_000, 0.95, 0.85),
    "WhimbrelQueriesHigh": ratio("whimbrel_queries", "whimbrel_queries_limit", 34, 0.9, 0.5, '{kind="query"}'),
    "WhimbrelServerErrors": Case(
        {'whimbrel_http_answers_total{route="/v1/records",status="5xx"}': rising(0, 60)},
        {
            'whimbrel_http_answers_total{route="/readyz",status="5xx"}': rising(0, 60),
            'whimbrel_http_answers_total{route="/v1/records",status="2xx"}': rising(0, 60),
        },
    ),
    "WhimbrelOpenDayFilesHigh": ratio(
        "whimbrel_archive_open_day_files", "whimbrel_archive_open_day_files_limit", 24, 3, 1.5
    ),
    "WhimbrelArchiveHigh": ratio("whimbrel_archive_bytes", "whimbrel_archive_limit_bytes", 1e9, 1.2, 1.05),
    "WhimbrelQuarantineDrops": counter("whimbrel_quarantine_dropped_total"),
    "WhimbrelQuarantineGrows": counter("whimbrel_quarantined_total"),
    "WhimbrelForwardStuck": gauge('whimbrel_forward_is_stuck{name="hq"}', 1, 0),
    "WhimbrelForwardBehind": gauge('whimbrel_forward_behind_seconds{name="hq"}', 901, 60),
    "WhimbrelForwardBytesHigh": ratio(
        "whimbrel_forward_behind_bytes", "whimbrel_forward_behind_limit_bytes", 1e9, 0.9, 0.5, '{name="hq"}'
    ),
    "WhimbrelForwardDrops": counter('whimbrel_forward_dropped_records_total{name="hq"}'),
    "WhimbrelAlertStuck": gauge('whimbrel_alert_is_stuck{name="desk"}', 1, 0),
    "WhimbrelAlertEventsHigh": Case(
        {'whimbrel_alert_pending_events{name="a"}': steady(9_000), "whimbrel_alert_pending_limit_events": steady(1e4)},
        {'whimbrel_alert_pending_events{name="a"}': steady(7_000), "whimbrel_alert_pending_limit_events": steady(1e4)},
    ),
    "WhimbrelBrokerUnheard": gauge('whimbrel_mqtt_broker_heard{broker="b:1883"}', 0, 1),
    "WhimbrelAuditFails": counter("whimbrel_audit_failures_total"),
    "WhimbrelBackupOld": Case(
        {"whimbrel_backup_age_seconds": steady(3 * DAY_S), **BACKUP},
        {"whimbrel_backup_age_seconds": steady(DAY_S), **BACKUP},
    ),
    "WhimbrelCertificateExpires": gauge("whimbrel_certificate_expiry_time_seconds", 10 * 86_400, 60 * 86_400),
}


WORKER = '{instance="a:8000", program="worker", process="0"}'
YOUNG_FROM = MINUTES - 9
"""Minute in which something starts that is younger than any window at the end, and older than any `for`."""


def born(value: float, minute: int) -> str:
    """A series that is first scraped then, and stays so."""
    return f"_x{minute} {value}x{MINUTES - minute}"


def of_program(name: str, minute: int, value: float = 1, labels: str = "") -> Series:
    """A counter that is at `value` when the worker, started in that minute, is first scraped, and never rises."""
    return {
        name + WORKER.replace("}", f", {labels}}}"): born(value, minute),
        "whimbrel_start_time_seconds" + WORKER: born(60 * minute - 5, minute),
    }


def of_redis(name: str, minute: int, value: float = 1) -> Series:
    """The same of a counter in Redis, of a box that was begun in that minute."""
    return {
        f'{name}{{instance="a:8000", shard="0"}}': born(value, minute),
        'whimbrel_archive_age_seconds{instance="a:8000", program="query"}': f"_x{minute} 5+60x{MINUTES - minute}",
    }


OF_PROGRAMS = {
    "WhimbrelSavesFail": ("whimbrel_save_failures_total", ""),
    "WhimbrelJobsFail": ("whimbrel_job_failures_total", 'job_name="compact"'),
    "WhimbrelErrorsLogged": ("whimbrel_log_lines_total", 'level="error"'),
    "WhimbrelAuditFails": ("whimbrel_audit_failures_total", ""),
}
OF_REDIS = {
    "WhimbrelQuarantineDrops": "whimbrel_quarantine_dropped_total",
    "WhimbrelQuarantineGrows": "whimbrel_quarantined_total",
    "WhimbrelForwardDrops": "whimbrel_forward_dropped_records_total",
}
DROPPED = 'whimbrel_forward_dropped_records_total{instance="a:8000", name="new"}'
SCRAPED = {'whimbrel_redis_up{instance="a:8000"}': steady(1)}
ERROR = 'whimbrel_log_lines_total{instance="a:8000", program="worker", process="0", level="error"}'


def counters(minute: int, value: float = 1) -> Series:
    """All of these, first scraped in that minute."""
    series: Series = {}
    for family, labels in OF_PROGRAMS.values():
        series |= of_program(family, minute, value, labels)
    for family in OF_REDIS.values():
        series |= of_redis(family, minute, value)
    return series


COUNTERS = " ".join((*OF_PROGRAMS, *OF_REDIS))
BORN = [
    (COUNTERS, counters(YOUNG_FROM), True),
    (COUNTERS, counters(YOUNG_FROM, 0), False),
    (COUNTERS, counters(60), False),
    (
        "WhimbrelErrorsLogged",
        {ERROR: steady(1), "whimbrel_start_time_seconds" + WORKER: f"0x{YOUNG_FROM} {60 * YOUNG_FROM}x{MINUTES}"},
        True,
    ),
    ("WhimbrelForwardDrops", {DROPPED: born(1, YOUNG_FROM), **SCRAPED}, True),
    ("WhimbrelForwardDrops", {DROPPED: born(0, YOUNG_FROM), **SCRAPED}, False),
    ("WhimbrelForwardDrops", {DROPPED: born(1, YOUNG_FROM)}, False),
]
"""Counters that were above 0 when first scraped, of what is young, and at 0, or of what is old. Then a worker that
logs an error at each start. Then a forward that was added to a box, and one of a box that was not scraped before."""


def changed(**values: float) -> Series:
    """Series of a box without a backup; some have other values."""
    return BACKUP | {name: steady(values[key]) for name in BACKUP if (key := name.partition("{")[0]) in values}


MORE: list[tuple[str, Series, bool]] = [
    *BORN,
    (
        "WhimbrelJobsPileUp",
        {
            'whimbrel_jobs_waiting{instance="a:8000", program="scheduler"}': steady(5),
            **{f'whimbrel_unsaved_records{{instance="{box}:8000", shard="0"}}': steady(0) for box in "abcdef"},
        },
        True,
    ),
    ("WhimbrelRedisWritesFail", {"whimbrel_redis_start_time_seconds": rising(0, 30)}, True),
    ("WhimbrelRedisWritesFail", {"whimbrel_redis_start_time_seconds": starts_within_15_minutes(1)}, False),
    ("WhimbrelApiDown", {}, True),
    ("WhimbrelBackupOld", BACKUP, True),
    ("WhimbrelBackupOld", changed(whimbrel_archive_age_seconds=DAY_S), False),
    ("WhimbrelBackupOld", changed(whimbrel_archive_records=0), False),
    ("WhimbrelBackupOld", {name: values for name, values in BACKUP.items() if "limit" not in name}, False),
]
"""Further cases: those above; a box beside others; Redis starts again and again, or once; nothing is scraped; there
was never a backup, of an old archive, a young one, an empty one, and of a box that is set to have none, or whose Redis
is away."""


def rule_test(names: str, series: Series, fires: bool) -> dict[str, Any]:
    """promtool's test of one alarm, or of several on the same series."""
    expected = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "name": f"{names} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                "eval_time": f"{MINUTES}m",
                "exp_samples": expected,
            }
            for name in names.split()
        ],
    }


@needs_promtool
def test_prometheus_takes_the_rules_and_the_example() -> None:
    promtool("check", "rules", str(ALERTS))
    promtool("check", "config", str(OPERATIONS / "prometheus.yml"))


@needs_promtool
def test_alarms_go_off_when_they_should_and_not_otherwise(tmp_path: Path) -> None:
    tests = [rule_test(name, case.fires, True) for name, case in CASES.items()]
    tests += [rule_test(name, case.quiet, False) for name, case in CASES.items()]
    tests += [rule_test(*case) for case in MORE]
    file = tmp_path / "test.yml"  # JSON is YAML, too
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "5m", "tests": tests}))
    promtool("test", "rules", str(file))


def test_every_alarm_has_its_case() -> None:
    assert sorted(CASES) == sorted(alarm.name for alarm in alarms())


def test_every_alarm_says_what_it_means_and_what_to_do() -> None:
    page = (PROJECT / "docs" / "operations" / "watch.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| [^|]{20,} \| [^|]{10,} \| [^|]{10,} \|$', page, re.M))
    for alarm in alarms():
        assert rows.pop(alarm.name.lower(), "") == alarm.name, alarm.name
        assert alarm.runbook_url == RUNBOOK_URL.format(alarm.name.lower())
        assert alarm.summary.endswith(".")
    assert not rows, "of no alarm"


def test_the_runbook_is_that_of_the_document(runbook: ModuleType) -> None:
    """Where this fails, run scripts/runbook."""
    shown = runbook.PAGE.read_text(encoding="utf-8")
    assert shown == runbook.page_of(runbook.DOCUMENT.read_text(encoding="utf-8"))
    assert re.findall(r'<section id="(\w+)">', shown) == [alarm.name.lower() for alarm in alarms()]


@pytest.fixture(scope="module")
def runbook() -> ModuleType:
    """scripts/runbook as a module."""
    loader = SourceFileLoader("runbook", str(PROJECT / "scripts" / "runbook"))
    spec = spec_from_loader("runbook", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module
