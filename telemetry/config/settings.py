"""The settings: each is declared once, here, with its type, default and a sentence.

`telemetry/config/loader.py` reads them, `telemetry/config/validation.py` says what else has to hold of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

PROJECT = Path(__file__).resolve().parents[2]
"""The folder of the code, where `config.toml` lies."""

OWN_CERTIFICATE, OWN_KEY = "tls/certificate.pem", "tls/key.pem"
"""The box's own certificate and its key, below the data folder, where `auth.secure` asks for them."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[section]` of the file."""


class Data(Section, frozen=True):
    dir: Annotated[str, Meta(description="Folder of all that the box keeps; relative to the settings file.")] = "data"
    min_free_bytes: Annotated[
        int, Meta(ge=0, description="Free bytes of its disk below which collectors refuse; 0: never. 1 GiB.")
    ] = 2**30
    group: Annotated[
        str,
        Meta(
            description="Group that may read the archive's files, by name or number; empty: only the owner. All else "
            "in data.dir is the owner's."
        ),
    ] = ""


class Api(Section, frozen=True):
    host: Annotated[str, Meta(description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the API.")] = 8000
    max_page_records: Annotated[Positive, Meta(description="Most records that one answer may hold.")] = 50_000
    page_memory_bytes: Annotated[
        Positive,
        Meta(
            description="Bytes of what the older service's list pages have read that the API keeps in memory. 128 MiB."
        ),
    ] = 134_217_728
    query_threads: Annotated[Positive, Meta(description="History queries that run at once.")] = 2
    query_queue: Annotated[Positive, Meta(description="History queries that may wait; one more is answered 503.")] = 32
    query_memory_bytes: Annotated[
        Positive, Meta(description="Memory that history queries may use before they spill to disk, bytes. 192 MiB.")
    ] = 192 * 2**20
    query_timeout_s: Annotated[Positive, Meta(description="Seconds after which a history query is given up.")] = 30
    tail_memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Bytes of not yet saved records that are kept in memory between queries; a larger tail is read "
            "anew each time. 32 MiB.",
        ),
    ] = 32 * 2**20
    max_tail_bytes: Annotated[
        Positive,
        Meta(
            description="Maximum bytes of not yet saved records that queries under way may hold besides these; a query "
            "that needs more is answered 503. 128 MiB.",
        ),
    ] = 128 * 2**20
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(description="Origins whose pages may ask the API from a browser, like https://map.example.com; or *."),
    ] = ()
    max_live_readers: Annotated[
        Positive, Meta(description="Maximum concurrent readers of /v1/live; one more is answered 503.")
    ] = 1_000
    max_live_readers_per_key: Annotated[
        int, Meta(ge=0, description="Maximum concurrent readers of /v1/live with one key. 0 = off.")
    ] = 250
    max_live_readers_per_address: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum concurrent readers of /v1/live from one address that is no trusted proxy. 0 = off.",
        ),
    ] = 250
    pending_bytes: Annotated[
        int,
        Meta(
            ge=2**24,
            description="Memory limit for responses that wait for HTTP clients, bytes in each process; beyond, the "
            "slowest clients are disconnected. 256 MiB.",
        ),
    ] = 2**28
    max_share_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Maximum share of the export slots, of the connections to the query program and of the waiting "
            "places of exports, history queries and SQL that one key or one address may hold, percent. 100 = off.",
        ),
    ] = 75
    export_wait_s: Annotated[
        Positive, Meta(description="Timeout for a free export slot, seconds; then the answer is 503.")
    ] = 4
    min_read_bytes_per_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Minimum pace of a client that reads an export or another large answer, bytes a second; a "
            "slower client is disconnected while others wait for its slot. 0 = off. 16 KiB.",
        ),
    ] = 2**14
    min_read_window_s: Annotated[
        Positive, Meta(description="Time over which that pace is measured, seconds of waiting for the client.")
    ] = 10


class Http(Section, frozen=True):
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Further host names by which clients reach the API and the HTTP collector, like "
            "box.example.com, *.example.com for all below it, or * for any name."
        ),
    ] = ()


