"""JSON bytes to values: what is taken, what is refused, and the place that a fault names."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.codec.json_decoder import MAX_DEPTH, NotUtf8, Truncated, read
from telemetry.model.errors import SyntaxFault


def fault(data: bytes, max_containers: int = 10**6) -> SyntaxFault:
    with pytest.raises(SyntaxFault) as caught:
        read(data, max_containers)
    return caught.value


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_values(kind: type[bytes]) -> None:
    text = ' {"a": [1, -2.5, "ü\\u00fc\\ud83d\\ude00", true, null, {}]} \r\n'
    assert read(kind(text.encode()), 10) == {"a": [1, -2.5, "üü😀", True, None, {}]}


def test_of_a_duplicate_key_the_last_wins() -> None:
    assert read(b'{"a":1,"a":2}', 10) == {"a": 2}


def test_integers_of_any_size() -> None:
    assert read(b"[123456789012345678901234567890,-9223372036854775809]", 10) == [
        123456789012345678901234567890,
        -9223372036854775809,
    ]
    assert str(fault(b'["9",-' + b"1" * 5000 + b"]")) == "Integer value out of range at byte 5"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b"[1",
        b'"a',
        b'"\\u12',
        b"[tr",
        b"[-",
        b"1.",
        b"1e",
        b"[1e+",
    ],
)
def test_what_is_cut_short(data: bytes) -> None:
    assert isinstance(fault(data), Truncated)
    assert str(fault(data)) == "cut short"


@pytest.mark.parametrize(
    ("data", "at", "reason"),
    [
        (b"{a:1}", 1, "object keys must be strings"),
        (b"{'a':1}", 1, "object keys must be strings"),
        (b'{"a":1,}', 7, "trailing comma in object"),
        (b'{"a" 1}', 5, "expected ':'"),
        (b'{"a":1\n"b":2}', 7, "expected ',' or '}'"),
        (b"[1 2]", 3, "expected ',' or ']'"),
        (b"[1,]", 3, "trailing comma in array"),
        (b'{"a":1]', 6, "expected ',' or '}'"),
        (b"NaN", 0, "invalid character"),
        (b"[Infinity]", 1, "invalid character"),
        (b"[-Infinity]", 2, "invalid character"),
        (b"[+1]", 1, "invalid character"),
        (b"// x", 0, "invalid character"),
        (b"\xef\xbb\xbf{}", 0, "invalid character"),
        (b"\xff\xfe{\0}\0", 0, "invalid character"),
        (b'"a\nb"', 2, "invalid character"),
        (b'"a\tb"', 2, "invalid character"),
        (b'"a\\xb"', 3, "invalid escape character in string"),
        (b'"a\\\n"', 3, "invalid escape character in string"),
        (b'"\\u12\n4"', 5, "invalid character in unicode escape"),
        (b'{"a":1} {', 8, "trailing characters"),
        (b"5x", 1, "trailing characters"),
        (b"[trux]", 1, "invalid character"),
        (b'{"a":tru\n{"b":1}', 5, "invalid character"),
        (b'{"a": fals\n{"b":1}', 6, "invalid character"),
        (b"[nul]  ", 1, "invalid character"),
        (b'["f",\x01]', 5, "invalid character"),
        (b"[01]", 2, "invalid number"),
    ],
)
def test_a_fault_names_its_place(data: bytes, at: int, reason: str) -> None:
    found = fault(data)
    assert (found.at, str(found)) == (at, f"{reason} at byte {at}")


@pytest.mark.parametrize("data", [b'"\\ud800abcdefgh"', b'"\\udc00"', b'"\\ud83d\\u0041"'])
def test_half_a_surrogate_pair_is_refused(data: bytes) -> None:
    assert "surrogate" in str(fault(data))


@pytest.mark.parametrize(
    "number", [b"1e400", b"-1.5E+400", b"1e9999999999", b"1" * 400 + b".0", b"1e400-5", b"1e400\n"]
)
def test_numbers_beyond_a_double_are_refused(number: bytes) -> None:
    for tail in (b"", b"]"):
        found = fault(b'[1.5,"1e400",' + number + tail)
        assert (found.at, str(found)) == (13, "Number out of range at byte 13")


@pytest.mark.parametrize(
    ("data", "at"), [(b'"\xff"', 1), (b'{"a":"x\xe4y"}', 7), (b'{"\xc3\xbc":"\xed\xa0\x80"}', 7), (b'"\xe4"', 1)]
)
def test_what_is_not_utf8(data: bytes, at: int) -> None:
    found = fault(data)
    assert isinstance(found, NotUtf8)
    assert found.at == at


@pytest.mark.parametrize("data", [b"[" * 50_000, b"[" * 50_000 + b"]" * 50_000, b'{"[\\"":' * 20_000])
def test_deep_nesting_is_refused(data: bytes) -> None:
    found = fault(data)
    assert "nested too deeply" in str(found)
    assert found.at == MAX_DEPTH * (data.find(b":") + 1 or 1)


def test_the_deepest_that_is_sure_to_be_read() -> None:
    assert isinstance(read(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, 10**6), list)


def test_more_objects_and_arrays_than_may_be_are_refused_before_they_cost_memory() -> None:
    assert read(b"[{},[]]", 3) == [{}, []]
    assert str(fault(b"[{},[]]", 2)) == "more than 2 objects and arrays"


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.text(st.sampled_from('[]{}:,"\\ \n-+.0123456789eEtruefalsn/u\ud800')).map(
            lambda text: text.encode(errors="surrogatepass")
        ),
    )
)
def test_any_bytes_are_a_value_as_python_reads_it_or_a_fault(data: bytes) -> None:
    try:
        value = read(data, 10**6)
    except SyntaxFault as found:
        at = found.at
    else:
        assert value == json.loads(data.decode())
        at = None
    assert at is None or 0 <= at <= len(data)


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.recursive(scalars, st.lists), st.booleans(), st.none() | st.just(1), st.data())
def test_the_beginning_of_a_value_is_cut_short_and_never_wrong(
    value: object, is_ascii: bool, indent: int | None, data: st.DataObject
) -> None:
    whole = json.dumps([value], ensure_ascii=is_ascii, indent=indent).encode()
    assert read(whole, 10**6) == [value]
    assert isinstance(fault(whole[: data.draw(st.integers(0, len(whole) - 1))]), Truncated)
