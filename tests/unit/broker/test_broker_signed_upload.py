"""Signed uploads on a real store: whose signatures create, update and create below, and what stands in the log."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.simulators.signers import Person, ed25519_person, p384_person, signed
from tests.unit.session import pki

from ostiary.audit import Frontier
from ostiary.board import Caller
from ostiary.broker.open import make_cas
from ostiary.broker.read import read_session
from ostiary.broker.session_encryption import RECORD, public_encryption_key
from ostiary.broker.signed_upload import upload_encrypted_session, upload_signed_session
from ostiary.broker.upload import store_upload
from ostiary.errors import (
    ConflictError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    SessionFormatError,
    TamperedError,
)
from ostiary.session import SignerSubject, parse_session
from ostiary.session.encrypted import encrypt_session
from ostiary.session.signed import parse_signed_session, verify_signatures
from ostiary.store import Store, Write, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.broker.conftest import Desk

ANN, BEN, CEM, DAN = ed25519_person(), p384_person(), ed25519_person(), p384_person()


def text(name: str, access_policy: str, **more: str) -> str:
    return f'version: "0.3.12"\nname: {name}\naccess_policy: {access_policy}\n' + "".join(
        f"{key}: {value}\n" for key, value in more.items()
    )


def by(person: Person) -> str:
    """An entry of an access policy."""
    return f"{{signer: {person.quoted}}}"


def put(desk: Desk, session: str, *people: Person) -> str:
    """Upload signed; the hash in hex."""
    return asyncio.run(upload_signed_session(desk.cas, signed(session, *people))).session_hash.hex()


def owned(name: str, owner: Person, **more: str) -> str:
    """A session whose creator is a signer."""
    return text(name, "{read: ANY, update: CREATOR}", creator=by(owner), **more)


def test_a_session_is_created_and_updated_by_its_signer_and_by_nobody_else(desk: Desk, eve: Caller) -> None:
    first = put(desk, owned("s", ANN), ANN)
    with pytest.raises(NotAuthorizedError, match="insufficient rights to update session s"):
        put(desk, owned("s", BEN, predecessor=first), BEN)
    with pytest.raises(NotAuthorizedError, match="no caller of this key"):
        desk.upload(text("s", "{read: ANY}", predecessor=first), eve)
    with pytest.raises(NotAuthorizedError, match="update session s"):
        desk.upload(text("s", "{read: ANY, update: ANY}", predecessor=first), None)
    second = put(desk, owned("s", ANN, predecessor=first), ANN, DAN)
    stored = desk.cas.sessions.require("s")
    assert stored.parsed.hash.hex() == second
    assert stored.creator == SignerSubject(spki=ANN.spki)


def test_the_session_is_stored_with_the_very_hash_that_was_signed(desk: Desk) -> None:
    """Whatever the spelling of the text that was sent."""
    session = owned("s", BEN).replace("name: s", 'name:   "s"   # a comment')
    assert put(desk, session, BEN) == parse_session(session).hash.hex()


def test_the_creator_is_kept_over_a_restart_of_the_service(desk: Desk) -> None:
    first = put(desk, owned("s", ANN), ANN)
    again = make_cas(desk.cas.store, roots=(), now=desk.cas.now, random=desk.cas.random)
    assert again.sessions.require("s").creator == SignerSubject(spki=ANN.spki)
    body = signed(owned("s", BEN, predecessor=first), BEN)
    with pytest.raises(NotAuthorizedError):
        asyncio.run(upload_signed_session(again, body))


def test_rights_pass_between_signers_and_tls_clients_as_the_replaced_version_says(desk: Desk, alice: Caller) -> None:
    """A signed session may admit a certificate, and one uploaded over TLS a signer."""
    policy = f"{{read: ANY, update: [{by(ANN)}, {json.dumps(alice.certificate)}]}}"
    first = put(desk, text("s", policy), ANN)
    second = desk.upload(text("s", f"{{read: CREATOR, update: {by(BEN)}}}", predecessor=first), alice)
    with pytest.raises(NotAuthorizedError):
        put(desk, owned("s", ANN, predecessor=second), ANN)
    third = put(desk, owned("s", BEN, predecessor=second), BEN)
    with pytest.raises(NotAuthorizedError):
        desk.upload(text("s", "{}", predecessor=third), alice)


THREE = f"{{read: ANY, update: {{require-at-least-2: [{by(ANN)}, {by(BEN)}, {by(CEM)}]}}}}"


def test_f209_two_of_three(desk: Desk) -> None:
    """F209: two signatures of three suffice, one does not, and a stranger's does not make up for it."""
    first = put(desk, text("s", THREE), DAN)
    following = text("s", THREE, predecessor=first)
    for people in ((ANN,), (ANN, ANN), (ANN, DAN)):
        with pytest.raises(NotAuthorizedError, match="is not satisfied for 'update'"):
            put(desk, following, *people)
    second = put(desk, following, ANN, CEM)
    put(desk, text("s", THREE, predecessor=second), CEM, BEN, ANN)


