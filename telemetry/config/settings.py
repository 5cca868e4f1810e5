"""The settings: each is declared once, here, with its type, default and description.

`telemetry/config/loader.py` reads them, `telemetry/config/validation.py` checks rules between them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

PROJECT = Path(__file__).resolve().parents[2]
"""The folder of the code, which has `config.toml`."""

OWN_CERTIFICATE, OWN_KEY = "tls/certificate.pem", "tls/key.pem"
"""Paths of the box's own certificate and key in the data folder, used if `auth.secure` is set."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[section]` of the file."""


class Data(Section, frozen=True):
    dir: Annotated[
        str, Meta(description="Folder of everything that the box stores, relative to this settings file.")
    ] = "data"
    min_free_bytes: Annotated[
        int,
        Meta(ge=0, description="Minimum free disk space, bytes; below it, collectors reject records. 0 = off. 1 GiB."),
    ] = 2**30
    group: Annotated[
        str,
        Meta(
            description="Group that may read the archive's files, name or number. Empty = only the owner. All other "
            "files in data.dir belong to the owner alone."
        ),
    ] = ""


class Api(Section, frozen=True):
    host: Annotated[str, Meta(description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the API.")] = 8000
    max_page_records: Annotated[Positive, Meta(description="Maximum records in one response.")] = 50_000
    page_memory_bytes: Annotated[
        Positive,
        Meta(description="Cache of the list pages of /tracking and /tcp_tracking, bytes. 128 MiB."),
    ] = 134_217_728
    query_threads: Annotated[Positive, Meta(description="Concurrent history queries.")] = 2
    query_queue: Annotated[Positive, Meta(description="Maximum waiting history queries; further ones get 503.")] = 32
    query_memory_bytes: Annotated[
        Positive, Meta(description="Memory limit for history queries, bytes; beyond it, they spill to disk. 192 MiB.")
    ] = 192 * 2**20
    query_timeout_s: Annotated[Positive, Meta(description="Timeout for a history query, seconds.")] = 30
    tail_memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Cache of unsaved records between queries, bytes; a larger tail is read again for each query."
            " 32 MiB.",
        ),
    ] = 32 * 2**20
    max_tail_bytes: Annotated[
        Positive,
        Meta(
            description="Memory limit for unsaved records that running queries hold besides this cache, bytes; a "
            "query that needs more gets 503. 128 MiB.",
        ),
    ] = 128 * 2**20
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins whose pages may call the API from a browser, such as https://map.example.com. * = all."
        ),
    ] = ()
    max_live_readers: Annotated[
        Positive, Meta(description="Maximum concurrent readers of /v1/live; further ones get 503.")
    ] = 1_000
    max_live_readers_per_key: Annotated[
        int, Meta(ge=0, description="Maximum concurrent readers of /v1/live with one key. 0 = off.")
    ] = 250
    max_live_readers_per_address: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum concurrent readers of /v1/live from one address, trusted proxies excepted. 0 = off.",
        ),
    ] = 250
    pending_bytes: Annotated[
        int,
        Meta(
            ge=2**24,
            description="Memory limit for responses that HTTP clients have not read yet, bytes in each process; "
            "beyond it, the slowest clients are disconnected. 256 MiB.",
        ),
    ] = 2**28
    min_compressed_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Minimum size of a response that is compressed for clients that accept gzip or zstd, bytes; it "
            "holds for collectors too. 0 = off.",
        ),
    ] = 1_024
    max_share_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Maximum share that one key or address may hold of the export slots, the connections to the "
            "query program and the queues of exports, history queries and SQL, percent. 100 = off.",
        ),
    ] = 75
    export_wait_s: Annotated[
        Positive, Meta(description="Timeout for a free export slot, seconds; then the client gets 503.")
    ] = 4
    min_read_bytes_per_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Minimum rate at which a client must read a large response, bytes per second; a slower client"
            " is disconnected while others wait for its slot. 0 = off. 16 KiB.",
        ),
    ] = 2**14
    min_read_window_s: Annotated[
        Positive, Meta(description="Time over which this rate is measured, seconds of waiting for the client.")
    ] = 10


class Http(Section, frozen=True):
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Additional host names under which clients reach the API and the HTTP collector, such as "
            "box.example.com. *.example.com = all subdomains, * = any name."
        ),
    ] = ()