class Sql(Section, frozen=True):
    enabled: Annotated[bool, Meta(description="Answer questions in SQL, POST /v1/sql.")] = False
    timeout_s: Annotated[Positive, Meta(description="Seconds after which a question is given up.")] = 30
    memory_bytes: Annotated[
        int, Meta(ge=2**26, description="Memory that DuckDB may use for one question, bytes. 256 MiB.")
    ] = 2**28
    max_rows: Annotated[Positive, Meta(description="Most rows of an answer; it says when it was cut.")] = 100_000
    max_answer_bytes: Annotated[
        Positive, Meta(description="Most bytes of an answer; it says when it was cut. 32 MiB.")
    ] = 2**25
    at_once: Annotated[Positive, Meta(description="Questions that run at once, each in a process of its own.")] = 1
    queue: Annotated[int, Meta(ge=0, description="Questions that may wait; one more is answered 503.")] = 8


class Auth(Section, frozen=True):
    required: Annotated[
        bool, Meta(description="Ask whoever writes or reads for a key, which `whimbrel keys create` makes.")
    ] = False
    allow_anonymous: Annotated[
        bool, Meta(description="Allow a host that is not loopback although no key is asked for.")
    ] = False
    session_max_s: Annotated[
        int, Meta(ge=60, description="Maximum lifetime of a session of a person who signed in, seconds. 24 h.")
    ] = 86_400
    session_idle_s: Annotated[
        int, Meta(ge=60, description="Time without a request after which a session ends, seconds. 2 h.")
    ] = 7_200
    public_url: Annotated[
        str,
        Meta(
            description="URL of the page as browsers reach it, if a proxy terminates TLS or people sign in by OIDC, "
            "like https://fleet.example.com. Empty = the box's own address."
        ),
    ] = ""
    secure: Annotated[
        bool,
        Meta(
            description="Require keys, use TLS (with a certificate that `whimbrel up` makes, if none is named) and "
            "limit each address and key where no limit is set."
        ),
    ] = False


RoleOfValue = Annotated[str, Meta(pattern="^.+=(viewer|dispatcher|admin)$")]


class OidcSection(Section, frozen=True):
    issuer: Annotated[
        str,
        Meta(
            description="URL of an OpenID Connect provider at which people may sign in, like "
            "https://login.example.com/realm. Empty = none."
        ),
    ] = ""
    client_id: Annotated[str, Meta(description="Name of this box at the provider.")] = ""
    client_secret: Annotated[
        str, Meta(description="Secret of this box at the provider, or better env:NAME or file:PATH. Empty = none.")
    ] = ""
    name: Annotated[str, Meta(description="Name of the provider on the login page.")] = "single sign-on"
    scopes: Annotated[str, Meta(description="Scopes to request; openid is one of them.")] = "openid email profile"
    name_claim: Annotated[
        str,
        Meta(min_length=1, description="Claim that names the person; email counts only if the provider verified it."),
    ] = "email"
    role_claim: Annotated[
        str, Meta(description="Claim that gives roles, one or a list; a dot leads inside, as in realm_access.roles.")
    ] = "roles"
    roles: Annotated[
        tuple[RoleOfValue, ...],
        Meta(
            description="Roles by value of that claim, like fleet-admins=admin; the first that fits counts. A person "
            "without a role is refused."
        ),
    ] = ()
    email_domains: Annotated[
        tuple[str, ...], Meta(description="Domains of verified email addresses that may sign in. Empty = all.")
    ] = ()
    ca_file: Annotated[str, Meta(description="Certificates to trust, PEM; empty: the system's.")] = ""


TrackerProtocol = Literal["teltonika", "gt06", "h02", "gps103", "tk103", "gl200", "nmea"]
ListenProtocol = Literal[
    "auto", "any", "json", "frames", "msgpack", TrackerProtocol, "osmand", "owntracks", "traccar", "influx"
]
SpeedUnit = Literal["kmh", "knots", "ms", "mph"]


