"""Who may know the hash of a session: everybody after a salt, else those who may read. The audit log likewise."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.simulators.signers import ed25519_person
from tests.unit.broker.test_broker_signed_upload import owned, put, spy

from ostiary.board import Caller
from ostiary.broker.namespace import ROOT, default_root
from ostiary.broker.open import make_cas
from ostiary.broker.read import read_session_hash
from ostiary.errors import IdentityRequiredError, NotAuthorizedError, NotFoundError
from ostiary.store import Write

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

SALT = "'000102030405060708090a0b0c0d0e0f'"


def text(name: str = "s", **more: str) -> str:
    return f'version: "0.3.12"\nname: {name}\n' + "".join(f"{key}: {value}\n" for key, value in more.items())


def ask(desk: Desk, caller: Caller | None, name: str = "s") -> str:
    return asyncio.run(read_session_hash(desk.cas, name, caller=caller)).hex()


def test_f036_without_a_salt_the_hash_is_for_those_who_may_read(desk: Desk, alice: Caller, eve: Caller) -> None:
    """F036: it needs the read right."""
    first = desk.upload(text(), alice)
    assert ask(desk, alice) == first
    with pytest.raises(NotAuthorizedError, match="insufficient rights to access session s"):
        ask(desk, eve)
    with pytest.raises(IdentityRequiredError):
        ask(desk, None)


def test_f036_a_salt_makes_the_hash_public_for_this_and_all_later_versions(
    desk: Desk, alice: Caller, eve: Caller
) -> None:
    """F036."""
    first = desk.upload(text(), alice)
    second = desk.upload(text(predecessor=first, salt=SALT), alice)
    assert [ask(desk, caller) for caller in (None, eve, alice)] == [second] * 3
    third = desk.upload(text(predecessor=second), alice)
    assert [ask(desk, caller) for caller in (None, eve, alice)] == [third] * 3
    fourth = desk.upload(text(predecessor=third, access_policy="{read: NONE}"), alice)
    assert ask(desk, None) == fourth


def test_f036_a_salt_of_one_session_says_nothing_about_another(desk: Desk, alice: Caller) -> None:
    """F036: a namespace's salt is not that of the sessions below."""
    desk.upload(text("a", salt=SALT), alice)
    desk.upload(text("a/b"), alice)
    with pytest.raises(IdentityRequiredError):
        ask(desk, None, "a/b")


def test_who_may_not_update_learns_nothing_about_the_hash_by_trying(desk: Desk, alice: Caller, eve: Caller) -> None:
    """Short secrets in a text could be tried one after the other."""
    first = desk.upload(text(), alice)
    told = []
    for guess in (first, "ab" * 32):
        with pytest.raises(NotAuthorizedError) as refusal:
            desk.upload(text(predecessor=guess), eve)
        told.append(str(refusal.value))
    assert told[0] == told[1]


def test_the_hash_of_a_session_that_does_not_exist_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFoundError, match="Session not found"):
        ask(desk, None)


def test_the_hash_of_the_default_root_is_anyones_and_a_claimed_roots_is_not(desk: Desk, alice: Caller) -> None:
    first = ask(desk, None, ROOT)
    assert first == default_root().hash.hex()
    desk.upload(text(ROOT, predecessor=first), alice)
    with pytest.raises(IdentityRequiredError):
        ask(desk, None, ROOT)


def test_a_signed_session_that_nobody_reads_has_a_public_hash_with_a_salt(desk: Desk) -> None:
    """So its signers can learn what the next version must name."""
    ann = ed25519_person()
    session = owned("s", ann, salt=SALT).replace("read: ANY", "read: NONE")
    assert put(desk, session, ann) == ask(desk, None)


def test_f036_the_audit_log_has_the_hash_only_if_it_is_public(
    desk: Desk, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F036: the audit log likewise."""
    leaves = spy(monkeypatch)
    first = desk.upload(text(), alice)
    second = desk.upload(text(predecessor=first, salt=SALT), alice)
    third = desk.upload(text(predecessor=second), alice)
    assert [leaf["data"].get("session_hash") for leaf in leaves] == [None, second, third]
    assert first not in json.dumps(leaves[0])


def forget(desk: Desk, *records: str) -> None:
    """Make records what an older version wrote: they do not say whether there is a salt."""
    for name in records:
        record = desk.cas.store.get(name)
        assert record is not None
        members = json.loads(record.value)
        del members["salted"]
        write = Write(name=name, value=json.dumps(members).encode(), expected_version=record.version)
        desk.cas.store.commit([write], b"leaf").result()


@pytest.mark.parametrize("salted", [True, False])
def test_f036_records_of_an_older_version_are_looked_through(desk: Desk, alice: Caller, salted: bool) -> None:
    """F036: a salt that was given before records said so counts."""
    first = desk.upload(text(**({"salt": SALT} if salted else {})), alice)
    second = desk.upload(text(predecessor=first), alice)
    forget(desk, f"version/s/{first}", f"version/s/{second}", "session/s")
    third = second
    if salted:
        assert ask(desk, None) == second
    else:
        with pytest.raises(IdentityRequiredError):
            ask(desk, None)
        assert ask(desk, alice) == second
    third = desk.upload(text(predecessor=second, services="[]"), alice)
    record = desk.cas.store.get("session/s")
    assert record is not None
    assert json.loads(record.value)["salted"] is salted, "from now on it is written down"
    assert ask(desk, alice) == third


def test_records_of_an_older_version_end_with_one_that_says(desk: Desk, alice: Caller) -> None:
    first = desk.upload(text(salt=SALT), alice)
    second = desk.upload(text(predecessor=first), alice)
    third = desk.upload(text(predecessor=second, services="[]"), alice)
    forget(desk, f"version/s/{third}", "session/s")
    assert ask(desk, None) == third


def test_an_older_root_ends_with_the_default_one_which_has_no_record(desk: Desk, alice: Caller) -> None:
    claimed = desk.upload(text(ROOT, predecessor=default_root().hash.hex()), alice)
    forget(desk, f"version///{claimed}", "session//")
    with pytest.raises(IdentityRequiredError):
        ask(desk, None, ROOT)


def test_renewed_values_keep_what_is_known_of_the_salt(desk: Desk, alice: Caller) -> None:
    """A release writes the record of the current version anew."""
    certificate = "[{name: k, kind: private-key}, {name: c, kind: x509, private_key: k, valid_for: 10 days}]"
    service = "[{name: w, command: $$SCONE::c$$}]"
    more = {"secrets": certificate, "services": service, "security": "{attestation: {mode: none}}"}
    first = desk.upload(text(salt=SALT, **more), alice)
    second = desk.upload(text(predecessor=first, **more), alice)
    before = desk.cas.sessions.require("s").record
    desk.pass_time(timedelta(days=9))
    desk.start("s/w")
    assert desk.cas.sessions.require("s").record > before
    again = make_cas(desk.cas.store, roots=(), now=desk.cas.now, random=desk.cas.random)
    assert asyncio.run(read_session_hash(again, "s", caller=None)).hex() == second
