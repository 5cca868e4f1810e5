"""SQL over HTTP: what it answers, in each form, and that it can do nothing else."""

from __future__ import annotations

import contextlib
import csv
import io
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from api.sql.sandbox_process import WRONG, Question, answer
from telemetry.archive.schema import COLUMNS
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.conftest import RedisServer, running_redis

AT_US = 1_769_250_300_000_000
DEVICES = ("bus-1", "van-1", "van-2")
SECRET = "the-box's-own-secret"


@contextlib.contextmanager
def asked_box(url: str, folder: Path, timeout_s: int) -> Iterator[Box]:
    """A box with records in files and in the tail, and little for a question to use."""
    more = {
        "sql__enabled": "true",
        "sql__timeout_s": str(timeout_s),
        "sql__memory_bytes": str(2**27),
        "sql__max_rows": "1000",
        "sql__max_answer_bytes": str(2**20),
        "auth__required": "true",
        "limits__address_wrong_keys_per_min": "0",
    }
    (folder / "data").mkdir()
    (folder / "data" / "secret.csv").write_text(SECRET)
    with box_on(url, folder, **more) as found:
        found.append(*(Sent(name, record(AT_US + place, speed_kmh=50.0)) for place, name in enumerate(DEVICES)))
        found.save()
        found.append(*(Sent(name, record(AT_US + 1_000_000 + place)) for place, name in enumerate(DEVICES)))
        yield found


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Whose questions have time."""
    with asked_box(shared_redis.url, tmp_path_factory.mktemp("sql"), 8) as found:
        ask(found, "SELECT 1")  # makes the audit log and DuckDB's temporary folder, which tests list
        yield found


@pytest.fixture(scope="module")
def hasty_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Whose questions have none, for those that would never end."""
    with running_redis() as server, asked_box(server.url, tmp_path_factory.mktemp("hasty"), 2) as found:
        yield found


