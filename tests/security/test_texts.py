"""Attack who looks at records, with texts that a spreadsheet runs as formulas or a terminal obeys."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.config.settings import PROJECT
from telemetry.model.record import Record, Sent
from tests.api.conftest import NOW_MS, Box, box_on, record
from tests.conftest import RedisServer

FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://evil.example.com","click")',
    "\uff1d1",
    'a;=1+1;"',
    'a;"=1+1;',
)
PLAIN = ("truck-7", "a,b", 'a "b"', "ü", "1-2", "a=b")
COMMANDING = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202eevil\n"
"""Sets a window's title, clears the screen, colours what follows, and reads from right to left."""

CONTROL = {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e"} - {"\n", "\r"}


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Half of the records saved."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("texts"), sql__enabled="true") as found:
        names = (*FORMULAS, *PLAIN)
        found.append(*(Sent(name, of(place, name)) for place, name in enumerate(names[::2])))
        found.save()
        found.append(*(Sent(name, of(place, name)) for place, name in enumerate(names[1::2])))
        found.append(Sent(COMMANDING, of(99, COMMANDING)))
        yield found


def of(place: int, text: str) -> Record:
    return record(
        (NOW_MS - 1_000_000 + place) * 1_000,
        latitude=-1.5,
        longitude=2.0,
        speed_kmh=-0.5 if place % 2 else 1.0,
        location=text,
        attributes=json.dumps({"note": text}),
    )


def cells_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))[1:]


# Spreadsheets ----------------------------------------------------------------------------------------


ASKED = ("/v1/records?format=csv", "/v1/export?format=csv", "/v1/latest?format=csv")


@pytest.mark.parametrize("path", ASKED)
def test_no_cell_of_csv_is_a_formula_if_that_is_asked_for(box: Box, path: str) -> None:
    answer = box.http.get(f"{path}&csv_safe=true")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    rows = cells_of(answer.text)
    names = {row[0] for row in rows}
    assert len(rows) == len(FORMULAS) + len(PLAIN) + 1
    assert set(PLAIN) <= names
    assert {f"'{name}" for name in FORMULAS if ";" not in name and not name.startswith(("\t", "\r", "\n"))} <= names
    numbers = {cell for row in rows for cell in row if cell.startswith("-")}
    assert {"-1.5"} <= numbers <= {"-1.5", "-0.5"}
    assert_no_formula(answer.text)


def assert_no_formula(text: str) -> None:
    """Whatever sign the reader splits lines at."""
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            for cell in row:
                assert not cell.startswith(("=", "+", "@", "\t", "\r", "\n", "\uff1d")), (delimiter, row)
                assert not cell.startswith("-") or float(cell.split(",")[0]), (delimiter, row)


@pytest.mark.parametrize("path", ASKED)
def test_without_it_texts_are_data(box: Box, path: str) -> None:
    names = {row[0] for row in cells_of(box.http.get(path).text)}
    assert set(FORMULAS) | set(PLAIN) <= names
    assert box.http.get(f"{path}&csv_safe=false").text == box.http.get(path).text


def test_other_formats_are_as_ever_and_odd_values_refused(box: Box) -> None:
    for path in ("/v1/records?format=ndjson", "/v1/latest?limit=3", "/v1/export?format=geojson"):
        assert box.http.get(f"{path}&csv_safe=true").text == box.http.get(path).text
        assert box.http.get(f"{path}&csv_safe=1").status_code == 400
    document = box.http.get("/openapi.json").json()["paths"]
    for path, method in (("/v1/records", "get"), ("/v1/export", "get"), ("/v1/latest", "get"), ("/v1/sql", "post")):
        assert "csv_safe" in {one["name"] for one in document[path][method]["parameters"]}


def test_answers_in_sql(box: Box) -> None:
    query = """SELECT '=1' AS "=head", -1 AS n, -0.5::DOUBLE AS x, -1.5::DECIMAL(4, 2) AS d, '' AS e, NULL AS nothing,
        ['-1'] AS l, 'a;=1' AS s, true AS yes"""
    params = {"format": "csv", "csv_safe": "true"}
    answer = box.http.post("/v1/sql", json={"query": query}, params=params)
    assert answer.text == (
        '"\'=head","n","x","d","e","nothing","l","s","yes"\r\n"\'=1",-1,-0.5,-1.50,"",,"[""-1""]","a;\'=1","true"\r\n'
    )
    assert_no_formula(box.http.post("/v1/sql", json={"query": "FROM records"}, params=params).text)


# Commands --------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


def piped(box: Box, *arguments: str) -> str:
    done = subprocess.run(
        command(*arguments), cwd=PROJECT, env=os.environ | box.environ, capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode()


def on_terminal(box: Box, *arguments: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*arguments), cwd=PROJECT, env=os.environ | box.environ, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        found = b""
        try:
            while piece := os.read(ours, 65_536):
                found += piece
        except OSError:
            pass  # Linux says so of a terminal whose other end is closed
        os.close(ours)
        assert process.wait() == 0, found
    return found.decode()


def test_history_commands_no_terminal(box: Box) -> None:
    shown = on_terminal(box, "history")
    assert not CONTROL & set(shown)
    assert "\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x7f\\u202eevil\\n" in shown
    shown = on_terminal(box, "history", "--json")
    assert not CONTROL & set(shown)
    assert COMMANDING in [json.loads(line)["device_id"] for line in shown.splitlines()]


def test_latest_commands_no_terminal(box: Box) -> None:
    assert not CONTROL & set(on_terminal(box, "latest"))
    assert not CONTROL & set(on_terminal(box, "latest", "--json"))


def test_piped_output_is_unchanged(box: Box, tmp_path: Path) -> None:
    rows = cells_of(piped(box, "history"))
    assert COMMANDING in {row[0] for row in rows}
    assert set(FORMULAS) <= {row[0] for row in rows}
    assert_no_formula(piped(box, "history", "--csv-safe"))
    out = tmp_path / "out.csv"
    piped(box, "export", str(out), "--csv-safe")
    assert_no_formula(out.read_text(encoding="utf-8"))