class Listen(Section, frozen=True):
    """One `[[collector.listen]]`: a further port, of one protocol."""

    protocol: Annotated[
        ListenProtocol,
        Meta(description="What is spoken there; auto tells those of TCP apart by a connection's first bytes."),
    ]
    port: Annotated[Port, Meta(description="Its number.")]
    transport: Annotated[
        Literal["tcp", "udp", "http"], Meta(description="tcp; udp for datagrams of trackers; http for those that post.")
    ] = "tcp"
    host: Annotated[str, Meta(description="Address to listen on; empty: collector.host.")] = ""
    speed_unit: Annotated[
        Literal["", SpeedUnit], Meta(description="Unit of a speed that has none; empty: the protocol's usual one.")
    ] = ""
    timezone: Annotated[str, Meta(description="Time zone of devices that tell local time, like Europe/Istanbul.")] = (
        "UTC"
    )
    device_tag: Annotated[
        str, Meta(description="Tag of an InfluxDB line that names the device; empty: device_id, device or host.")
    ] = ""
    answers_all: Annotated[
        bool, Meta(description="Answer also what a tracker waits for only if it is set up so (h02, gl200, nmea).")
    ] = False
    allow_anonymous: Annotated[
        bool, Meta(description="Ask for no key here although auth.required is set: trackers and datagrams have none.")
    ] = False
    keep_frames: Annotated[
        bool, Meta(description="Keep each frame as hex, as `frame` among the attributes of its first record.")
    ] = False
    tls: Annotated[bool, Meta(description="Speak TLS there, with the certificate of [tls].")] = False
    idle_timeout_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Idle timeout of a TCP connection there, seconds. 0 = collector.tracker_idle_timeout_s for "
            "trackers, collector.idle_timeout_s for others.",
        ),
    ] = 0
    one_connection_per_device: Annotated[
        bool,
        Meta(description="Close a tracker's older connection after it has logged in over a newer one of this port."),
    ] = True
    devices: Annotated[
        tuple[str, ...], Meta(description="Devices taken there, by id; any other is refused. Empty = all.")
    ] = ()
    device_prefixes: Annotated[
        tuple[str, ...],
        Meta(description="Beginnings of ids of further devices taken there. Both lists empty = all devices."),
    ] = ()
    known_devices_only: Annotated[
        bool,
        Meta(description="Refuse devices without records there, unless `whimbrel devices add` made them known."),
    ] = False


class Mqtt(Section, frozen=True):
    """One `[[collector.mqtt]]`: a broker whose messages are records."""

    host: Annotated[str, Meta(min_length=1, description="Address of the broker.")]
    topics: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="What to hear; {device_id} stands for the level that names the device."),
    ]
    port: Annotated[Port, Meta(description="TCP port of the broker; 8883 is usual with TLS.")] = 1883
    client_id: Annotated[
        str,
        Meta(min_length=1, description="Name of the session that the broker keeps for this box; no other client's."),
    ] = "whimbrel"
    username: Annotated[str, Meta(description="User name; empty: none.")] = ""
    password: Annotated[str, Meta(description="Password, or better env:NAME or file:PATH.")] = ""
    tls: Annotated[bool, Meta(description="Speak TLS.")] = False
    ca_file: Annotated[str, Meta(description="Certificates to trust, PEM; empty: the system's.")] = ""
    speed_unit: Annotated[Literal["", SpeedUnit], Meta(description="Unit of a speed that has none; empty: km/h.")] = ""