def test_f209_one_bad_signature_refuses_all(desk: Desk) -> None:
    """F209: even where the others would suffice."""
    first = put(desk, text("s", THREE), DAN)
    following = text("s", THREE, predecessor=first)
    good, other = json.loads(signed(following, ANN, BEN)), json.loads(signed(text("t", THREE), CEM))
    body = json.dumps({**good, "signatures": [*good["signatures"], *other["signatures"]]}).encode()
    before = desk.cas.store.head
    with pytest.raises(InputError, match=r"signatures\[2\] does not hold"):
        asyncio.run(upload_signed_session(desk.cas, body))
    assert desk.cas.store.head == before
    put(desk, following, ANN, BEN)


GOVERNED = (
    f"{{read: ANY, update: {{require-at-least-1: [{by(DAN)}, {{require-all: [{by(ANN)}, "
    f"{{require-at-least-1: [{by(BEN)}, {by(CEM)}]}}]}}]}}}}"
)


@pytest.mark.parametrize(("people", "admitted"), [
    ((DAN,), True), ((ANN, BEN), True), ((ANN, CEM), True),
    ((ANN,), False), ((BEN, CEM), False), ((BEN,), False),
])  # fmt: skip
def test_f184_a_veto_and_an_owner_who_overrules(desk: Desk, people: tuple[Person, ...], admitted: bool) -> None:
    """F184: nested rules, at the service."""
    first = put(desk, text("s", GOVERNED), ANN)
    following = text("s", GOVERNED, predecessor=first)
    if admitted:
        put(desk, following, *people)
        return
    with pytest.raises(NotAuthorizedError, match="is not satisfied for 'update'"):
        put(desk, following, *people)


