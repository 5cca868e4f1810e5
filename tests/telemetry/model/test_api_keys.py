"""What a key is: its text, its hash, its devices and its tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.model import api_keys, problems
from telemetry.model.api_keys import (
    ADMIN,
    EVERY_DEVICE,
    INGEST,
    READ,
    SCOPES,
    SQL,
    WRONG,
    Binding,
    Caller,
    Denied,
    InvalidKey,
    Key,
    KeyRequest,
)

NOW_S = 1_795_500_000
devices = st.text(min_size=1, max_size=255).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))


def drawn(seed: int = 0) -> Iterator[bytes]:
    """Bytes that tests can tell beforehand."""
    while True:
        yield hashlib.sha256(b"%d" % seed).digest()
        seed += 1


def made(wish: KeyRequest, seed: int = 0) -> tuple[str, Key]:
    source = drawn(seed)
    return api_keys.make(wish, NOW_S, lambda count: next(source)[:count])


def checked(text: str, *known: Key, now_s: float = NOW_S) -> Caller | Denied:
    return api_keys.check(text, {key.id: key for key in known}.get, now_s)


def test_a_key_is_known_by_its_text_and_kept_without_it() -> None:
    text, key = made(KeyRequest((READ, INGEST), name="desk"))
    assert re.fullmatch("wk_[a-z2-7]{8}_[a-z2-7]{26}", text)
    assert text.split("_")[1] == key.id
    kept = msgspec.json.encode(key).decode()
    assert text not in kept
    assert text.split("_")[2] not in kept
    assert key.scopes == (INGEST, READ)
    assert checked(text, key) == Caller(key.id, frozenset((INGEST, READ)))
    assert msgspec.json.decode(kept, type=Key) == key


@given(st.text(max_size=60), st.integers(0, 37), st.characters(codec="utf-8"))
@settings(deadline=None)
def test_no_other_text_is_taken_for_it(other: str, place: int, letter: str) -> None:
    text, key = made(KeyRequest((READ,)))
    changed = text[:place] + letter + text[place + 1 :]
    for wrong in (other, text + other, other + text, changed, text.upper(), f" {text}", text[:-1], f"{text}\n"):
        assert wrong == text or checked(wrong, key) is WRONG


def test_a_key_that_is_not_known_is_wrong() -> None:
    text, _ = made(KeyRequest((READ,)))
    _, other = made(KeyRequest((READ,)), seed=7)
    assert checked(text, other) is WRONG
    assert checked(text) is WRONG
    assert checked("") is WRONG
    assert checked("wk_" + "a" * 100_000) is WRONG


def test_a_key_of_the_same_id_and_another_secret_is_wrong() -> None:
    text, key = made(KeyRequest((READ,)))
    another = text[:-26] + "a" * 26
    assert checked(another, key) is WRONG


def test_a_key_expires_at_its_second() -> None:
    text, key = made(KeyRequest((READ,), expires_s=NOW_S + 60))
    assert isinstance(checked(text, key, now_s=NOW_S + 59.9), Caller)
    denied = checked(text, key, now_s=NOW_S + 60)
    assert denied == Denied(problems.WRONG_KEY, api_keys.EXPIRED)


@given(device=devices, other=devices)
@settings(deadline=None)
def test_a_token_is_of_one_device(device: str, other: str) -> None:
    fleet, key = made(KeyRequest((INGEST,), is_fleet=True))
    token = api_keys.device_token(fleet, device)
    caller = checked(token, key)
    assert isinstance(caller, Caller)
    assert (caller.device, caller.binding) == (device, Binding(frozenset((device,))))
    assert caller.binding.covers(other) == (other == device)
    assert fleet[12:] not in token
    if other != device:
        forged = "_".join((*token.split("_")[:3], api_keys.device_token(fleet, other).split("_", 3)[3]))
        assert checked(forged, key) is WRONG


def test_a_token_is_known_by_its_proof() -> None:
    fleet, key = made(KeyRequest((INGEST,), is_fleet=True))
    token = api_keys.device_token(fleet, "van-7")
    start, key_id, proof, device = token.split("_", 3)
    for wrong in (
        f"{start}_{key_id}_{'a' * 26}_{device}",
        f"{start}_{key_id}_{proof}_",
        f"{start}_{key_id}_{proof}_{device}=",
        f"{start}_{key_id}_{proof}_{device}A",
        f"{start}_{key_id}_{proof}_gICA",  # no UTF-8
        f"{start}_aaaaaaaa_{proof}_{device}",
        token.replace("wd_", "wk_"),
    ):
        assert checked(wrong, key) is WRONG


def test_a_key_without_a_fleet_has_no_tokens() -> None:
    text, key = made(KeyRequest((INGEST,)))
    assert key.token_key == ""
    assert checked(api_keys.device_token(text, "van-7"), key) is WRONG


def test_a_fleets_tokens_end_with_its_prefix_its_time_and_one_by_one() -> None:
    fleet, key = made(KeyRequest((INGEST,), prefix="van-", expires_s=NOW_S + 60, is_fleet=True))
    token = api_keys.device_token(fleet, "van-7")
    assert isinstance(checked(token, key), Caller)
    assert checked(api_keys.device_token(fleet, "bus-7"), key) is WRONG
    assert checked(token, key, now_s=NOW_S + 61) == Denied(problems.WRONG_KEY, api_keys.EXPIRED)
    without = msgspec.structs.replace(key, revoked_devices=("van-7",))
    assert checked(token, without) is WRONG
    assert isinstance(checked(api_keys.device_token(fleet, "van-8"), without), Caller)


def test_what_proves_a_token_is_not_the_fleets_key() -> None:
    fleet, key = made(KeyRequest((INGEST,), is_fleet=True))
    kept = msgspec.json.encode(key).decode()
    assert fleet not in kept
    assert fleet[-26:] not in kept


@given(st.frozensets(devices, max_size=4), st.text(max_size=3), st.lists(devices, max_size=6))
@settings(deadline=None)
def test_a_binding_covers_what_it_names(named: frozenset[str], prefix: str, asked: list[str]) -> None:
    binding = Binding(named) if named else Binding(prefix=prefix)
    covered = [one for one in asked if (one in named if named else one.startswith(prefix))]
    assert [one for one in asked if binding.covers(one)] == covered
    first = binding.first_outside(asked)
    assert (first is None) == (covered == asked)
    if first is not None:
        assert asked[first[0]] == first[1]
        assert all(binding.covers(one) for one in asked[: first[0]])


def test_a_record_outside_is_named() -> None:
    caller = Caller("k", frozenset((INGEST,)), Binding(prefix="van-"))
    assert api_keys.forbidden_device(caller, ["van-1", "van-2"]) is None
    denied = api_keys.forbidden_device(caller, ["van-1", "bus-2"])
    assert denied is not None
    assert denied.kind is problems.OTHER_DEVICE
    assert denied.reason == "record 1: this key is for devices whose id begins with 'van-', not for device 'bus-2'"
    assert api_keys.forbidden_device(Caller("k", frozenset((INGEST,))), ["bus-2"]) is None


def test_a_scope_is_for_itself_and_admin_for_all() -> None:
    for scope in SCOPES:
        for other in SCOPES:
            assert Caller("k", frozenset((scope,))).may(other) == (other == scope or scope == ADMIN)
    denied = api_keys.missing_scope(Caller("k", frozenset((READ, SQL))), INGEST)
    assert denied is not None
    assert denied.kind is problems.WRONG_SCOPE
    assert "scope ingest; this one has read, sql" in denied.reason


def test_names_of_bound_callers_are_kept_apart() -> None:
    def realm(binding: Binding) -> str:
        return Caller("k", frozenset((INGEST,)), binding).realm

    assert realm(EVERY_DEVICE) == ""
    found = {realm(Binding(frozenset(("a", "b")))), realm(Binding(frozenset(("a\0b",)))), realm(Binding(prefix="a"))}
    found |= {realm(Binding(frozenset(("a",)))), realm(Binding(frozenset(("b",))))}
    assert len(found) == 5


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (KeyRequest(()), "needs a scope"),
        (KeyRequest(("write",)), "unknown scope write"),
        (KeyRequest((READ,), ("a",), "a"), "not to both"),
        (KeyRequest((SQL,), is_fleet=True), "a fleet's key has ingest"),
        (KeyRequest((READ, ADMIN), prefix="a"), "scope admin cannot be bound"),
        (KeyRequest((READ,), ("",)), "1 to 255 characters"),
        (KeyRequest((READ,), prefix="a" * 256), "1 to 255 characters"),
        (KeyRequest((READ,), tuple(map(str, range(1_001)))), "may name at most 1000 devices"),
        (KeyRequest((READ,), expires_s=NOW_S), "expiry is in the past"),
        (KeyRequest((READ,), name="a" * 101), "its name"),
        (KeyRequest((INGEST, ADMIN), is_fleet=True), "a fleet's key has ingest"),
        (KeyRequest((INGEST,), ("a",), is_fleet=True), "a fleet's key has ingest"),
    ],
    ids=str,
)
def test_what_can_be_no_key_is_refused(wish: KeyRequest, why: str) -> None:
    with pytest.raises(InvalidKey, match=why):
        made(wish)


def test_a_token_needs_a_fleets_key_and_a_device() -> None:
    fleet, _ = made(KeyRequest((INGEST,), is_fleet=True))
    with pytest.raises(InvalidKey, match="must be like wk_"):
        api_keys.device_token("secret", "van-7")
    for device in ("", "a" * 256):
        with pytest.raises(InvalidKey, match="1 to 255"):
            api_keys.device_token(fleet, device)


def test_what_looks_like_a_key() -> None:
    assert api_keys.looks_like_key("wk_x")
    assert api_keys.looks_like_key("wd_x")
    assert not api_keys.looks_like_key("token")
    assert not api_keys.looks_like_key(7)
