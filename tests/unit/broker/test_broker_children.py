"""Lists of the sessions of a namespace: complete at every moment, for whoever may list or create."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from ostiary.board import Caller
from ostiary.broker import children
from ostiary.broker.children import BUCKETS, Listed, list_sessions
from ostiary.broker.namespace import ROOT, default_root
from ostiary.broker.upload import upload_session
from ostiary.errors import IdentityRequiredError, InputError, NotAuthorizedError, NotFoundError, StoreError
from ostiary.store import Write

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk


def text(name: str, **more: str) -> str:
    """A session; values are YAML."""
    return f'version: "0.3.12"\nname: {name}\n' + "".join(f"{key}: {value}\n" for key, value in more.items())


def listed(desk: Desk, namespace: str, caller: Caller | None, start: int = 0) -> Listed:
    return asyncio.run(list_sessions(desk.cas, namespace, start=start, caller=caller))


def test_a_namespace_has_what_was_created_in_it_and_nothing_below_that(desk: Desk, alice: Caller) -> None:
    for name in ("a", "b", "a/c", "a/d", "a/c/e"):
        desk.upload(text(name), alice)
    assert sorted(listed(desk, ROOT, alice).sessions) == ["a", "b"]
    assert sorted(listed(desk, "a", alice).sessions) == ["a/c", "a/d"]
    assert listed(desk, "a/c", alice).sessions == ("a/c/e",)
    assert listed(desk, "b", alice) == Listed(sessions=(), next=None)


def test_an_update_changes_no_list(desk: Desk, alice: Caller) -> None:
    first = desk.upload(text("a"), alice)
    desk.upload(text("a", predecessor=first, salt="00" * 16), alice)
    assert listed(desk, ROOT, alice).sessions == ("a",)


def test_the_root_is_in_no_list(desk: Desk, alice: Caller) -> None:
    desk.upload(
        text("/", predecessor=default_root().hash.hex(), access_policy="{read: ANY, create_sessions: ANY}"), alice
    )
    assert listed(desk, ROOT, alice).sessions == ()


def test_of_many_creations_at_once_none_is_missing(desk: Desk, alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """They meet in one bucket, and whoever comes later is judged anew."""
    monkeypatch.setattr(children, "BUCKETS", 1)

    async def create() -> None:
        await asyncio.gather(*(upload_session(desk.cas, text(f"s{i}").encode(), alice) for i in range(6)))

    asyncio.run(create())
    assert sorted(listed(desk, ROOT, alice).sessions) == [f"s{i}" for i in range(6)]


def test_a_long_list_comes_in_several_answers(desk: Desk, alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "ENOUGH_NAMES", 2)
    names = [f"s{i}" for i in range(7)]
    for name in names:
        desk.upload(text(name), alice)
    found: list[str] = []
    start: int | None = 0
    answers = 0
    while start is not None:
        part = listed(desk, ROOT, alice, start)
        found += part.sessions
        start, answers = part.next, answers + 1
    assert sorted(found) == names
    assert answers > 2


@pytest.mark.parametrize("start", [-1, BUCKETS])
def test_a_list_that_begins_nowhere_is_refused(desk: Desk, alice: Caller, start: int) -> None:
    with pytest.raises(InputError, match=f"begins at {start}, expected `next` of an earlier answer"):
        listed(desk, ROOT, alice, start)


def test_f175_listing_is_as_reading_unless_said_otherwise(desk: Desk, alice: Caller, eve: Caller) -> None:
    """F175: list_sessions defaults to read, and whoever may create may always list."""
    desk.upload(text("closed"), alice)
    desk.upload(text("read", access_policy="{read: ANY}"), alice)
    desk.upload(text("listed", access_policy="{list_sessions: ANY}"), alice)
    desk.upload(text("hidden", access_policy="{read: ANY, list_sessions: NONE}"), alice)
    desk.upload(text("open", access_policy="{list_sessions: NONE, create_sessions: ANY}"), alice)
    for namespace in ("read", "listed", "open"):
        assert listed(desk, namespace, eve).sessions == ()
    for namespace in ("closed", "hidden"):
        with pytest.raises(NotAuthorizedError, match=f"list the sessions of namespace {namespace}"):
            listed(desk, namespace, eve)
    assert listed(desk, "hidden", alice).sessions == ()
    with pytest.raises(IdentityRequiredError, match="no client certificate"):
        listed(desk, "closed", None)


def test_there_is_no_list_of_what_is_not_there(desk: Desk, alice: Caller) -> None:
    with pytest.raises(NotFoundError, match="Session not found"):
        listed(desk, "nowhere", alice)


def test_a_list_of_a_newer_version_is_refused(desk: Desk, alice: Caller) -> None:
    write = Write(name="children/0//", value=json.dumps({"form": 2, "names": []}).encode(), expected_version=0)
    desk.cas.store.commit([write], b"{}").result()
    with pytest.raises(StoreError, match="has form 2, expected 1: a newer Ostiary wrote it"):
        listed(desk, ROOT, alice)
