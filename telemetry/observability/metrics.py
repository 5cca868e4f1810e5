"""Every meter of the programs, declared once: its name as Prometheus has them, its meaning, and its labels.

To these api/status/prometheus.py adds the labels `program` and `process`, and what can be asked of Redis and the disks
when somebody looks. A label has few values, all of them ours: never a device's id, an address or a key.

Every counter is made, at 0, by whatever will count with it, before it counts: Prometheus sees no increase in a series
that begins at 1. No label has a name that Prometheus gives itself (`job`, `instance`).
"""

from __future__ import annotations

from typing import Any, TypeVar

from telemetry.observability.metric_types import Counter, Family, Gauge, Histogram

F = TypeVar("F", bound=Family[Any])

WAIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
"""Bounds of what a sender or a client waits for, s."""

WORK_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Bounds of what happens in the background, s."""

GROUP = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0)
"""Bounds of records in a group."""

OF_PROTOCOL = ("protocol", "transport")
"""Labels of what came of a protocol."""

FAMILIES: dict[str, Family[Any]] = {}
"""Name → family, in the order of their declaration."""


def _counter(name: str, meaning: str, *labels: str) -> Family[Counter]:
    return _declared(Family(Counter, name, meaning, labels))


def _gauge(name: str, meaning: str, *labels: str) -> Family[Gauge]:
    return _declared(Family(Gauge, name, meaning, labels))


def _histogram(name: str, meaning: str, bounds: tuple[float, ...], *labels: str) -> Family[Histogram]:
    return _declared(Family(Histogram, name, meaning, labels, bounds))


def _declared(found: F) -> F:
    """Raises `ValueError` if there is another family of this name."""
    if found.name in FAMILIES:
        raise ValueError(f"cannot declare {found.name} twice")
    FAMILIES[found.name] = found
    return found


# Taking records --------------------------------------------------------------------------------------

ACCEPTED = _counter("whimbrel_records_accepted_total", "Records that are on disk and were acknowledged.")
REPEATED = _counter(
    "whimbrel_requests_repeated_total",
    "Named requests and numbered batches that had been stored before.",
)
RESENT = _counter(
    "whimbrel_records_resent_total",
    "Records that were sent again, and not stored again.",
)
ACK_S = _histogram(
    "whimbrel_ack_duration_seconds",
    "From a decoded request or message to its records on disk.",
    WAIT_S,
)
GROUP_RECORDS = _histogram("whimbrel_group_records", "Records that one call to Redis stored.", GROUP)
APPEND_S = _histogram("whimbrel_append_duration_seconds", "A group's call to Redis, its fsync included.", WAIT_S)
PENDING_BYTES = _gauge("whimbrel_pending_bytes", "Bytes of requests and messages that wait for Redis.")
PENDING_LIMIT = _gauge("whimbrel_pending_limit_bytes", "collector.max_pending_bytes.")

MESSAGES = _counter("whimbrel_messages_total", "Messages, frames and requests that were decoded.", *OF_PROTOCOL)
DECODED = _counter("whimbrel_decoded_records_total", "Records in them, stored or not.", *OF_PROTOCOL)
REJECTED = _counter(
    "whimbrel_rejected_messages_total", "Messages, or records in them, that could not be used.", *OF_PROTOCOL, "reason"
)
DATAGRAMS = _counter("whimbrel_datagrams_total", "Datagrams that were received.")
DATAGRAMS_DROPPED = _counter(
    "whimbrel_datagrams_dropped_total", "Datagrams of them that were dropped: no room, or too many of one address."
)
HELD_BYTES = _gauge("whimbrel_unfinished_bytes", "Bytes of messages that are not complete, by TCP port.", "port")
HELD_LIMIT = _gauge("whimbrel_unfinished_limit_bytes", "collector.max_pending_bytes, which bounds them.", "port")
REPLACED = _counter(
    "whimbrel_tcp_connections_replaced_total", "Connections closed since their device logged in over a newer one."
)
CONNECTIONS = _gauge("whimbrel_tcp_connections", "Open TCP connections of devices.")
CONNECTIONS_LIMIT = _gauge(
    "whimbrel_tcp_connections_limit", "collector.max_connections, or what open files leave room for."
)
OF_ONE_ADDRESS = _gauge("whimbrel_tcp_connections_of_one_address", "The same of the address that has most.")
OF_ONE_ADDRESS_LIMIT = _gauge("whimbrel_tcp_connections_of_one_address_limit", "collector.max_connections_per_address.")
HTTP_CONNECTIONS = _gauge("whimbrel_http_connections", "Open HTTP connections, by port.", "port")
HTTP_CONNECTIONS_LIMIT = _gauge(
    "whimbrel_http_connections_limit", "collector.max_http_connections, or what open files leave room for.", "port"
)
HANDSHAKES = _gauge("whimbrel_tls_handshakes", "TLS handshakes under way.")
HANDSHAKES_LIMIT = _gauge("whimbrel_tls_handshakes_limit", "tls.max_handshakes; one more is closed.")
BROKER_HEARD = _gauge("whimbrel_mqtt_broker_heard", "1 if the broker is heard, else 0.", "broker")
RETAINED_REPEATED = _counter(
    "whimbrel_mqtt_retained_repeated_total",
    "Retained messages that a broker delivered again and that were not stored again.",
    "broker",
)

# Saving and merging ----------------------------------------------------------------------------------

SAVE_S = _histogram("whimbrel_save_duration_seconds", "A save of a shard that took records, from look to trim.", WORK_S)
SAVED = _counter("whimbrel_records_saved_total", "Records that saves have moved to the archive.")
SAVE_FAILURES = _counter("whimbrel_save_failures_total", "Saves that failed; their records wait in Redis.")
COMPACTION_S = _histogram("whimbrel_compaction_duration_seconds", "A merge of some files of a day into fewer.", WORK_S)
TIDY_S = _histogram("whimbrel_tidy_duration_seconds", "A look for days to give up and files to delete.", WORK_S)
DELETIONS = _counter("whimbrel_deletions_total", "Deletions of a device that are done.")
JOB_FAILURES = _counter("whimbrel_job_failures_total", "Background jobs that ended with an error.", "job_name")

LOOP_ERRORS = _counter(
    "whimbrel_loop_errors_total", "Unexpected errors in background loops, which are retried.", "loop"
)
UNDECODABLE = _counter(
    "whimbrel_undecodable_values_total", "Values in Redis skipped because they cannot be decoded, by kind.", "kind"
)

JOBS_WAITING = _gauge("whimbrel_jobs_waiting", "Jobs that wait in RQ's queue, as the scheduler saw it.")
JOBS_FAILED = _gauge("whimbrel_jobs_failed", "Jobs that RQ has noted as failed within the last minute.")

# The archive -----------------------------------------------------------------------------------------

ARCHIVE_FILES = _gauge("whimbrel_archive_files", "Live files of the archive.")
ARCHIVE_BYTES = _gauge("whimbrel_archive_bytes", "Bytes of them.")
ARCHIVE_RECORDS = _gauge("whimbrel_archive_records", "Records in them.")
OPEN_DAY_FILES = _gauge("whimbrel_archive_open_day_files", "Live files of today, UTC.")
OPEN_DAY_LIMIT = _gauge("whimbrel_archive_open_day_files_limit", "archive.max_open_files.")
ARCHIVE_LIMIT = _gauge("whimbrel_archive_limit_bytes", "archive.retention_max_bytes, if there is such a limit.")
ARCHIVE_AGE_S = _gauge("whimbrel_archive_age_seconds", "How long ago the archive was begun.")
COMMIT_AGE_S = _gauge("whimbrel_archive_last_commit_age_seconds", "How long ago the archive last changed.")

# Asking ----------------------------------------------------------------------------------------------

REQUEST_S = _histogram(
    "whimbrel_http_request_duration_seconds", "From a request to the end of its answer, by route.", WAIT_S, "route"
)
ANSWERS = _counter("whimbrel_http_answers_total", "Answers by route and class of status, like 2xx.", "route", "status")
QUERIES = _gauge("whimbrel_queries", "Queries that run or wait.", "kind")
QUERIES_LIMIT = _gauge("whimbrel_queries_limit", "How many may run or wait; a further one is answered 503.", "kind")

LIVE_READERS = _gauge("whimbrel_live_readers", "Readers of /v1/live.")
LIVE_READERS_LIMIT = _gauge("whimbrel_live_readers_limit", "api.max_live_readers; a further one is answered 503.")

UNSENT_BYTES = _gauge("whimbrel_unsent_bytes", "Bytes that wait for HTTP clients of a process.")
UNSENT_LIMIT = _gauge("whimbrel_unsent_limit_bytes", "api.pending_bytes; beyond, the slowest clients are closed.")
SLOW_CLIENTS = _counter("whimbrel_slow_clients_closed_total", "HTTP clients closed because of api.pending_bytes.")

CACHE_BYTES = _gauge("whimbrel_page_cache_bytes", "What of the older service's list pages is kept in memory.")
CACHE_LIMIT = _gauge("whimbrel_page_cache_limit_bytes", "api.page_memory_bytes.")
QUERY_MEMORY = _gauge("whimbrel_query_memory_bytes", "Memory that queries use.")
QUERY_MEMORY_LIMIT = _gauge("whimbrel_query_memory_limit_bytes", "api.query_memory_bytes, beyond which they spill.")
READY = _gauge("whimbrel_ready", "1 if /readyz found nothing wrong at the last look, else 0.")
READY_REASONS = _gauge("whimbrel_not_ready_reasons", "How many things /readyz found wrong at the last look.")

CERTIFICATE_UNTIL_S = _gauge(
    "whimbrel_certificate_expiry_time_seconds", "Until when the certificate of TLS is valid, s since epoch."
)

LOG_LINES = _counter("whimbrel_log_lines_total", "Lines of the log, by severity.", "level")
LOG_LINES_LEFT_OUT = _counter("whimbrel_log_lines_left_out_total", "Lines left out as too many were alike.")

AUDIT_ENTRIES = _counter("whimbrel_audit_entries_total", "Lines of the audit log, by kind.", "kind")
AUDIT_FAILURES = _counter("whimbrel_audit_failures_total", "Lines of the audit log that could not be written.")

# The process itself ----------------------------------------------------------------------------------

CPU_S = _counter("whimbrel_process_cpu_seconds_total", "CPU time that the process has used.")
RESIDENT_BYTES = _gauge("whimbrel_process_resident_memory_bytes", "Memory of the process.")
OPEN_FILES = _gauge("whimbrel_process_open_fds", "Open files and sockets of the process.")
OPEN_FILES_LIMIT = _gauge("whimbrel_process_max_fds", "How many it may open.")
STARTED_S = _gauge("whimbrel_process_start_time_seconds", "When it began, s since epoch.")