class Sql(Section, frozen=True):
    enabled: Annotated[bool, Meta(description="Enable SQL queries (POST /v1/sql).")] = False
    timeout_s: Annotated[Positive, Meta(description="Timeout for an SQL query, seconds.")] = 30
    memory_bytes: Annotated[
        int, Meta(ge=2**26, description="Memory limit of DuckDB for one SQL query, bytes. 256 MiB.")
    ] = 2**28
    max_rows: Annotated[
        Positive, Meta(description="Maximum rows in a result; a truncated result is marked as such.")
    ] = 100_000
    max_answer_bytes: Annotated[
        Positive, Meta(description="Maximum size of a result, bytes; a truncated result is marked as such. 32 MiB.")
    ] = 2**25
    at_once: Annotated[Positive, Meta(description="Concurrent SQL queries, each in its own process.")] = 1
    queue: Annotated[int, Meta(ge=0, description="Maximum waiting SQL queries; further ones get 503.")] = 8


class Auth(Section, frozen=True):
    required: Annotated[
        bool,
        Meta(description="Require an API key of every client that writes or reads. `whimbrel keys create` makes keys."),
    ] = False
    allow_anonymous: Annotated[bool, Meta(description="Allow a non-loopback host without keys.")] = False
    session_max_s: Annotated[
        int, Meta(ge=60, description="Maximum lifetime of a signed-in user's session, seconds. 24 h.")
    ] = 86_400
    session_idle_s: Annotated[int, Meta(ge=60, description="Idle timeout of a session, seconds. 2 h.")] = 7_200
    public_url: Annotated[
        str,
        Meta(
            description="URL under which browsers reach the page, if a proxy terminates TLS or users sign in by OIDC,"
            " such as https://fleet.example.com. Empty = the box's own address."
        ),
    ] = ""
    secure: Annotated[
        bool,
        Meta(
            description="Require keys, use TLS (with a certificate that `whimbrel up` makes if none is configured) "
            "and apply default rate limits where none is set."
        ),
    ] = False


RoleOfValue = Annotated[str, Meta(pattern="^.+=(viewer|dispatcher|admin)$")]


class OidcSection(Section, frozen=True):
    issuer: Annotated[
        str,
        Meta(
            description="URL of an OpenID Connect provider for sign-in, such as https://login.example.com/realm. "
            "Empty = none."
        ),
    ] = ""
    client_id: Annotated[str, Meta(description="Client ID of this box at the provider.")] = ""
    client_secret: Annotated[
        str, Meta(description="Client secret of this box, preferably env:NAME or file:PATH. Empty = none.")
    ] = ""
    name: Annotated[str, Meta(description="Name of the provider on the login page.")] = "single sign-on"
    scopes: Annotated[str, Meta(description="Requested scopes; must contain openid.")] = "openid email profile"
    name_claim: Annotated[
        str,
        Meta(
            min_length=1,
            description="Claim with the user's name; email is accepted only if the provider has verified it.",
        ),
    ] = "email"
    role_claim: Annotated[
        str,
        Meta(
            description="Claim with the user's roles, a string or a list; a dot selects a nested claim, as in "
            "realm_access.roles."
        ),
    ] = "roles"
    roles: Annotated[
        tuple[RoleOfValue, ...],
        Meta(
            description="Roles by value of this claim, such as fleet-admins=admin; the first match applies. Users "
            "without a role are rejected."
        ),
    ] = ()
    email_domains: Annotated[
        tuple[str, ...], Meta(description="Domains of verified email addresses that may sign in. Empty = all.")
    ] = ()
    ca_file: Annotated[str, Meta(description="PEM file of trusted CA certificates. Empty = the system's.")] = ""


TrackerProtocol = Literal["teltonika", "gt06", "h02", "gps103", "tk103", "gl200", "nmea"]
ListenProtocol = Literal[
    "auto", "any", "json", "frames", "msgpack", TrackerProtocol, "osmand", "owntracks", "traccar", "influx"
]
SpeedUnit = Literal["kmh", "knots", "ms", "mph"]