def ask(box: Box, query: str, key: str = "", **params: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return box.http.post("/v1/sql", json={"query": query}, params=params, headers=headers)


def rows(answer: httpx.Response) -> list[list[object]]:
    assert answer.status_code == 200, answer.text
    found: list[list[object]] = answer.json()["rows"]
    return found


def test_each_record_is_there_once_and_the_newest_is_latest(box: Box) -> None:
    assert rows(ask(box, "SELECT device_id, count(*) FROM records GROUP BY 1 ORDER BY 1")) == [[d, 2] for d in DEVICES]
    found = ask(box, "FROM latest SELECT device_id, epoch_us(timestamp) ORDER BY device_id")
    assert rows(found) == [[d, AT_US + 1_000_000 + place] for place, d in enumerate(DEVICES)]


@pytest.mark.parametrize("table", ["records", "latest"])
def test_the_date_is_the_day_in_utc(box: Box, table: str) -> None:
    found = ask(box, f"SELECT DISTINCT date, strftime(timestamp, '%Y-%m-%d') FROM {table} ORDER BY ALL")
    assert found.json()["columns"][0] == {"name": "date", "type": "DATE"}
    assert rows(found)
    assert all(date == day for date, day in rows(found))
    day = datetime.fromtimestamp(AT_US // 10**6, UTC).date()
    assert rows(ask(box, f"SELECT count(*) > 0 FROM {table} WHERE date = '{day}'")) == [[True]]


def test_json(box: Box) -> None:
    query = """SELECT 1 AS n, TIMESTAMPTZ '2026-01-02 03:04:05.5Z' AS at, sum(2) AS s, 0.5::DECIMAL(4, 2) AS d,
        [1, NULL] AS l, {'a': 'b'} AS o, NULL AS nothing, 'NaN'::DOUBLE AS nan, true AS yes"""
    answer = ask(box, query)
    assert rows(answer) == [
        [1, "2026-01-02T03:04:05.500000Z", 2, 0.5, [1, None], {"a": "b"}, None, None, True],
    ]
    assert answer.json()["columns"][1] == {"name": "at", "type": "TIMESTAMP WITH TIME ZONE"}
    assert answer.json()["truncated"] is False
    assert "Truncated" not in answer.headers


def test_csv_and_arrow(box: Box) -> None:
    query = "SELECT 'a,\"b\"' AS t, '' AS e, NULL AS n, 1.5 AS x, TIMESTAMPTZ '2026-01-02 03:04:05Z' AS at, [1] AS l"
    answer = ask(box, query, format="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text == 't,e,n,x,at,l\r\n"a,""b""","",,1.5,2026-01-02T03:04:05.000000Z,[1]\r\n'
    assert list(csv.reader(io.StringIO(answer.text)))[1][0] == 'a,"b"'
    accepted = {"Accept": "application/vnd.apache.arrow.stream"}
    found = box.http.post("/v1/sql", json={"query": "FROM records ORDER BY id"}, headers=accepted)
    table = pa.ipc.open_stream(found.content).read_all()
    assert table.num_rows == 6
    assert table.schema.names[:2] == ["device_id", "timestamp"]
    assert_problem(ask(box, "SELECT 1", format="gpx"), 400, "invalid-parameter")


@pytest.mark.parametrize("form", ["json", "csv", "arrow"])
def test_more_rows_or_bytes_than_may_be_are_cut_and_it_is_said(box: Box, form: str) -> None:
    for query in ("FROM range(1000000000000)", "SELECT repeat('x', 1000) FROM range(1000000)", "FROM range(1001)"):
        answer = ask(box, query, format=form)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Truncated"] == "true"
        assert len(answer.content) <= 2**20 + 10_000
    assert "Truncated" not in ask(box, "FROM range(1000)", format=form).headers


@pytest.mark.parametrize(
    "query",
    [
        "WITH r AS (SELECT device_id FROM records) SELECT count(*) FROM r",
        "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < 5) SELECT max(n) FROM c",
        "SELECT * FROM records r JOIN latest l USING (device_id), unnest([1, 2]) u(x), (VALUES (1)) v",
        'SELECT *, lag(timestamp) OVER (PARTITION BY device_id ORDER BY timestamp) FROM "records" -- a comment',
        "/* a */ SELECT list_transform([1], lambda x: x + 1), time_bucket(INTERVAL '1 day', timestamp) FROM records;",
        "DESCRIBE records",
        "SUMMARIZE records",
        "TABLE latest",
        "VALUES (1), (2)",
        "SELECT * FROM records ASOF JOIN latest USING (device_id, timestamp)",
        "SELECT * EXCLUDE (id) FROM records WHERE attributes->>'$.fuel' IS NULL QUALIFY row_number() OVER () = 1",
        "SELECT 'read_csv(''/etc/passwd'')' AS told",
        "SELECT random(), now(), current_date, uuid()",
        "SELECT device_id FROM records UNION SELECT device_id FROM latest INTERSECT SELECT 'van-1'",
    ],
)
def test_what_analysts_ask_is_answered(box: Box, query: str) -> None:
    rows(ask(box, query))


ATTACKS = [
    # Files
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv_auto('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('{archive}/*/*.parquet')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM parquet_scan(['{file}'])",
    "SELECT * FROM parquet_metadata('{file}')",
    "SELECT * FROM parquet_kv_metadata('{file}')",
    "SELECT * FROM '{file}'",
    'SELECT * FROM "{file}"',
    "SELECT * FROM '{data}/secret.csv'",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM read_duckdb('/tmp/x.db')",
    "SELECT (SELECT content FROM read_text('{data}/secret.csv'))",
    "SELECT * FROM records WHERE device_id IN (SELECT content FROM read_text('/etc/passwd'))",
    "WITH a AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM a",
    "SELECT * FROM ReAd_TeXt/* */('/etc/passwd')",
    "SELECT * FROM \"read_text\"('/etc/passwd')",
    "SELECT * FROM main.read_text('/etc/passwd')",
    "SELECT * FROM system.main.read_text('/etc/passwd')",
    "SELECT * FROM records, LATERAL (SELECT * FROM read_text('/etc/' || device_id))",
    "FROM (PIVOT (FROM read_text('/etc/passwd')) ON filename IN ('a') USING count(*))",
    "SELECT * FROM seq_scan('records')",
    "COPY (SELECT 1) TO '{data}/x.csv'",
    "COPY records FROM '/etc/passwd'",
    "EXPORT DATABASE '{data}/x'",
    "IMPORT DATABASE '{data}/x'",
    "ATTACH '{data}/x.db'",
    "ATTACH ':memory:' AS m",
    "DETACH memory",
    "USE memory",
    # The network and extensions
    "SELECT * FROM 'http://127.0.0.1:{port}/v1/latest'",
    "SELECT * FROM read_json('http://127.0.0.1:{port}/v1/latest')",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{data}/x.so'",
    "FORCE INSTALL spatial FROM community",
    # Settings, secrets and what is known of the machine
    "SET enable_external_access = true",
    "SET GLOBAL memory_limit = '100GB'",
    "RESET lock_configuration",
    "SET VARIABLE x = 1",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "SELECT current_setting('allowed_paths')",
    "SELECT CURRENT_SETTING('secret_directory')",
    "SELECT getenv('HOME')",
    "SELECT getvariable('x')",
    "SELECT * FROM duckdb_settings()",
    "FROM duckdb_secrets()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_views",
    "SELECT sql FROM sqlite_master",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_views",
    "SELECT * FROM pg_settings",
    "SELECT pg_get_viewdef(1)",
    "SELECT current_query()",
    "SELECT version()",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM duckdb_logs",
    "SELECT write_log('x')",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SHOW DATABASES",
    # SQL within SQL, names that mean something else, several statements
    "SELECT * FROM query('SELECT * FROM duckdb_settings()')",
    "SELECT * FROM query_table('{file}')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT json_serialize_plan('SELECT 1')",
    "SELECT * FROM tail",
    "SELECT * FROM os",
    "SELECT * FROM connection",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM histogram_values(duckdb_views, sql)",
    "SELECT * FROM histogram(duckdb_settings, name)",
    "SELECT setseed(0.5)",
    "SELECT invoke(lambda x: getenv(x), 'HOME')",
    "SELECT list_transform(['HOME'], lambda x: getenv(x))",
    "SELECT system.main.getenv('HOME')",
    "SELECT pg_sleep(60)",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM (WITH duckdb_views AS (SELECT 1) FROM duckdb_views) a, duckdb_views b",
    "SELECT * FROM (WITH \"{file}\" AS (SELECT 1) SELECT 1) a, '{file}' b",
    "SELECT * FROM (WITH tail AS (SELECT 1) SELECT 1) a, memory.main.tail b",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{data}/x.csv'",
    "-- SELECT 1\nATTACH '{data}/x.db'",
    "/* SELECT */ DROP VIEW records",
    "CREATE TABLE x AS FROM records",
    "CREATE OR REPLACE VIEW records AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a')",
    "INSERT INTO records SELECT * FROM records",
    "DELETE FROM records",
    "UPDATE records SET id = 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN ANALYZE SELECT * FROM records",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
    "SELECT $1",
    "SELECT ?",
    "",
    ";",
    "SELEKT 1",
    "SELECT \u202e1; DROP",
    "SELECT * FROM \uff52\uff45\uff43\uff4f\uff52\uff44\uff53",
    "\x00",
    "SELECT 1\x00; ATTACH ''",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT " + "1+" * 50_000 + "1",
    "SELECT * FROM records WHERE " + " AND ".join(["nothing = 1"] * 100),
]


def known_here(box: Box, attack: str) -> str:
    """A question that knows its way about this machine."""
    [file, *_] = sorted(box.settings.archive_dir.glob("date=*/*.parquet"))
    known = {"archive": box.settings.archive_dir, "file": file, "data": box.settings.data_dir, "port": box.port}
    for name, value in known.items():
        attack = attack.replace(f"{{{name}}}", str(value))
    return attack


def assert_nothing_told(box: Box, attack: str, text: str) -> None:
    """No path of the machine that was not in the question, and nothing of its files."""
    for told in (SECRET, "root:", str(box.settings.data_dir.parent), str(Path(__file__).parents[3]), ".duckdb"):
        assert told in attack or told not in text


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_nothing_but_a_question_is_run(box: Box, attack: str) -> None:
    """By what the process that answers does, called here; nothing is left behind."""
    before, attack = sorted(box.settings.data_dir.rglob("*")), known_here(box, attack)
    files = sorted(map(str, box.settings.archive_dir.glob("date=*/*.parquet")))
    question = Question(attack, "json", files, [], "", 8, 2**27, 1_000, 2**20)
    found = answer(question, COLUMNS.empty_table())
    assert found.outcome.wrong == WRONG
    assert_nothing_told(box, attack, found.outcome.detail)
    assert sorted(box.settings.data_dir.rglob("*")) == before


@pytest.mark.parametrize("attack", ATTACKS[::8], ids=range(0, len(ATTACKS), 8))
def test_what_is_refused_over_http_tells_nothing_either(box: Box, attack: str) -> None:
    """By a process of its own, as asked over HTTP."""
    before, attack = sorted(box.settings.data_dir.rglob("*")), known_here(box, attack)
    refused = ask(box, attack)
    assert_problem(refused, 400, "invalid-sql")
    assert_nothing_told(box, attack, refused.text)
    assert sorted(box.settings.data_dir.rglob("*")) == before


ENDLESS_BOMBS = [
    "SELECT count(*) FROM range(10000000000000) a, range(1000000) b",
    "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c",
    "SELECT levenshtein(repeat('a', 400000), repeat('b', 400000))",
]


@pytest.mark.slow
@pytest.mark.parametrize("bomb", ENDLESS_BOMBS, ids=range(len(ENDLESS_BOMBS)))
def test_time_is_bounded(hasty_box: Box, bomb: str) -> None:
    """The next question is answered as ever, though on a busy machine it may take as long itself."""
    begun_s = time.monotonic()
    assert_problem(ask(hasty_box, bomb), 422, "sql-too-costly")
    assert 2 <= time.monotonic() - begun_s < 20
    until(lambda: ask(hasty_box, "SELECT 1").status_code == 200)


BOMBS = [
    "SELECT list(a) FROM range(10000000000) t(a)",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(1000000)",
    "SELECT repeat(repeat('x', 1000000), 100000)",
    "SELECT length(list_reduce(range(100000), lambda a, b: a || repeat('x', 100000), ''))",
    "SELECT lpad('x', 2000000000, 'x')",
    "SELECT count(DISTINCT md5(a::VARCHAR)) FROM range(1000000000) t(a)",
    "SELECT * FROM range(100000000) t(a) ORDER BY md5(a::VARCHAR)",
    "SELECT range(2000000000)",
    "SELECT regexp_matches(repeat('a', 30000000), '(a*)*b')",
    "SELECT a::VARCHAR FROM (SELECT range(20000000) a) ORDER BY 1",
]


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_memory_is_bounded(box: Box, bomb: str) -> None:
    """It costs its sender an answer; the next question is answered as ever."""
    begun_s = time.monotonic()
    answer = ask(box, bomb)
    assert time.monotonic() - begun_s < 20
    if answer.status_code != 200:  # quick enough, or cut
        assert answer.status_code in (400, 422), answer.text
        assert_problem(answer, answer.status_code, "invalid-sql" if answer.status_code == 400 else "sql-too-costly")
    assert rows(ask(box, "SELECT count(*) FROM records")) == [[6]]


def running() -> list[str]:
    """The processes that answer a question."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"api.sql.sandbox_process" in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def children_of(box: Box) -> list[str]:
    """Those of this box alone: others may test at the same time."""
    parents = {str(process.pid) for process in box._processes}
    found = []
    for number in running():
        try:
            stat = Path(f"/proc/{number}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[1] in parents:
            found.append(number)
    return found


def until(what: object) -> None:
    stop_s = time.monotonic() + 10
    while not what():  # type: ignore[operator]
        assert time.monotonic() < stop_s
        time.sleep(0.02)


ENDLESS = "SELECT count(*) FROM range(10000000000000) a"


def asking(box: Box, query: str) -> socket.socket:
    """A connection that has asked, and waits."""
    body = b'{"query": "' + query.encode() + b'"}'
    head = b"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", box.port), timeout=10)
    connection.sendall(head % (box.http.headers["Authorization"].encode(), len(body)) + body)
    return connection


def test_who_leaves_ends_the_question(box: Box) -> None:
    with asking(box, ENDLESS):
        until(lambda: children_of(box))
    until(lambda: not children_of(box))


def test_one_runs_others_wait(box: Box) -> None:
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(box, "SELECT count(*) FROM records")))
    with asking(box, ENDLESS):
        until(lambda: children_of(box))
        first = children_of(box)
        waiting.start()
        time.sleep(0.3)
        assert children_of(box) == first
        assert answers == []
    waiting.join()
    assert rows(answers[0]) == [[6]]
    assert not children_of(box)