class Collector(Section, frozen=True):
    host: Annotated[str, Meta(description="Address that the collectors listen on.")] = "127.0.0.1"
    http_port: Annotated[Port, Meta(description="TCP port of the HTTP collector.")] = 8001
    tcp_port: Annotated[Port, Meta(description="TCP port of the JSON and msgpack collector.")] = 9999
    processes: Annotated[Positive, Meta(description="Collector processes that share the two ports.")] = 1
    max_body_bytes: Annotated[Positive, Meta(description="Largest HTTP body, bytes.")] = 8 * 2**20
    max_message_bytes: Annotated[Positive, Meta(description="Largest message over TCP, and largest record, bytes.")] = (
        2**20
    )
    max_request_records: Annotated[Positive, Meta(description="Most records in one request or message.")] = 100_000
    max_future_seconds: Annotated[
        Positive, Meta(description="Seconds that a record's timestamp may lie ahead of the box's clock.")
    ] = 86_400
    max_pending_bytes: Annotated[
        Positive,
        Meta(
            description="Bytes that may wait for Redis (beyond, HTTP answers 503, TCP stops reading), "
            "or be of unfinished messages (beyond, stalled ones are given up)."
        ),
    ] = 64 * 2**20
    max_devices: Annotated[
        Positive, Meta(description="Devices that each shard takes (redis.shards); a further one is refused.")
    ] = 200_000
    max_connections: Annotated[
        Positive, Meta(description="TCP connections that a collector process holds; a further one is closed.")
    ] = 20_000
    max_connections_per_address: Annotated[
        int, Meta(ge=0, description="The same of one address, behind which may be a whole fleet; 0: no such limit.")
    ] = 10_000
    max_senders: Annotated[
        Positive,
        Meta(description="Senders that number batches, which each shard remembers (redis.shards); one more must wait."),
    ] = 200_000
    max_header_bytes: Annotated[
        int, Meta(ge=1_024, description="Largest request line with all headers of an HTTP request, bytes. 32 KiB.")
    ] = 2**15
    max_query_bytes: Annotated[
        int,
        Meta(ge=1_024, description="Largest query of an HTTP request, bytes. 28 KiB: a thousand devices by number."),
    ] = 28 * 2**10
    max_http_connections: Annotated[
        Positive, Meta(description="HTTP connections that one process holds; a further one is answered 503.")
    ] = 4_000
    max_http_connections_per_address: Annotated[
        int, Meta(ge=0, description="The same of one address that is none of limits.trusted_proxies; 0: no such limit.")
    ] = 2_000
    keep_alive_s: Annotated[
        Positive,
        Meta(description="Seconds without a request, or without reading an answer, until HTTP hangs up."),
    ] = 75
    request_timeout_s: Annotated[
        Positive, Meta(description="Seconds that one request or message may take to arrive.")
    ] = 30
    idle_timeout_s: Annotated[
        Positive, Meta(description="Idle timeout of a TCP connection that is no tracker's, seconds.")
    ] = 86_400
    tracker_idle_timeout_s: Annotated[
        Positive, Meta(description="Idle timeout of a tracker's TCP connection, seconds.")
    ] = 1_800
    tcp_keepalive_s: Annotated[
        int,
        Meta(ge=0, description="Idle time of a TCP connection after which keepalive probes begin, seconds. 0 = off."),
    ] = 300
    tcp_user_timeout_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Timeout for data and probes that a TCP peer does not acknowledge, seconds; then the "
            "connection ends. 0 = the system's.",
        ),
    ] = 600
    speed_unit: Annotated[SpeedUnit, Meta(description="Unit of a plain `speed` field: kmh, knots, ms or mph.")] = "kmh"
    idempotency_seconds: Annotated[Positive, Meta(description="Seconds that an Idempotency-Key is remembered.")] = 600
    max_idempotency_keys: Annotated[
        Positive, Meta(description="Idempotency-Keys remembered at once; one more is answered 503.")
    ] = 100_000
    listen: Annotated[tuple[Listen, ...], Meta(description="Further ports, each of one protocol.")] = ()
    mqtt: Annotated[tuple[Mqtt, ...], Meta(description="Brokers of MQTT that are heard.")] = ()