class Listen(Section, frozen=True):
    """One `[[collector.listen]]`: an additional port for one protocol."""

    protocol: Annotated[
        ListenProtocol,
        Meta(description="Protocol; auto detects it by a TCP connection's first bytes."),
    ]
    port: Annotated[Port, Meta(description="Port number.")]
    transport: Annotated[
        Literal["tcp", "udp", "http"],
        Meta(description="tcp; udp for trackers' datagrams; http for protocols that post."),
    ] = "tcp"
    host: Annotated[str, Meta(description="Address to listen on. Empty = collector.host.")] = ""
    speed_unit: Annotated[
        Literal["", SpeedUnit], Meta(description="Unit of speeds without a unit. Empty = the protocol's usual one.")
    ] = ""
    timezone: Annotated[
        str, Meta(description="Time zone of devices that send local time, such as Europe/Istanbul.")
    ] = "UTC"
    device_tag: Annotated[
        str, Meta(description="InfluxDB tag with the device ID. Empty = device_id, device or host.")
    ] = ""
    answers_all: Annotated[
        bool, Meta(description="Also send the replies that a tracker expects only if configured to (h02, gl200, nmea).")
    ] = False
    allow_anonymous: Annotated[
        bool,
        Meta(
            description="Accept records without a key although auth.required is set: trackers and datagrams carry none."
        ),
    ] = False
    keep_frames: Annotated[
        bool, Meta(description="Store each frame as hex in the attribute `frame` of its first record.")
    ] = False
    tls: Annotated[bool, Meta(description="Use TLS with the certificate of [tls].")] = False
    idle_timeout_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Idle timeout of a TCP connection, seconds. 0 = collector.tracker_idle_timeout_s for "
            "trackers, collector.idle_timeout_s for others.",
        ),
    ] = 0
    one_connection_per_device: Annotated[
        bool,
        Meta(description="Close a tracker's older connection after it has logged in over a newer one of this port."),
    ] = True
    devices: Annotated[
        tuple[str, ...], Meta(description="IDs of accepted devices; others are rejected. Empty = all.")
    ] = ()
    device_prefixes: Annotated[
        tuple[str, ...],
        Meta(description="ID prefixes of further accepted devices. Both lists empty = all devices."),
    ] = ()
    known_devices_only: Annotated[
        bool,
        Meta(description="Reject devices without records, unless added by `whimbrel devices add`."),
    ] = False


class Mqtt(Section, frozen=True):
    """One `[[collector.mqtt]]`: a broker to subscribe to."""

    host: Annotated[str, Meta(min_length=1, description="Address of the broker.")]
    topics: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Topics to subscribe to; {device_id} is the level with the device ID."),
    ]
    port: Annotated[Port, Meta(description="TCP port of the broker; 8883 is usual with TLS.")] = 1883
    client_id: Annotated[
        str,
        Meta(
            min_length=1,
            description="Client ID, which names the persistent session at the broker; must not be used by another "
            "client.",
        ),
    ] = "whimbrel"
    username: Annotated[str, Meta(description="User name. Empty = none.")] = ""
    password: Annotated[str, Meta(description="Password, preferably env:NAME or file:PATH.")] = ""
    tls: Annotated[bool, Meta(description="Use TLS.")] = False
    ca_file: Annotated[str, Meta(description="PEM file of trusted CA certificates. Empty = the system's.")] = ""
    speed_unit: Annotated[Literal["", SpeedUnit], Meta(description="Unit of speeds without a unit. Empty = km/h.")] = ""