def test_a_file_that_is_gone_is_the_boxs_fault_and_tells_no_path(box: Box) -> None:
    [file, *_] = sorted(box.settings.archive_dir.glob("date=*/*.parquet"))
    away = file.with_suffix(".away")
    file.rename(away)
    try:
        found = assert_problem(ask(box, "SELECT count(speed_kmh) FROM records"), 500, "internal")
        assert str(box.settings.data_dir) not in str(found)
    finally:
        away.rename(file)
    assert rows(ask(box, "SELECT count(*) FROM records")) == [[6]]


# Who may ask, and what a request must be ----------------------------------------------------------------


def key_of(box: Box, *scopes: str, **more: object) -> str:
    """A new key that the programs know already."""
    found = box.make_key(*scopes, **more)
    until(lambda: ask(box, "SELECT 1", found).status_code != 401)
    return found


def test_a_bound_key_sees_its_devices_alone(box: Box) -> None:
    vans, two = key_of(box, "sql", prefix="van-"), key_of(box, "sql", devices=("van-1", "bus-1"))
    for table, count in (("records", 2), ("latest", 1)):
        query = f"SELECT device_id, count(*) FROM {table} GROUP BY 1 ORDER BY 1"
        assert rows(ask(box, query, vans)) == [["van-1", count], ["van-2", count]]
        assert rows(ask(box, query, two)) == [["bus-1", count], ["van-1", count]]
    for spy in (
        "SELECT * FROM records WHERE device_id::INTEGER = 1",
        "SELECT * FROM records WHERE CASE WHEN device_id LIKE 'bus%' THEN error(device_id) ELSE true END",
    ):
        assert "bus-1" not in ask(box, spy, vans).text