class Tls(Section, frozen=True):
    certificate: Annotated[
        str,
        Meta(
            description="PEM file of the certificate, and behind it of those between it and its root; empty: no TLS on "
            "the API's and the collector's ports. SIGHUP has it and the key read again."
        ),
    ] = ""
    key: Annotated[str, Meta(description="PEM file of its private key, not encrypted.")] = ""
    client_ca: Annotated[
        str,
        Meta(
            description="PEM file of authorities whose client certificates collectors accept in place of keys; the "
            "common name is the device. SIGHUP has it read again. Empty = none are requested."
        ),
    ] = ""
    client_crl: Annotated[
        str, Meta(description="PEM file of these authorities' lists of revoked certificates. Empty = none.")
    ] = ""
    max_handshakes: Annotated[
        Positive, Meta(description="Maximum concurrent TLS handshakes per process, 65 KB each; one more is closed.")
    ] = 1_000
    max_handshakes_per_address: Annotated[
        int,
        Meta(ge=0, description="The same per address that is none of limits.trusted_proxies. 0 = no such limit."),
    ] = 250


PerSecond = Annotated[float, Meta(ge=0)]


class LimitsSection(Section, frozen=True):
    address_requests_per_s: Annotated[
        PerSecond, Meta(description="HTTP requests a second of one address, in each process; 0: no limit.")
    ] = 0
    address_requests_burst: Annotated[
        int, Meta(ge=0, description="How many of them may come at once; 0: as many as in a second.")
    ] = 0
    address_records_per_s: Annotated[
        PerSecond,
        Meta(description="Records a second of one address, over HTTP, TCP and UDP, in each process; 0: no limit."),
    ] = 0
    address_records_burst: Annotated[
        int, Meta(ge=0, description="How many of them may come at once; 0: as many as in a second.")
    ] = 0
    key_requests_per_s: Annotated[
        PerSecond, Meta(description="HTTP requests a second with one key, in each process; 0: no limit.")
    ] = 0
    key_requests_burst: Annotated[
        int, Meta(ge=0, description="How many of them may come at once; 0: as many as in a second.")
    ] = 0
    key_records_per_s: Annotated[
        PerSecond, Meta(description="Records a second with one key, in each process; 0: no limit.")
    ] = 0
    key_records_burst: Annotated[
        int, Meta(ge=0, description="How many of them may come at once; 0: as many as in a second.")
    ] = 0
    address_wrong_keys_per_min: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum requests of one address without a good key a minute, then 429 and not 401; also "
            "look-ups of its keys. 0 = off.",
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
            description="Maximum percent of collector.max_senders, max_idempotency_keys and max_devices for one key "
            "with a prefix; without keys, of the first two for one address. 100 = no such limit.",
        ),
    ] = 80
    senders_per_device: Annotated[
        int,
        Meta(ge=0, description="Maximum senders per shard for each device that a key or token names. 0 = no limit."),
    ] = 16
    idempotency_keys_per_device: Annotated[
        int,
        Meta(ge=0, description="Maximum remembered Idempotency-Keys for each device of such a key. 0 = no limit."),
    ] = 2_000
    max_buckets: Annotated[
        Positive, Meta(description="Addresses, or keys, that each limit remembers; beyond, the longest unseen goes.")
    ] = 100_000
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="Addresses and networks of proxies whose word on who asks is taken.")
    ] = ()
    proxy_header: Annotated[
        Literal["x-forwarded-for", "forwarded"], Meta(description="The header that they write it in.")
    ] = "x-forwarded-for"


class Redis(Section, frozen=True):
    url: Annotated[str, Meta(description="URL of a Redis that others run; empty: Whimbrel starts its own.")] = ""
    user: Annotated[
        str,
        Meta(description="User of that Redis, where the URL names none; {role} in it is each program's: api, worker…"),
    ] = ""
    password: Annotated[
        str, Meta(description="Its password, or env:NAME or file:PATH, where {role} may stand, too.")
    ] = ""
    server: Annotated[
        Literal["auto", "system", "bundled"],
        Meta(description="Which server Whimbrel starts: the system's, the bundled one, or auto: the first found."),
    ] = "auto"
    shards: Annotated[Positive, Meta(description="Parts that devices are spread over; fixed at the first start.")] = 1
    max_memory_bytes: Annotated[
        int, Meta(ge=0, description="Memory limit of Whimbrel's own Redis, bytes; 0: 45 % of the machine's memory.")
    ] = 0
    durability: Annotated[
        Literal["aof", "memory"],
        Meta(description="aof: an answer means on disk; memory: allow a Redis that doesn't write to disk."),
    ] = "aof"
    full_percent: Annotated[
        int, Meta(ge=1, le=100, description="Percent of Redis's memory from which on collectors refuse.")
    ] = 80
    resume_percent: Annotated[
        int, Meta(ge=1, le=100, description="Percent of Redis's memory below which they take records again.")
    ] = 70