class Collector(Section, frozen=True):
    host: Annotated[str, Meta(description="Address that the collectors listen on.")] = "127.0.0.1"
    http_port: Annotated[Port, Meta(description="TCP port of the HTTP collector.")] = 8001
    tcp_port: Annotated[Port, Meta(description="TCP port of the collector of JSON and MessagePack.")] = 9999
    processes: Annotated[Positive, Meta(description="Collector processes; they share both ports.")] = 1
    max_body_bytes: Annotated[Positive, Meta(description="Maximum size of an HTTP request body, bytes. 8 MiB.")] = (
        8 * 2**20
    )
    max_message_bytes: Annotated[
        Positive, Meta(description="Maximum size of a TCP message and of a record, bytes. 1 MiB.")
    ] = 2**20
    max_request_records: Annotated[Positive, Meta(description="Maximum records in one request or message.")] = 100_000
    max_future_seconds: Annotated[
        Positive,
        Meta(description="Maximum time by which a record's timestamp may be ahead of the box's clock, seconds."),
    ] = 86_400
    max_pending_bytes: Annotated[
        Positive,
        Meta(
            description="Memory limit for records that wait for Redis (beyond it, HTTP answers 503 and TCP stops "
            "reading), and for incomplete messages (beyond it, stalled ones are dropped), bytes. 64 MiB."
        ),
    ] = 64 * 2**20
    max_devices: Annotated[
        Positive, Meta(description="Maximum devices per shard (redis.shards); new devices beyond it are rejected.")
    ] = 200_000
    max_connections: Annotated[
        Positive, Meta(description="Maximum TCP connections per collector process; further ones are closed.")
    ] = 20_000
    max_connections_per_address: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum TCP connections from one address per process; a whole fleet may share an address. 0 "
            "= off.",
        ),
    ] = 10_000
    max_senders: Annotated[
        Positive,
        Meta(
            description="Maximum remembered senders of numbered batches per shard (redis.shards); new senders must "
            "wait."
        ),
    ] = 200_000
    max_header_bytes: Annotated[
        int, Meta(ge=1_024, description="Maximum size of an HTTP request line with all headers, bytes. 32 KiB.")
    ] = 2**15
    max_query_bytes: Annotated[
        int,
        Meta(
            ge=1_024,
            description="Maximum size of an HTTP query string, bytes. 28 KiB, enough for a thousand device IDs.",
        ),
    ] = 28 * 2**10
    max_http_connections: Annotated[
        Positive, Meta(description="Maximum HTTP connections per process; further ones get 503.")
    ] = 4_000
    max_http_connections_per_address: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum HTTP connections from one address per process, limits.trusted_proxies excepted. 0 = "
            "off.",
        ),
    ] = 2_000
    keep_alive_s: Annotated[
        Positive,
        Meta(description="Timeout of an HTTP connection without a request, or without reading a response, seconds."),
    ] = 75
    request_timeout_s: Annotated[
        Positive, Meta(description="Timeout for receiving one request or message, seconds.")
    ] = 30
    idle_timeout_s: Annotated[
        Positive, Meta(description="Idle timeout of a TCP connection of JSON or MessagePack, seconds.")
    ] = 86_400
    tracker_idle_timeout_s: Annotated[
        Positive, Meta(description="Idle timeout of a tracker's TCP connection, seconds.")
    ] = 1_800
    tcp_keepalive_s: Annotated[
        int,
        Meta(ge=0, description="Idle time of a TCP connection before keepalive probes begin, seconds. 0 = off."),
    ] = 300
    tcp_user_timeout_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Timeout for data and probes that a TCP peer does not acknowledge, seconds; then the "
            "connection is closed. 0 = the system's.",
        ),
    ] = 600
    speed_unit: Annotated[
        SpeedUnit, Meta(description="Unit of the field `speed`, which has none in its name: kmh, knots, ms or mph.")
    ] = "kmh"
    idempotency_seconds: Annotated[
        Positive, Meta(description="Time for which an Idempotency-Key is remembered, seconds.")
    ] = 600
    max_idempotency_keys: Annotated[
        Positive, Meta(description="Maximum remembered Idempotency-Keys; requests with further ones get 503.")
    ] = 100_000
    listen: Annotated[tuple[Listen, ...], Meta(description="Additional ports, each for one protocol.")] = ()
    mqtt: Annotated[
        tuple[Mqtt, ...], Meta(description="MQTT brokers whose messages are records: JSON, or in OwnTracks' format.")
    ] = ()


class Tls(Section, frozen=True):
    certificate: Annotated[
        str,
        Meta(
            description="PEM file of the certificate followed by its intermediate certificates. Empty = no TLS on the"
            " ports of the API and the collector. SIGHUP reloads certificate and key."
        ),
    ] = ""
    key: Annotated[str, Meta(description="PEM file of the private key, not encrypted.")] = ""
    client_ca: Annotated[
        str,
        Meta(
            description="PEM file of the CAs whose client certificates collectors accept instead of keys; the common "
            "name is the device ID. SIGHUP reloads it. Empty = client certificates are not requested."
        ),
    ] = ""
    client_crl: Annotated[str, Meta(description="PEM file of the revocation lists of these CAs. Empty = none.")] = ""
    max_handshakes: Annotated[
        Positive,
        Meta(description="Maximum concurrent TLS handshakes per process (65 KB each); further connections are closed."),
    ] = 1_000
    max_handshakes_per_address: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum concurrent TLS handshakes from one address per process, limits.trusted_proxies "
            "excepted. 0 = off.",
        ),
    ] = 250


PerSecond = Annotated[float, Meta(ge=0)]


