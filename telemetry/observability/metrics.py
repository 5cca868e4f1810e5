"""All metrics of the programs, declared once: name in Prometheus, meaning, labels.

api/status/prometheus.py adds the labels `program` and `process`, and the metrics read from Redis and disks at scrape
time. A label has a small, fixed set of values: never a device's id, an address or a key.

Each program creates its counters at 0 before it counts, because Prometheus sees no increase in a series that begins at
1. No label has a name that Prometheus sets itself (`job`, `instance`).
"""

from __future__ import annotations

from typing import Any, TypeVar

from telemetry.observability.metric_types import Counter, Family, Gauge, Histogram

F = TypeVar("F", bound=Family[Any])

WAIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
"""Bucket bounds for waits of senders and clients, s."""

WORK_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Bucket bounds for background work, s."""

GROUP = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0)
"""Bucket bounds for records in a group."""

OF_PROTOCOL = ("protocol", "transport")
"""Labels of metrics of device protocols."""

FAMILIES: dict[str, Family[Any]] = {}
"""Name → family, in the order of their declaration."""


def _counter(name: str, meaning: str, *labels: str) -> Family[Counter]:
    return _declared(Family(Counter, name, meaning, labels))


def _gauge(name: str, meaning: str, *labels: str) -> Family[Gauge]:
    return _declared(Family(Gauge, name, meaning, labels))


def _histogram(name: str, meaning: str, bounds: tuple[float, ...], *labels: str) -> Family[Histogram]:
    return _declared(Family(Histogram, name, meaning, labels, bounds))


def _declared(family: F) -> F:
    """Register a family. Raises `ValueError` if its name exists."""
    if family.name in FAMILIES:
        raise ValueError(f"cannot declare {family.name} twice")
    FAMILIES[family.name] = family
    return family


# Intake ----------------------------------------------------------------------------------------------

ACCEPTED = _counter("whimbrel_records_accepted_total", "Records that were stored on disk and acknowledged.")
REPEATED = _counter(
    "whimbrel_requests_repeated_total",
    "Named requests and numbered batches that were already stored.",
)
RESENT = _counter(
    "whimbrel_records_resent_total",
    "Records that were sent again and not stored again.",
)
ACK_S = _histogram(
    "whimbrel_ack_duration_seconds",
    "From a decoded request or message to its records on disk.",
    WAIT_S,
)
GROUP_RECORDS = _histogram("whimbrel_group_records", "Records stored by one call to Redis.", GROUP)
APPEND_S = _histogram("whimbrel_append_duration_seconds", "A group's call to Redis, including its fsync.", WAIT_S)
PENDING_BYTES = _gauge("whimbrel_pending_bytes", "Bytes of requests and messages that wait for Redis.")
PENDING_LIMIT = _gauge("whimbrel_pending_limit_bytes", "collector.max_pending_bytes.")

MESSAGES = _counter("whimbrel_messages_total", "Decoded messages, frames and requests.", *OF_PROTOCOL)
DECODED = _counter("whimbrel_decoded_records_total", "Decoded records, stored or not.", *OF_PROTOCOL)
REJECTED = _counter(
    "whimbrel_rejected_messages_total", "Rejected messages, or rejected records in them.", *OF_PROTOCOL, "reason"
)
DATAGRAMS = _counter("whimbrel_datagrams_total", "Received datagrams.")
DATAGRAMS_DROPPED = _counter(
    "whimbrel_datagrams_dropped_total", "Datagrams dropped because the buffer was full or an address sent too many."
)
HELD_BYTES = _gauge("whimbrel_unfinished_bytes", "Bytes of incomplete messages, by TCP port.", "port")
HELD_LIMIT = _gauge("whimbrel_unfinished_limit_bytes", "Their limit, collector.max_pending_bytes.", "port")
REPLACED = _counter(
    "whimbrel_tcp_connections_replaced_total", "Connections closed because their device logged in over a newer one."
)
CONNECTIONS = _gauge("whimbrel_tcp_connections", "Open TCP connections of devices.")
CONNECTIONS_LIMIT = _gauge(
    "whimbrel_tcp_connections_limit", "collector.max_connections, or fewer if the open-files limit is lower."
)
OF_ONE_ADDRESS = _gauge("whimbrel_tcp_connections_of_one_address", "Open TCP connections of the address with most.")
OF_ONE_ADDRESS_LIMIT = _gauge("whimbrel_tcp_connections_of_one_address_limit", "collector.max_connections_per_address.")
HTTP_CONNECTIONS = _gauge("whimbrel_http_connections", "Open HTTP connections, by port.", "port")
HTTP_CONNECTIONS_LIMIT = _gauge(
    "whimbrel_http_connections_limit", "collector.max_http_connections, or fewer by the open-files limit.", "port"
)
HANDSHAKES = _gauge("whimbrel_tls_handshakes", "TLS handshakes in progress.")
HANDSHAKES_LIMIT = _gauge("whimbrel_tls_handshakes_limit", "tls.max_handshakes; further connections are closed.")
BROKER_CONNECTED = _gauge(
    "whimbrel_mqtt_broker_heard", "1 while connected and subscribed to the broker, else 0.", "broker"
)
RETAINED_REPEATED = _counter(
    "whimbrel_mqtt_retained_repeated_total",
    "Retained messages that a broker delivered again and that were not stored again.",
    "broker",
)

# Saving and compacting -------------------------------------------------------------------------------

SAVE_S = _histogram("whimbrel_save_duration_seconds", "A save of a shard with records, from plan to trim.", WORK_S)
SAVED = _counter("whimbrel_records_saved_total", "Records moved to the archive by saves.")
SAVE_FAILURES = _counter("whimbrel_save_failures_total", "Failed saves; their records stay in Redis.")
COMPACTION_S = _histogram("whimbrel_compaction_duration_seconds", "A merge of files of a day into fewer.", WORK_S)
TIDY_S = _histogram("whimbrel_tidy_duration_seconds", "A run that deletes days beyond retention and old files.", WORK_S)
DELETIONS = _counter("whimbrel_deletions_total", "Completed deletions of a device.")
JOB_FAILURES = _counter("whimbrel_job_failures_total", "Background jobs that ended with an error.", "job_name")

LOOP_ERRORS = _counter(
    "whimbrel_loop_errors_total", "Unexpected errors in background loops, which are retried.", "loop"
)
UNDECODABLE = _counter(
    "whimbrel_undecodable_values_total", "Values in Redis skipped because they cannot be decoded, by kind.", "kind"
)

JOBS_WAITING = _gauge("whimbrel_jobs_waiting", "Jobs that wait in RQ's queue, as last read by the scheduler.")
JOBS_FAILED = _gauge("whimbrel_jobs_failed", "Jobs that RQ recorded as failed within the last minute.")

# The archive -----------------------------------------------------------------------------------------

ARCHIVE_FILES = _gauge("whimbrel_archive_files", "Live files of the archive.")
ARCHIVE_BYTES = _gauge("whimbrel_archive_bytes", "Size of the live files of the archive.")
ARCHIVE_RECORDS = _gauge("whimbrel_archive_records", "Records in the live files of the archive.")
OPEN_DAY_FILES = _gauge("whimbrel_archive_open_day_files", "Live files of the current day, UTC.")
OPEN_DAY_LIMIT = _gauge("whimbrel_archive_open_day_files_limit", "archive.max_open_files.")
ARCHIVE_LIMIT = _gauge("whimbrel_archive_limit_bytes", "archive.retention_max_bytes, if set.")
ARCHIVE_AGE_S = _gauge("whimbrel_archive_age_seconds", "Time since the archive was created.")
COMMIT_AGE_S = _gauge("whimbrel_archive_last_commit_age_seconds", "Time since the last commit to the archive.")

# HTTP and queries ------------------------------------------------------------------------------------

REQUEST_S = _histogram(
    "whimbrel_http_request_duration_seconds", "From a request to the end of its response, by route.", WAIT_S, "route"
)
ANSWERS = _counter("whimbrel_http_answers_total", "Responses by route and status class, like 2xx.", "route", "status")
QUERIES = _gauge("whimbrel_queries", "Running and waiting queries.", "kind")
QUERIES_LIMIT = _gauge("whimbrel_queries_limit", "Maximum of running and waiting queries; beyond, 503.", "kind")

LIVE_READERS = _gauge("whimbrel_live_readers", "Readers of /v1/live.")
LIVE_READERS_LIMIT = _gauge("whimbrel_live_readers_limit", "api.max_live_readers; beyond, 503.")

UNSENT_BYTES = _gauge("whimbrel_unsent_bytes", "Bytes that wait for HTTP clients of a process.")
UNSENT_LIMIT = _gauge("whimbrel_unsent_limit_bytes", "api.pending_bytes; beyond, the slowest clients are closed.")
SLOW_CLIENTS = _counter("whimbrel_slow_clients_closed_total", "HTTP clients closed because of api.pending_bytes.")

CACHE_BYTES = _gauge("whimbrel_page_cache_bytes", "Size of the cached list pages of the legacy API.")
CACHE_LIMIT = _gauge("whimbrel_page_cache_limit_bytes", "api.page_memory_bytes.")
QUERY_MEMORY = _gauge("whimbrel_query_memory_bytes", "Memory used by queries.")
QUERY_MEMORY_LIMIT = _gauge("whimbrel_query_memory_limit_bytes", "api.query_memory_bytes; beyond, they spill to disk.")
READY = _gauge("whimbrel_ready", "1 if the last check of /readyz found no fault, else 0.")
READY_REASONS = _gauge("whimbrel_not_ready_reasons", "Number of faults at the last check of /readyz.")

CERTIFICATE_UNTIL_S = _gauge(
    "whimbrel_certificate_expiry_time_seconds", "Expiry of the TLS certificate, s since epoch."
)

LOG_LINES = _counter("whimbrel_log_lines_total", "Log lines, by severity.", "level")
LOG_LINES_LEFT_OUT = _counter("whimbrel_log_lines_left_out_total", "Log lines dropped as repeated too often.")

AUDIT_ENTRIES = _counter("whimbrel_audit_entries_total", "Entries of the audit log, by kind.", "kind")
AUDIT_FAILURES = _counter("whimbrel_audit_failures_total", "Entries of the audit log that could not be written.")

# The process itself ----------------------------------------------------------------------------------

CPU_S = _counter("whimbrel_process_cpu_seconds_total", "CPU time used by the process.")
RESIDENT_BYTES = _gauge("whimbrel_process_resident_memory_bytes", "Resident memory of the process.")
OPEN_FILES = _gauge("whimbrel_process_open_fds", "Open files and sockets of the process.")
OPEN_FILES_LIMIT = _gauge("whimbrel_process_max_fds", "Open-files limit of the process.")
STARTED_S = _gauge("whimbrel_process_start_time_seconds", "Start of the process, s since epoch.")