def test_the_memory_of_a_bound_key_is_bounded(box: Box) -> None:
    """Its records are a filtered table of their own, which is part of what the query may take."""
    bound = key_of(box, "sql", devices=("van-1",))
    for query in (BOMBS[0], "SELECT list(r.device_id || a) FROM records r, range(10000000000) t(a)"):
        assert_problem(ask(box, query, bound), 422, "sql-too-costly")


def test_the_scope_is_needed(box: Box) -> None:
    assert_problem(ask(box, "SELECT 1", key_of(box, "read", "ingest")), 403, "wrong-scope")
    assert box.http.post("/v1/sql", json={"query": "SELECT 1"}, headers={"Authorization": ""}).status_code == 401


def test_what_a_request_must_be(box: Box) -> None:
    post = box.http.post
    for body in (
        b"",
        b"{",
        b"[]",
        b'{"query": 1}',
        b'{"sql": "SELECT 1"}',
        b'{"query": "SELECT 1", "x": 1}',
        b'"\xff"',
    ):
        assert_problem(post("/v1/sql", content=body), 400, "invalid-json")
    assert_problem(
        post("/v1/sql", content=b"SELECT 1", headers={"Content-Type": "text/plain"}), 415, "unsupported-type"
    )
    packed = {"Content-Encoding": "gzip"}
    assert_problem(post("/v1/sql", content=b"x", headers=packed), 415, "unsupported-encoding")
    assert_problem(post("/v1/sql", content=b" " * (2**18 + 1)), 413, "body-too-large")
    assert_problem(post("/v1/sql?x=1", json={"query": "SELECT 1"}), 400, "invalid-parameter")
    assert_problem(box.http.get("/v1/sql"), 405, "wrong-method")


def test_it_is_off_unless_it_is_turned_on(shared_redis: RedisServer, tmp_path: Path) -> None:
    with box_on(shared_redis.url, tmp_path) as off:
        found = assert_problem(ask(off, "SELECT 1"), 403, "sql-off")
        assert "sql.enabled" in str(found["detail"])