class LimitsSection(Section, frozen=True):
    address_requests_per_s: Annotated[
        PerSecond, Meta(description="Maximum HTTP requests per second from one address, in each process. 0 = off.")
    ] = 0
    address_requests_burst: Annotated[
        int, Meta(ge=0, description="Maximum burst of these requests. 0 = one second's worth.")
    ] = 0
    address_records_per_s: Annotated[
        PerSecond,
        Meta(
            description="Maximum records per second from one address over HTTP, TCP and UDP, in each process. 0 = off."
        ),
    ] = 0
    address_records_burst: Annotated[
        int, Meta(ge=0, description="Maximum burst of these records. 0 = one second's worth.")
    ] = 0
    key_requests_per_s: Annotated[
        PerSecond, Meta(description="Maximum HTTP requests per second with one key, in each process. 0 = off.")
    ] = 0
    key_requests_burst: Annotated[
        int, Meta(ge=0, description="Maximum burst of these requests. 0 = one second's worth.")
    ] = 0
    key_records_per_s: Annotated[
        PerSecond, Meta(description="Maximum records per second with one key, in each process. 0 = off.")
    ] = 0
    key_records_burst: Annotated[
        int, Meta(ge=0, description="Maximum burst of these records. 0 = one second's worth.")
    ] = 0
    address_wrong_keys_per_min: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum requests without a valid key from one address per minute; further ones get 429 "
            "instead of 401. Also limits key lookups. 0 = off.",
        ),
    ] = 60
    device_days_per_hour: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum past days, besides yesterday, that one device's records may touch per hour, in each "
            "process. 0 = off.",
        ),
    ] = 1_000
    owner_share_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Maximum share of collector.max_senders, max_idempotency_keys and max_devices for one key "
            "with a prefix, or for one address without a key (of devices, those it has added), percent. 100 = off.",
        ),
    ] = 80
    senders_per_device: Annotated[
        int,
        Meta(ge=0, description="Maximum senders per shard for each device that a key or token names. 0 = off."),
    ] = 16
    idempotency_keys_per_device: Annotated[
        int,
        Meta(
            ge=0, description="Maximum remembered Idempotency-Keys for each device that a key or token names. 0 = off."
        ),
    ] = 2_000
    max_buckets: Annotated[
        Positive,
        Meta(
            description="Maximum addresses, or keys, that each rate limit remembers; the least recently seen is "
            "dropped first."
        ),
    ] = 100_000
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="CIDRs of proxies whose forwarded-for header is trusted.")
    ] = ()
    proxy_header: Annotated[Literal["x-forwarded-for", "forwarded"], Meta(description="Name of this header.")] = (
        "x-forwarded-for"
    )


class Redis(Section, frozen=True):
    url: Annotated[str, Meta(description="URL of an external Redis. Empty = Whimbrel starts its own.")] = ""
    user: Annotated[
        str,
        Meta(
            description="User at this Redis if the URL names none; {role} is replaced by the program's role (api, "
            "worker, ...)."
        ),
    ] = ""
    password: Annotated[
        str, Meta(description="Password of this user, or env:NAME or file:PATH, which may contain {role}.")
    ] = ""
    server: Annotated[
        Literal["auto", "system", "bundled"],
        Meta(description="Server that Whimbrel starts: system, bundled, or auto (the system's if there is one)."),
    ] = "auto"
    shards: Annotated[
        Positive, Meta(description="Number of shards that devices are spread over; fixed at the first start.")
    ] = 1
    max_memory_bytes: Annotated[
        int, Meta(ge=0, description="Memory limit of Whimbrel's own Redis, bytes. 0 = 45 % of the machine's memory.")
    ] = 0
    durability: Annotated[
        Literal["aof", "memory"],
        Meta(
            description="aof: records are on disk when acknowledged. memory: accept a Redis that does not write to "
            "disk."
        ),
    ] = "aof"
    full_percent: Annotated[
        int,
        Meta(ge=1, le=100, description="High watermark of Redis memory, percent; above it, collectors reject records."),
    ] = 80
    resume_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Low watermark of Redis memory, percent; below it, collectors accept records again.",
        ),
    ] = 70


