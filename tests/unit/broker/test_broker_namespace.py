"""Who may create a session where: histories of uploads on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ostiary.board import Caller
from ostiary.broker.namespace import ROOT, default_root, is_below, parent_of
from ostiary.broker.read import read_session
from ostiary.broker.upload import upload_session
from ostiary.errors import ConflictError, IdentityRequiredError, InputError, NotAuthorizedError, NotFoundError

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk


def text(name: str, **more: str) -> str:
    """A session; `_` in a key stands for itself, values are YAML."""
    return f'version: "0.3.12"\nname: {name}\n' + "".join(f"{key}: {value}\n" for key, value in more.items())


@pytest.mark.parametrize(
    ("name", "parent"), [("/", None), ("a", "/"), ("a/b", "a"), ("a/b/c", "a/b")],
)  # fmt: skip
def test_the_namespace_is_all_but_the_last_segment(name: str, parent: str | None) -> None:
    assert parent_of(name) == parent


@pytest.mark.parametrize(("name", "namespace", "below"), [
    ("a", "a", True), ("a/b/c", "a", True), ("a/b", ROOT, True), (ROOT, ROOT, True),
    ("ab", "a", False), ("a", "a/b", False), ("b/a", "a", False), (ROOT, "a", False),
])  # fmt: skip
def test_below_is_told_by_whole_segments(name: str, namespace: str, below: bool) -> None:
    assert is_below(name, namespace) is below


def test_a_session_is_created_in_a_namespace_that_admits_its_author(desk: Desk, alice: Caller) -> None:
    desk.upload(text("a"), alice)
    desk.upload(text("a/b"), alice)
    desk.upload(text("a/b/c"), alice)
    assert asyncio.run(read_session(desk.cas, "a/b/c", session_hash=None, caller=alice)).session.name == "a/b/c"


def test_without_the_namespace_there_is_nothing_to_create_in(desk: Desk, alice: Caller) -> None:
    before = desk.cas.store.head
    with pytest.raises(NotFoundError, match="'a/b': Namespace not found: there is no session a, which"):
        desk.upload(text("a/b"), alice)
    assert desk.cas.store.head == before


def test_a_namespace_that_does_not_admit_the_author_refuses(desk: Desk, alice: Caller, eve: Caller) -> None:
    """F024: creating in a namespace needs its create_sessions right."""
    desk.upload(text("a"), alice)
    with pytest.raises(NotAuthorizedError, match="create sessions in namespace a"):
        desk.upload(text("a/b"), eve)
    with pytest.raises(IdentityRequiredError, match="no client certificate"):
        desk.upload(text("a/b", access_policy="{read: ANY, update: ANY}"), None)
    assert desk.cas.sessions.current("a/b") is None


def test_who_may_create_is_said_apart_from_who_may_update(desk: Desk, alice: Caller, eve: Caller) -> None:
    desk.upload(text("a", access_policy="{create_sessions: ANY}"), alice)
    created = desk.upload(text("a/b"), eve)
    with pytest.raises(NotAuthorizedError, match="update session a/b"):
        desk.upload(text("a/b", predecessor=created), alice)


def test_an_author_shut_out_later_can_still_update(desk: Desk, alice: Caller, eve: Caller) -> None:
    """The namespace is asked at creation only."""
    first = desk.upload(text("a", access_policy="{create_sessions: ANY}"), alice)
    created = desk.upload(text("a/b"), eve)
    desk.upload(text("a", access_policy="{create_sessions: NONE}", predecessor=first), alice)
    desk.upload(text("a/b", predecessor=created, services="[]"), eve)
    with pytest.raises(NotAuthorizedError):
        desk.upload(text("a/c"), alice)


def test_the_hash_of_the_namespace_is_compared_at_creation(desk: Desk, alice: Caller) -> None:
    first = desk.upload(text("a"), alice)
    second = desk.upload(text("a", predecessor=first), alice)
    with pytest.raises(ConflictError, match=f"namespace_hash {first} is not the hash of the current version") as caught:
        desk.upload(text("a/b", namespace_hash=f'"{first}"'), alice)
    assert second not in str(caught.value)
    desk.upload(text("a/b", namespace_hash=f'"{second}"'), alice)
    desk.upload(text("a", predecessor=second, services="[]"), alice)
    assert desk.cas.sessions.current("a/b") is not None


def test_the_root_may_be_named_by_its_hash_too(desk: Desk, alice: Caller) -> None:
    desk.upload(text("a", namespace_hash=f'"{default_root().hash.hex()}"'), alice)
    with pytest.raises(ConflictError, match="its namespace /: read"):
        desk.upload(text("b", namespace_hash=f'"{"0" * 64}"'), alice)


def test_the_default_root_is_read_by_everyone_and_has_nothing(desk: Desk) -> None:
    root = asyncio.run(read_session(desk.cas, ROOT, session_hash=None, caller=None))
    assert (root.session.services, root.session.secrets, root) == ((), (), default_root())
    assert desk.cas.sessions.require(ROOT).values == {}


def test_whoever_updates_the_root_first_owns_it(desk: Desk, alice: Caller, eve: Caller) -> None:
    first = default_root().hash
    mine = desk.upload(text(ROOT, predecessor=first.hex()), alice)
    with pytest.raises(NotAuthorizedError, match="create sessions in namespace /"):
        desk.upload(text("a"), eve)
    desk.upload(text("a"), alice)
    with pytest.raises(NotAuthorizedError, match="update session /"):
        desk.upload(text(ROOT, predecessor=mine), eve)
    desk.upload(text(ROOT, access_policy="{create_sessions: ANY}", predecessor=mine), alice)
    desk.upload(text("b"), eve)
    assert asyncio.run(read_session(desk.cas, ROOT, session_hash=first, caller=alice)) == default_root()


def test_the_first_session_seals_the_root(desk: Desk, alice: Caller, eve: Caller) -> None:
    desk.upload(text("a"), alice)
    with pytest.raises(NotAuthorizedError, match="the root namespace is sealed"):
        desk.upload(text(ROOT, predecessor=default_root().hash.hex()), alice)
    desk.upload(text("b"), eve)


def test_a_refused_session_does_not_seal_the_root(desk: Desk, alice: Caller) -> None:
    with pytest.raises(NotFoundError):
        desk.upload(text("a/b"), alice)
    with pytest.raises(InputError):
        desk.upload(text("a", creator="nobody"), alice)
    desk.upload(text(ROOT, predecessor=default_root().hash.hex()), alice)


def test_the_root_is_there_and_cannot_be_created(desk: Desk, alice: Caller) -> None:
    with pytest.raises(ConflictError, match="please specify predecessor hash"):
        desk.upload(text(ROOT), alice)


def both(desk: Desk, *uploads: tuple[str, Caller]) -> list[object]:
    """Upload all at once; hashes or errors."""

    async def run() -> list[object]:
        tasks = (upload_session(desk.cas, body.encode(), caller) for body, caller in uploads)
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    return asyncio.run(run())


def refused(outcomes: list[object]) -> list[Exception]:
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def test_of_a_claim_of_the_root_and_a_first_session_at_once_one_wins(desk: Desk, alice: Caller, eve: Caller) -> None:
    claim = text(ROOT, predecessor=default_root().hash.hex())
    (loss,) = refused(both(desk, (claim, alice), (text("a"), eve)))
    assert isinstance(loss, NotAuthorizedError)
    assert (desk.cas.sessions.current("a") is None) != desk.cas.sessions.root_is_sealed


def test_many_first_sessions_at_once_are_all_created(desk: Desk, alice: Caller) -> None:
    assert refused(both(desk, *((text(f"s{number}"), alice) for number in range(6)))) == []
    assert desk.cas.sessions.root_is_sealed


def test_a_namespace_that_changes_meanwhile_is_asked_again(desk: Desk, alice: Caller, eve: Caller) -> None:
    """Whatever the order, a session stands only if the namespace admitted its author at the commit."""
    first = desk.upload(text("a", access_policy="{create_sessions: ANY}"), alice)
    close = text("a", access_policy="{create_sessions: NONE}", predecessor=first)
    outcomes = both(desk, (close, alice), *((text(f"a/{number}"), eve) for number in range(6)))
    leaf_of_closing = desk.cas.sessions.require("a").record
    for number in range(6):
        created = desk.cas.sessions.current(f"a/{number}")
        assert created is None or created.record < leaf_of_closing
        assert (created is None) == isinstance(outcomes[number + 1], NotAuthorizedError)


def test_of_two_updates_at_once_one_conflicts(desk: Desk, alice: Caller) -> None:
    first = desk.upload(text("a"), alice)
    update: Callable[[str], str] = lambda command: text(  # noqa: E731
        "a", predecessor=first, services=f"[{{name: s, command: {command}, attestation: {{mrenclave: '{'0' * 64}'}}}}]"
    )
    (loss,) = refused(both(desk, (update("one"), alice), (update("two"), alice)))
    assert isinstance(loss, ConflictError)
    assert "is not the hash of the current version" in str(loss)


def test_the_last_component_of_a_service_id_is_the_service(desk: Desk, alice: Caller) -> None:
    """F025: `a/b/c` starts service c of session a/b."""
    desk.upload(text("a"), alice)
    service = "[{name: c, command: hello}]"
    desk.upload(text("a/b", services=service, security="{attestation: {mode: none}}"), alice)
    assert desk.argv("a/b/c") == [b"hello"]


def test_an_update_may_change_the_version_of_the_language_and_keeps_values(desk: Desk, alice: Caller) -> None:
    """F018: from 0.2 to 0.3.12 a generated value survives."""
    body = (
        "name: grown\nsecrets: [{name: token, kind: ascii}]\n"
        "services: [{name: s, command: $$SCONE::token$$, mrenclaves: ['" + "ab" * 32 + "']}]\n"
    )
    first = desk.upload(f'version: "0.2"\n{body}', alice)
    before = desk.cas.sessions.require("grown").values
    desk.upload(f'version: "0.3.12"\npredecessor: "{first}"\n{body}', alice)
    assert desk.cas.sessions.require("grown").values == before