class Persist(Section, frozen=True):
    flush_records: Annotated[Positive, Meta(description="Unsaved records at which a shard is saved at once.")] = 20_000
    flush_seconds: Annotated[
        Positive, Meta(description="Seconds that a shard may hold unsaved records before it is saved.")
    ] = 30
    max_records: Annotated[Positive, Meta(description="Most records in one save.")] = 200_000
    max_bytes: Annotated[
        Positive, Meta(description="Most bytes of records in one save; a shard with so many is saved at once.")
    ] = 64 * 2**20
    max_devices: Annotated[Positive, Meta(description="Most devices in one save.")] = 50_000
    max_days: Annotated[
        Positive,
        Meta(description="Maximum days (= files) per save besides yesterday, today and tomorrow."),
    ] = 64
    quarantine_max_bytes: Annotated[
        Positive, Meta(description="Bytes of records that can't be saved kept in quarantine, the oldest dropped first.")
    ] = 16 * 2**20


class ArchiveSection(Section, frozen=True):
    target_file_bytes: Annotated[
        Positive, Meta(description="Size of the files that a day over is merged into, bytes. 128 MiB.")
    ] = 128 * 2**20
    max_open_files: Annotated[
        int, Meta(ge=4, description="Most small files of the open day; beyond, the smallest are merged.")
    ] = 24
    quiet_seconds: Annotated[
        Positive, Meta(description="Seconds without a new file after which a day over is merged into one.")
    ] = 3_600
    retention_days: Annotated[
        int, Meta(ge=0, description="Days that records are kept by their timestamps; 0: for ever.")
    ] = 0
    retention_max_bytes: Annotated[
        int, Meta(ge=0, description="Most bytes of the archive; beyond, its oldest days are given up; 0: no limit.")
    ] = 0
    grace_seconds: Annotated[
        Positive,
        Meta(description="Seconds that a file outlives its place in the table, more than any query or export takes."),
    ] = 3_600
    merge_memory_bytes: Annotated[
        Positive,
        Meta(description="Memory that deleting from files may take before it spills, bytes; texts take more. 160 MiB."),
    ] = 160 * 2**20


class CourierSection(Section, frozen=True):
    look_seconds: Annotated[Positive, Meta(description="Seconds between two looks at the archive for new files.")] = 1
    timeout_s: Annotated[Positive, Meta(description="Seconds that a receiver may take to connect or to answer.")] = 30
    longest_wait_s: Annotated[
        Positive, Meta(description="Longest pause between two tries; the first is a second, and each is twice as long.")
    ] = 60
    silence_look_seconds: Annotated[
        Positive, Meta(description="Seconds between two looks for devices that are silent or back.")
    ] = 30
    not_ready_seconds: Annotated[
        Positive, Meta(description="Seconds that /readyz must be bad, or good again, before an alert says so.")
    ] = 30
    max_pending_events: Annotated[
        int,
        Meta(
            ge=10, description="Events that may wait for one receiver; beyond, devices are told of when there is room."
        ),
    ] = 10_000
    api_url: Annotated[str, Meta(description="URL of the API, to ask /readyz; empty: api.host and api.port.")] = ""
    key: Annotated[
        str,
        Meta(description="Key with which /readyz tells its reasons where one is required, or env:NAME or file:PATH."),
    ] = ""
    collector_url: Annotated[
        str,
        Meta(description="URL of the HTTP collector, to see that devices can be heard; empty: its host and port."),
    ] = ""


