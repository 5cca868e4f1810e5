"""Keys for the order of records by (timestamp, id)."""

from __future__ import annotations

LEAST_KEY, GREATEST_KEY = 0, 1 << 110
_ID_BITS = 53


def key(timestamp_us: int, record_id: int) -> int:
    """The key of a record, a single number."""
    return (timestamp_us << _ID_BITS) | record_id


def within(least: int, below: int) -> str:
    """The SQL condition that a record's key lies in [least, below)."""
    (start_us, first_id), (end_us, end_id) = _moment(least), _moment(below)
    if start_us == end_us:
        return f"timestamp = {_time(start_us)} AND id >= {first_id} AND id < {end_id}"
    return (
        f"timestamp >= {_time(start_us)} AND (timestamp > {_time(start_us)} OR id >= {first_id}) "
        f"AND timestamp <= {_time(end_us)} AND (timestamp < {_time(end_us)} OR id < {end_id})"
    )


def _moment(of_key: int) -> tuple[int, int]:
    """A key's timestamp and id."""
    return of_key >> _ID_BITS, of_key & ((1 << _ID_BITS) - 1)


def _time(timestamp_us: int) -> str:
    return f"make_timestamptz({timestamp_us}::BIGINT)"
