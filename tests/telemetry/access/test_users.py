"""Users, roles and sessions as values."""

from __future__ import annotations

import secrets

import msgspec
import pytest

from telemetry.access.users import (
    ROLES,
    InvalidUser,
    Session,
    caller_of_session,
    csrf_token,
    make_user,
    new_session,
    session_id,
    with_role,
)
from telemetry.config.settings import RoleOfValue
from telemetry.model.api_keys import SCOPES

NOW_S = 1_795_500_000
SESSION = Session("ada", NOW_S, NOW_S + 60)


def test_roles_are_made_of_the_scopes_of_keys() -> None:
    assert set(ROLES) == {"viewer", "dispatcher", "admin"}
    for role in ROLES:
        assert msgspec.convert(f"value={role}", RoleOfValue) == f"value={role}", "settings know each role"
    assert {scope for scopes in ROLES.values() for scope in scopes} <= set(SCOPES)


@pytest.mark.parametrize("name", ["ada", "ada.l@example.com", "a", "0" * 100])
def test_names(name: str) -> None:
    assert make_user(name, "viewer", NOW_S).name == name


@pytest.mark.parametrize("name", ["", "Ada", "a b", ":version", "-a", "a" * 101, "ada\n", "é"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidUser, match="cannot create user"):
        make_user(name, "viewer", NOW_S)


def test_a_user_may_be_bound_unless_the_role_is_for_the_whole_box() -> None:
    assert make_user("a", "viewer", NOW_S, ("van-2", "van-1", "van-1")).devices == ("van-1", "van-2")
    bound = msgspec.structs.replace(make_user("a", "viewer", NOW_S, (), "van-"), password="x", is_disabled=True)
    changed = with_role(bound, "dispatcher")
    assert (changed.role, changed.prefix, changed.password, changed.is_disabled) == ("dispatcher", "van-", "x", True)
    with pytest.raises(InvalidUser, match="admin cannot be bound"):
        with_role(bound, "admin")
    with pytest.raises(InvalidUser, match="user 'a': bind it to devices or to a prefix"):
        make_user("a", "viewer", NOW_S, ("b",), "c")
    with pytest.raises(InvalidUser, match="roles are viewer, dispatcher, admin"):
        make_user("a", "king", NOW_S)


def test_a_session_is_known_by_a_hash_and_its_token_by_another() -> None:
    text = new_session(secrets.token_bytes)
    assert len(session_id(text)) == 64
    assert text not in session_id(text) + csrf_token(text)
    assert len({session_id(text), csrf_token(text), csrf_token(new_session(secrets.token_bytes))}) == 3
    assert [session_id(one) for one in ("", "x", text + "x", text + "\n", "é" * 43)] == [""] * 5


def test_the_caller_has_the_rights_of_the_role_that_counts_now() -> None:
    user = make_user("ada", "dispatcher", NOW_S, (), "van-")
    caller = caller_of_session(SESSION, "id", user)
    assert caller is not None
    assert (caller.key_id, caller.session, caller.expires_s) == ("user:ada", "id", NOW_S + 60)
    assert caller.scopes == {"read", "sql"}
    assert caller.binding.prefix == "van-"
    assert caller_of_session(SESSION, "id", None) is None
    assert caller_of_session(SESSION, "id", msgspec.structs.replace(user, is_disabled=True)) is None
    assert caller_of_session(SESSION, "id", msgspec.structs.replace(user, role="gone")) is None
    provided = msgspec.structs.replace(SESSION, role="admin")
    admin = caller_of_session(provided, "id", None)
    assert admin is not None
    assert admin.may("ingest")
    assert caller_of_session(provided, "id", msgspec.structs.replace(user, is_disabled=True)) is None