class Page(Section, frozen=True):
    tile_url: Annotated[
        str,
        Meta(
            description="Map tiles, pictures, that the page shows over its own map and loads from another host, like "
            "https://tiles.example.com/{z}/{x}/{y}.png; empty: none."
        ),
    ] = ""
    tile_file: Annotated[
        str,
        Meta(description="A PMTiles file with pictures or vector tiles, served from this box instead; empty: none."),
    ] = ""
    tile_credit: Annotated[
        str, Meta(description="Whose tiles these are, as their licence wants it said on the map.")
    ] = ""


class AuditSection(Section, frozen=True):
    enabled: Annotated[
        bool, Meta(description="Record in data.dir/audit who changed, asked in SQL or was refused what.")
    ] = True
    max_file_bytes: Annotated[
        int, Meta(ge=65_536, description="Maximum size of an audit file, after which another begins, bytes. 8 MiB.")
    ] = 2**23
    files: Annotated[
        Positive, Meta(description="Maximum closed audit files of each program and kind; the oldest is deleted.")
    ] = 8


class BackupSection(Section, frozen=True):
    max_age_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Maximum age of the last backup before the alarm WhimbrelBackupOld, also without any, s. "
            "0 = off. 2 days.",
        ),
    ] = 172_800


class Log(Section, frozen=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is logged.")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="A line of the log: text for people, or a JSON object for programs.")
    ] = "text"
    access: Annotated[
        bool, Meta(description="Log requests over HTTP, at most 20 in 10 s, by method, path, status and time.")
    ] = False


Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]


class Forward(Section, frozen=True):
    """One `[[forward]]`: where committed records go besides the archive."""

    name: Annotated[
        Name, Meta(description="Its name, of a-z, 0-9 and -; another name is another forward, which begins anew.")
    ]
    url: Annotated[
        str,
        Meta(
            description="Where to: whimbrel://HOST:PORT or whimbrels:// (TLS) is another box's TCP port, http:// or "
            "https:// takes NDJSON, s3://BUCKET/PREFIX a copy of the table."
        ),
    ]
    start: Annotated[
        Literal["now", "all"],
        Meta(description="What it begins with: now, what is saved from now on; all, what the archive holds."),
    ] = "now"
    key: Annotated[
        str,
        Meta(description="Key that the other Whimbrel asks for, or env:NAME or file:PATH; empty: it asks for none."),
    ] = ""
    batch_records: Annotated[Positive, Meta(description="Most records in one HTTP request.")] = 1_000
    headers: Annotated[
        dict[str, str],
        Meta(description="HTTP headers; a value env:NAME or file:PATH is read from there when the courier starts."),
    ] = {}
    on_refused: Annotated[
        Literal["stop", "skip"],
        Meta(description="What follows records that the receiver refuses: stop, or skip and count them."),
    ] = "stop"
    max_lag_bytes: Annotated[
        int,
        Meta(ge=0, description="Bytes of files that may wait; beyond, the oldest are given up, counted; 0: no limit."),
    ] = 0
    max_bytes_per_s: Annotated[int, Meta(ge=0, description="Most bytes a second that it sends; 0: no limit.")] = 0
    ca_file: Annotated[str, Meta(description="Certificates to trust, PEM; empty: the system's.")] = ""
    client_certificate: Annotated[
        str, Meta(description="Client certificate shown to the receiver over TLS, PEM file. Empty = none.")
    ] = ""
    client_key: Annotated[str, Meta(description="Private key of client_certificate, PEM file, not encrypted.")] = ""
    secret: Annotated[
        str,
        Meta(
            description="Key of the HMAC signature over time and body of each HTTP request, or env:NAME or file:PATH. "
            "Empty = not signed."
        ),
    ] = ""
    s3_endpoint: Annotated[str, Meta(description="URL of an S3 that is not Amazon's.")] = ""
    s3_region: Annotated[str, Meta(description="Region of the bucket; empty: AWS_REGION.")] = ""
    s3_access_key_id: Annotated[
        str, Meta(description="Key, or env:NAME or file:PATH; empty: AWS_ACCESS_KEY_ID and what else AWS_* name.")
    ] = ""
    s3_secret_access_key: Annotated[str, Meta(description="Its secret, or better env:NAME or file:PATH.")] = ""
    mirror: Annotated[
        bool, Meta(description="Delete from S3 what the table names no longer, archive.grace_seconds later.")
    ] = False

    @property
    def scheme(self) -> str:
        """What `url` begins with."""
        return self.url.partition("://")[0]