def test_f182_a_policy_may_name_a_key_in_either_form(desk: Desk) -> None:
    """F182: the entry in base58check admits who signs with the key in PEM, and the other way round.

    Nobody here has the private key of a published base58check text, so it is written by hand.
    """
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    body = bytes([10]) + ANN.spki[-32:]
    body += hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4]
    number, old_form = int.from_bytes(body, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        old_form = alphabet[digit] + old_form
    first = put(desk, text("s", f"{{read: ANY, update: {{signer: {old_form}}}}}"), DAN)
    second = put(desk, text("s", f"{{read: ANY, update: {by(ANN)}}}", predecessor=first), ANN)
    members = json.loads(signed(text("s", THREE, predecessor=second), ANN))
    members["signatures"][0]["signer"] = old_form
    asyncio.run(upload_signed_session(desk.cas, json.dumps(members).encode()))


@pytest.mark.parametrize("kind", ["P-256", "RSA-2048"])
def test_f182_other_keys_sign_nothing(desk: Desk, kind: str) -> None:
    """F182: RSA and P-256 are refused."""
    members = json.loads(signed(text("s", THREE), ANN))
    members["signatures"][0]["signer"] = pki.public_pem(pki.private_key(kind))
    with pytest.raises(InputError, match=f"Ed25519 or P-384, found {kind}"):
        asyncio.run(upload_signed_session(desk.cas, json.dumps(members).encode()))


@pytest.mark.parametrize(("policy", "says"), [
    (f"{{read: {by(ANN)}, update: NONE}}", "F183 signer has no meaning here"),
    (f"{{read: NONE, list_sessions: {by(ANN)}, update: NONE}}", "F183 signer has no meaning here"),
    (f"{{read: ANY, update: {{require-at-least-2: [{by(ANN)}]}}}}", "F185 at least 2 of 1 entries cannot be"),
    ("{read: ANY, update: {require-at-least-0: [CREATOR]}}", "F185 at least 0 of 1 entries cannot be"),
    ("{read: ANY, update: {require-all: []}}", "F185 require-all has no entries"),
    (f"{{read: ANY, update: {{require-all: [{by(ANN)}, {by(ANN)}]}}}}", "F185 the same signer stands twice"),
])  # fmt: skip
def test_f183_f185_no_signature_makes_up_for_a_policy_that_cannot_be(desk: Desk, policy: str, says: str) -> None:
    """F183, F185: refused by the service, too, and not only where the text is checked at home."""
    with pytest.raises(SessionFormatError, match=says.partition(" ")[2]):
        put_unchecked(desk, text("s", policy))
    assert desk.cas.sessions.current("s") is None


def put_unchecked(desk: Desk, session: str) -> None:
    """As `put`, of a text that has no hash: signed over another one."""
    asyncio.run(upload_signed_session(desk.cas, signed(session, ANN, over=text("x", THREE))))


def test_f186_a_signed_update_is_judged_by_the_version_that_it_replaces(desk: Desk) -> None:
    """F186: a new text cannot admit its own author."""
    first = put(desk, text("s", f"{{read: ANY, update: {by(ANN)}}}"), ANN)
    grab = text("s", f"{{read: ANY, update: {by(BEN)}}}", predecessor=first)
    with pytest.raises(NotAuthorizedError):
        put(desk, grab, BEN)
    second = put(desk, grab, ANN)
    with pytest.raises(NotAuthorizedError):
        put(desk, text("s", f"{{read: ANY, update: {by(ANN)}}}", predecessor=second), ANN)


def test_f187_a_signed_session_states_who_reads(desk: Desk) -> None:
    """F187: the default, CREATOR, would be a signer, and nobody reads with a signature."""
    with pytest.raises(SessionFormatError, match=r"set access_policy\.read to somebody else, or NONE"):
        put_unchecked(desk, f'version: "0.3.12"\nname: s\ncreator: {by(ANN)}\n')
    put(desk, text("s", "{read: NONE}", creator=by(ANN)), ANN)


def test_f187_creator_by_way_of_a_variable_reads_nothing_either(desk: Desk, alice: Caller) -> None:
    """F187: what the variable says is known only when it is asked."""
    more = {"creator": by(ANN), "secrets": "[{name: x, kind: ascii, value: CREATOR}]"}
    first = put(desk, text("s", "{read: $$SCONE::x$$, update: $$SCONE::x$$}", **more), ANN)
    for reader in (alice, Caller(certificate="", key_hash=hashlib.sha256(ANN.spki).digest(), key_bits_hash=b"")):
        with pytest.raises(NotAuthorizedError, match="access session s"):
            asyncio.run(read_session(desk.cas, "s", session_hash=None, caller=reader))
    put(desk, text("s", "{read: ANY, update: NONE}", predecessor=first), ANN)


def test_signers_create_below_a_namespace_that_admits_them(desk: Desk, eve: Caller) -> None:
    namespace = f"{{read: ANY, update: NONE, create_sessions: {{require-all: [{by(ANN)}, {by(BEN)}]}}}}"
    put(desk, text("ns", namespace), DAN)
    with pytest.raises(NotAuthorizedError, match="insufficient rights to create sessions in namespace ns"):
        put(desk, owned("ns/s", ANN), ANN)
    with pytest.raises(NotAuthorizedError, match="create sessions in namespace ns"):
        desk.upload('version: "0.3.12"\nname: ns/s\n', eve)
    put(desk, owned("ns/s", ANN), ANN, BEN)
    put(desk, owned("ns/s/deeper", ANN), ANN)


def test_history_and_namespace_are_judged_as_for_every_upload(desk: Desk) -> None:
    with pytest.raises(NotFoundError, match="Namespace not found"):
        put(desk, owned("none/s", ANN), ANN)
    with pytest.raises(NotFoundError, match="Session not found"):
        put(desk, owned("s", ANN, predecessor="ab" * 32), ANN)
    first = put(desk, owned("s", ANN), ANN)
    with pytest.raises(ConflictError, match="please specify predecessor hash"):
        put(desk, owned("s", ANN), ANN)
    put(desk, owned("s", ANN, predecessor=first), ANN)
    with pytest.raises(ConflictError, match="is not the hash of the current version"):
        put(desk, owned("s", ANN, predecessor=first), ANN)


@pytest.mark.parametrize(("session", "says"), [
    (text("s", "{read: ANY, update: CREATOR}"), "the signatures cover the creator, so the service cannot add it"),
    ('version: "0.3.12"\nname: s\n', "its access policy names CREATOR, explicitly or by default"),
    (owned("s", BEN), "creator is a key that did not sign"),
    (text("s", "{read: ANY}", creator=json.dumps(pki.certificate_pem())), "creator is a certificate"),
])  # fmt: skip
def test_the_creator_is_one_of_the_signers_and_stands_in_the_text(desk: Desk, session: str, says: str) -> None:
    before = desk.cas.store.head
    with pytest.raises(InputError, match=says):
        put(desk, session, ANN)
    assert desk.cas.store.head == before


def test_a_creator_that_nothing_refers_to_is_left_out_whoever_it_is(desk: Desk) -> None:
    put(desk, text("s", f"{{read: ANY, update: {by(ANN)}}}", creator=by(BEN)), ANN)
    assert desk.cas.sessions.require("s").parsed.session.creator is None


def test_signatures_of_one_session_store_no_other(desk: Desk) -> None:
    """Not even by a mistake of ours."""
    signatures = parse_signed_session(signed(text("a", THREE), ANN)).signatures
    signers = verify_signatures(parse_session(text("a", THREE)).hash, signatures)
    with pytest.raises(ValueError, match="signatures of another session"):
        asyncio.run(store_upload(desk.cas, parse_session(text("b", THREE)), signers))


def test_the_audit_log_names_the_signers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = spy(monkeypatch)
    put(desk, owned("s", ANN), BEN, ANN, BEN)
    (leaf,) = leaves
    assert (leaf["type"], leaf["data"]["session"]) == ("session_created", "s")
    assert leaf["data"]["signers"] == sorted(hashlib.sha256(one.spki).hexdigest() for one in (ANN, BEN))
    assert "by" not in leaf["data"]


def spy(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The leaves of all commits from now on; they are sealed in the store, where no test can read them."""
    leaves: list[dict[str, Any]] = []
    commit = Store.commit

    def watched(self: Store, writes: list[Write], leaf: bytes, **more: object) -> object:
        leaves.append(json.loads(leaf))
        return commit(self, writes, leaf, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "commit", watched)
    return leaves


def encrypted(desk: Desk, body: bytes) -> bytes:
    return encrypt_session(body.decode(), public_encryption_key(desk.cas.store)).to_json().encode()


def test_f210_an_encrypted_session_is_stored_as_the_signed_one_inside(desk: Desk) -> None:
    """F210: round trip."""
    body = signed(owned("s", ANN), ANN)
    uploaded = asyncio.run(upload_encrypted_session(desk.cas, encrypted(desk, body)))
    assert uploaded.session_hash == parse_session(owned("s", ANN)).hash
    assert desk.cas.sessions.require("s").creator == SignerSubject(spki=ANN.spki)


def test_f210_encryption_is_no_right(desk: Desk) -> None:
    """F210: what is inside must be signed, and well."""
    put(desk, owned("s", ANN), ANN)
    for inside, says in (
        (b"name: s", "a signed session must be JSON"),
        (owned("t", ANN).encode(), "a signed session must be JSON"),
        (signed(owned("t", ANN), ANN, over=owned("u", ANN)), "does not hold"),
        (encrypted(desk, b"{}"), "exactly the members session and signatures"),
    ):
        with pytest.raises(InputError, match=says):
            asyncio.run(upload_encrypted_session(desk.cas, encrypted(desk, inside)))
    with pytest.raises(ConflictError):
        asyncio.run(upload_encrypted_session(desk.cas, encrypted(desk, signed(owned("s", BEN), BEN))))


def test_f210_a_container_for_another_service_is_refused_with_help(desk: Desk) -> None:
    """F210."""
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    body = encrypt_session(signed(owned("s", ANN), ANN).decode(), other).to_json().encode()
    with pytest.raises(InputError, match=r"is encrypted for .* PUT /v1/signed_sessions"):
        asyncio.run(upload_encrypted_session(desk.cas, body))


def test_the_encryption_key_is_made_once_and_differs_between_services(desk: Desk, tmp_path: Path) -> None:
    own = public_encryption_key(desk.cas.store)
    again = make_cas(desk.cas.store, roots=(), now=desk.cas.now, random=desk.cas.random)
    assert public_encryption_key(again.store) == own
    with open_store(tmp_path / "other", random=desk.cas.random, log=Frontier(), warn=lambda _: None) as store:
        make_cas(store, roots=(), now=desk.cas.now, random=desk.cas.random)
        assert public_encryption_key(store) != own


def test_a_store_without_its_encryption_key_is_not_used(desk: Desk) -> None:
    record = desk.cas.store.get(RECORD)
    assert record is not None
    desk.cas.store.commit([Write(name=RECORD, value=b"short", expected_version=record.version)], b"leaf").result()
    with pytest.raises(TamperedError, match="encryption key is missing or has another size"):
        public_encryption_key(desk.cas.store)