class Persist(Section, frozen=True):
    flush_records: Annotated[Positive, Meta(description="Unsaved records in a shard that trigger a save.")] = 20_000
    flush_seconds: Annotated[
        Positive, Meta(description="Maximum time between two saves of a shard with unsaved records, seconds.")
    ] = 30
    max_records: Annotated[Positive, Meta(description="Maximum records per save.")] = 200_000
    max_bytes: Annotated[
        Positive,
        Meta(
            description="Maximum bytes of records per save; a shard with as many unsaved bytes is saved immediately. "
            "64 MiB."
        ),
    ] = 64 * 2**20
    max_devices: Annotated[Positive, Meta(description="Maximum devices per save.")] = 50_000
    max_days: Annotated[
        Positive,
        Meta(description="Maximum days (= files) per save besides yesterday, today and tomorrow."),
    ] = 64
    quarantine_max_bytes: Annotated[
        Positive,
        Meta(
            description="Maximum size of the quarantine for records that cannot be saved, bytes; the oldest are "
            "dropped first. 16 MiB."
        ),
    ] = 16 * 2**20


class ArchiveSection(Section, frozen=True):
    target_file_bytes: Annotated[
        Positive, Meta(description="Target size of the files that a past day is compacted into, bytes. 128 MiB.")
    ] = 128 * 2**20
    max_open_files: Annotated[
        int, Meta(ge=4, description="Maximum small files of the current day; beyond it, the smallest are compacted.")
    ] = 24
    quiet_seconds: Annotated[
        Positive, Meta(description="Time without a new file after which a past day is compacted, seconds.")
    ] = 3_600
    retention_days: Annotated[int, Meta(ge=0, description="Retention of records by timestamp, days. 0 = for ever.")] = 0
    retention_max_bytes: Annotated[
        int,
        Meta(ge=0, description="Maximum size of the archive, bytes; beyond it, the oldest days are deleted. 0 = off."),
    ] = 0
    grace_seconds: Annotated[
        Positive,
        Meta(
            description="Time for which a file that has left the table stays on disk, seconds; must be longer than "
            "any query or export."
        ),
    ] = 3_600
    merge_memory_bytes: Annotated[
        Positive,
        Meta(
            description="Memory limit for deleting records from files, bytes; beyond it, data spills to disk. Long "
            "texts need more. 160 MiB."
        ),
    ] = 160 * 2**20


class CourierSection(Section, frozen=True):
    look_seconds: Annotated[
        Positive, Meta(description="Interval at which the archive is checked for new files, seconds.")
    ] = 1
    timeout_s: Annotated[Positive, Meta(description="Timeout for a receiver to connect or to respond, seconds.")] = 30
    longest_wait_s: Annotated[
        Positive,
        Meta(
            description="Maximum backoff between two attempts, seconds; the first is 1 s, and each is twice as long "
            "as the one before."
        ),
    ] = 60
    silence_look_seconds: Annotated[
        Positive, Meta(description="Interval at which devices are checked for silence, seconds.")
    ] = 30
    not_ready_seconds: Annotated[
        Positive,
        Meta(description="Time for which /readyz must fail, or succeed again, before an alert is sent, seconds."),
    ] = 30
    max_pending_events: Annotated[
        int,
        Meta(
            ge=10,
            description="Maximum pending events per receiver; beyond it, events of devices wait until there is room.",
        ),
    ] = 10_000
    api_url: Annotated[str, Meta(description="URL of the API, for /readyz. Empty = from api.host and api.port.")] = ""
    key: Annotated[
        str,
        Meta(description="Key with which /readyz gives its reasons if auth.required is set, or env:NAME or file:PATH."),
    ] = ""
    collector_url: Annotated[
        str,
        Meta(
            description="URL of the HTTP collector, to check that devices can be received. Empty = from its host and "
            "port."
        ),
    ] = ""


class Page(Section, frozen=True):
    tile_url: Annotated[
        str,
        Meta(
            description="URL template of raster map tiles from another host, shown over the built-in map, such as "
            "https://tiles.example.com/{z}/{x}/{y}.png. Empty = none."
        ),
    ] = ""
    tile_file: Annotated[
        str,
        Meta(description="PMTiles file with raster or vector tiles, served by this box instead. Empty = none."),
    ] = ""
    tile_credit: Annotated[str, Meta(description="Attribution text shown on the map.")] = ""


class AuditSection(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Write an audit log to data.dir/audit: changes, SQL queries and rejected access, with the key"
            " or user."
        ),
    ] = True
    max_file_bytes: Annotated[
        int, Meta(ge=65_536, description="Maximum size of an audit file, bytes; then a new file begins. 8 MiB.")
    ] = 2**23
    files: Annotated[
        Positive, Meta(description="Maximum closed audit files per program and kind; the oldest is deleted.")
    ] = 8