class SilenceRule(Section, frozen=True):
    """A time-out of its own for some devices."""

    device: Annotated[str, Meta(description="This one device.")] = ""
    prefix: Annotated[str, Meta(description="All devices whose id begins so.")] = ""
    silent_after_s: Annotated[int, Meta(ge=0, description="Seconds; 0: never silent.")] = 0


class Alert(Section, frozen=True):
    """One `[[alert]]`: a webhook."""

    name: Annotated[Name, Meta(description="Its name, of a-z, 0-9 and -.")]
    url: Annotated[str, Meta(description="Where events are posted: http:// or https://.")]
    secret: Annotated[
        str, Meta(description="Key of the signature, or env:NAME or file:PATH; empty: events are not signed.")
    ] = ""
    events: Annotated[
        tuple[Literal["device.silent", "device.back", "box.not_ready", "box.ready"], ...],
        Meta(description="Which events are posted."),
    ] = ("device.silent", "device.back", "box.not_ready", "box.ready")
    silent_after_s: Annotated[
        int, Meta(ge=0, description="Seconds without a record after which a device is silent; 0: never.")
    ] = 0
    rules: Annotated[
        tuple[SilenceRule, ...],
        Meta(description="Time-outs of devices or prefixes of their own; the device, else the longest prefix, wins."),
    ] = ()
    headers: Annotated[dict[str, str], Meta(description="HTTP headers; values as those of [[forward]].")] = {}
    ca_file: Annotated[str, Meta(description="Certificates to trust, PEM; empty: the system's.")] = ""
    client_certificate: Annotated[
        str, Meta(description="Client certificate shown to the receiver over TLS, PEM file. Empty = none.")
    ] = ""
    client_key: Annotated[str, Meta(description="Private key of client_certificate, PEM file, not encrypted.")] = ""


class Settings(Section, frozen=True):
    """All settings. `base` is the folder that relative paths start from, `file` the settings file, if any."""

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
        """Absolute path of everything that Whimbrel's own Redis keeps."""
        return self.data_dir / "redis"

    @property
    def audit_dir(self) -> Path:
        """Absolute path of the audit log's files."""
        return self.data_dir / "audit"

    @property
    def tile_path(self) -> Path | None:
        """Absolute path of the file of map tiles; None without one."""
        if not self.page.tile_file:
            return None
        return (Path(self.base or PROJECT) / Path(self.page.tile_file).expanduser()).absolute()

    @property
    def courier_dir(self) -> Path:
        """Absolute path of what the courier keeps: how far it is, and which events wait."""
        return self.data_dir / "courier"

    @property
    def tls_paths(self) -> tuple[Path, Path] | None:
        """Absolute paths of certificate and key; None without TLS."""
        if not self.tls.certificate:
            return None
        base = Path(self.base or PROJECT)
        certificate, key = (base / Path(one).expanduser() for one in (self.tls.certificate, self.tls.key))
        return certificate.absolute(), key.absolute()

    @property
    def client_ca_paths(self) -> tuple[Path, Path | None] | None:
        """Absolute paths of the authorities of client certificates and of their lists of revoked ones; None without."""
        if not self.tls.client_ca:
            return None
        base = Path(self.base or PROJECT)
        ca, crl = ((base / Path(one).expanduser()).absolute() for one in (self.tls.client_ca, self.tls.client_crl))
        return ca, crl if self.tls.client_crl else None

    @property
    def has_own_certificate(self) -> bool:
        """Whether the certificate is the one that `whimbrel up` makes."""
        return self.auth.secure and self.tls_paths == (
            self.data_dir / OWN_CERTIFICATE,
            self.data_dir / OWN_KEY,
        )

    @property
    def needs_courier(self) -> bool:
        """Whether there is anything to forward or to tell."""
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
"""Settings beside the sections: lists of entries."""