class BackupSection(Section, frozen=True):
    max_age_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum age of the last backup before the alarm WhimbrelBackupOld fires, also if there is "
            "none, seconds. 0 = off. 2 days.",
        ),
    ] = 172_800


class Log(Section, frozen=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Minimum severity that is logged.")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="Format of log lines: text for people, json for programs.")
    ] = "text"
    access: Annotated[
        bool, Meta(description="Log HTTP requests (method, path, status, duration), at most 20 in 10 s.")
    ] = False


Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]


class Forward(Section, frozen=True):
    """One `[[forward]]`: a destination that committed records are forwarded to."""

    name: Annotated[
        Name, Meta(description="Name, of a-z, 0-9 and -. A forward with another name starts from the beginning.")
    ]
    url: Annotated[
        str,
        Meta(
            description="Destination: whimbrel://HOST:PORT or whimbrels:// (TLS) is the TCP port of another box, "
            "http:// or https:// receives NDJSON, s3://BUCKET/PREFIX receives a copy of the table."
        ),
    ]
    start: Annotated[
        Literal["now", "all"],
        Meta(description="First records to forward: now (saved from now on) or all (everything in the archive)."),
    ] = "now"
    key: Annotated[
        str,
        Meta(description="Key for the other box, or env:NAME or file:PATH. Empty = it requires none."),
    ] = ""
    batch_records: Annotated[Positive, Meta(description="Maximum records per HTTP request.")] = 1_000
    headers: Annotated[
        dict[str, str],
        Meta(description="HTTP headers; values env:NAME or file:PATH are read when the courier starts."),
    ] = {}
    on_refused: Annotated[
        Literal["stop", "skip"],
        Meta(description="Action if the receiver rejects records: stop, or skip (and count them)."),
    ] = "stop"
    max_lag_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum size of files that wait to be forwarded, bytes; beyond it, the oldest are skipped "
            "and counted. 0 = off.",
        ),
    ] = 0
    max_bytes_per_s: Annotated[int, Meta(ge=0, description="Bandwidth limit, bytes per second. 0 = off.")] = 0
    ca_file: Annotated[str, Meta(description="PEM file of trusted CA certificates. Empty = the system's.")] = ""
    client_certificate: Annotated[str, Meta(description="PEM file of the TLS client certificate. Empty = none.")] = ""
    client_key: Annotated[str, Meta(description="PEM file of its private key, not encrypted.")] = ""
    secret: Annotated[
        str,
        Meta(
            description="Secret of the HMAC signature over time and body of each HTTP request, or env:NAME or "
            "file:PATH. Empty = not signed."
        ),
    ] = ""
    s3_endpoint: Annotated[str, Meta(description="URL of an S3 service other than Amazon's.")] = ""
    s3_region: Annotated[str, Meta(description="Region of the bucket. Empty = AWS_REGION.")] = ""
    s3_access_key_id: Annotated[
        str, Meta(description="Access key ID, or env:NAME or file:PATH. Empty = the AWS_* environment variables.")
    ] = ""
    s3_secret_access_key: Annotated[str, Meta(description="Secret access key, preferably env:NAME or file:PATH.")] = ""
    mirror: Annotated[
        bool, Meta(description="Delete from S3 the files that have left the table, after archive.grace_seconds.")
    ] = False

    @property
    def scheme(self) -> str:
        """The scheme of `url`."""
        return self.url.partition("://")[0]


class SilenceRule(Section, frozen=True):
    """A silence timeout for some devices."""

    device: Annotated[str, Meta(description="ID of one device.")] = ""
    prefix: Annotated[str, Meta(description="Prefix of device IDs.")] = ""
    silent_after_s: Annotated[int, Meta(ge=0, description="Time without a record, seconds. 0 = never.")] = 0


class Alert(Section, frozen=True):
    """One `[[alert]]`: a webhook."""

    name: Annotated[Name, Meta(description="Name, of a-z, 0-9 and -.")]
    url: Annotated[str, Meta(description="URL to which events are posted, http:// or https://.")]
    secret: Annotated[
        str, Meta(description="Secret of the HMAC signature, or env:NAME or file:PATH. Empty = not signed.")
    ] = ""
    events: Annotated[
        tuple[Literal["device.silent", "device.back", "box.not_ready", "box.ready"], ...],
        Meta(description="Events to post."),
    ] = ("device.silent", "device.back", "box.not_ready", "box.ready")
    silent_after_s: Annotated[
        int, Meta(ge=0, description="Time without a record after which a device is silent, seconds. 0 = never.")
    ] = 0
    rules: Annotated[
        tuple[SilenceRule, ...],
        Meta(
            description="Other timeouts for single devices or prefixes; the device, else the longest prefix, applies."
        ),
    ] = ()
    headers: Annotated[dict[str, str], Meta(description="HTTP headers; values as for [[forward]].")] = {}
    ca_file: Annotated[str, Meta(description="PEM file of trusted CA certificates. Empty = the system's.")] = ""
    client_certificate: Annotated[str, Meta(description="PEM file of the TLS client certificate. Empty = none.")] = ""
    client_key: Annotated[str, Meta(description="PEM file of its private key, not encrypted.")] = ""


class Settings(Section, frozen=True):
    """All settings. `base` is the folder for relative paths, `file` the settings file, if any."""

    data: Data = Data()
    api: Api = Api()
    http: Http = Http()
    sql: Sql = Sql()
    auth: Auth = Auth()
    oidc: OidcSection = OidcSection()
    collector: Collector = Collector()
    tls: Tls = Tls()
    limits: LimitsSection = LimitsSection()
    redis: Redis = Redis()
    persist: Persist = Persist()
    archive: ArchiveSection = ArchiveSection()
    courier: CourierSection = CourierSection()
    page: Page = Page()
    log: Log = Log()
    audit: AuditSection = AuditSection()
    backup: BackupSection = BackupSection()
    forward: tuple[Forward, ...] = ()
    alert: tuple[Alert, ...] = ()
    base: str = ""
    file: str = ""

    @property
    def data_dir(self) -> Path:
        """Absolute path of `data.dir`."""
        return (Path(self.base or PROJECT) / Path(self.data.dir).expanduser()).absolute()

    @property
    def archive_dir(self) -> Path:
        """Absolute path of the archive, a Delta table."""
        return self.data_dir / "archive"

    @property
    def redis_dir(self) -> Path:
        """Absolute path of the folder of Whimbrel's own Redis."""
        return self.data_dir / "redis"

    @property
    def audit_dir(self) -> Path:
        """Absolute path of the audit log's files."""
        return self.data_dir / "audit"

    @property
    def tile_path(self) -> Path | None:
        """Absolute path of the map tiles file; None without one."""
        if not self.page.tile_file:
            return None
        return (Path(self.base or PROJECT) / Path(self.page.tile_file).expanduser()).absolute()

    @property
    def courier_dir(self) -> Path:
        """Absolute path of the courier's folder: its progress and pending events."""
        return self.data_dir / "courier"

    @property
    def tls_paths(self) -> tuple[Path, Path] | None:
        """Absolute paths of certificate and key; None without TLS."""
        if not self.tls.certificate:
            return None
        base = Path(self.base or PROJECT)
        certificate, key = (base / Path(path).expanduser() for path in (self.tls.certificate, self.tls.key))
        return certificate.absolute(), key.absolute()

    @property
    def client_ca_paths(self) -> tuple[Path, Path | None] | None:
        """Absolute paths of the client certificates' CA file and revocation list; None without CA file."""
        if not self.tls.client_ca:
            return None
        base = Path(self.base or PROJECT)
        ca, crl = ((base / Path(path).expanduser()).absolute() for path in (self.tls.client_ca, self.tls.client_crl))
        return ca, crl if self.tls.client_crl else None

    @property
    def has_own_certificate(self) -> bool:
        """True if the certificate is the one that `whimbrel up` makes."""
        return self.auth.secure and self.tls_paths == (
            self.data_dir / OWN_CERTIFICATE,
            self.data_dir / OWN_KEY,
        )

    @property
    def needs_courier(self) -> bool:
        """True if there is a forward or an alert."""
        return bool(self.forward or self.alert)


SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "api": Api,
    "http": Http,
    "sql": Sql,
    "auth": Auth,
    "oidc": OidcSection,
    "collector": Collector,
    "tls": Tls,
    "limits": LimitsSection,
    "redis": Redis,
    "persist": Persist,
    "archive": ArchiveSection,
    "courier": CourierSection,
    "page": Page,
    "log": Log,
    "audit": AuditSection,
    "backup": BackupSection,
}

LISTS: dict[str, type[Section]] = {"forward": Forward, "alert": Alert}
"""Top-level lists of entries, besides the sections."""
