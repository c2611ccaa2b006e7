"""Access policies."""

from __future__ import annotations

import hashlib

import pytest
from tests.unit.session import pki
from tests.unit.session.texts import HEAD, mistake, note, quiet, quoted, warning

from ostiary.session import (
    AccessPolicy,
    AnySubject,
    CertificateHashSubject,
    CreatorSubject,
    KeySubject,
    NoneSubject,
    names_creator,
    parse_session,
)

KEY_HASH = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"


def policy(text: str) -> AccessPolicy:
    found = quiet(f"{HEAD}access_policy: {text}").session.access_policy
    assert isinstance(found, AccessPolicy)
    return found


def test_what_is_not_given_is_creator_operation_by_operation() -> None:
    assert parse_session(HEAD).session.access_policy == AccessPolicy()
    assert policy("{}") == AccessPolicy(read=(CreatorSubject(),), update=(CreatorSubject(),))
    assert policy("{read: ANY}") == AccessPolicy(read=(AnySubject(),), update=(CreatorSubject(),))
    assert policy("{update: [NONE]}") == AccessPolicy(read=(CreatorSubject(),), update=(NoneSubject(),))


def test_keys_are_named_by_certificate_or_hash() -> None:
    """A renewed certificate of the same key is the same subject."""
    spki_hash = hashlib.sha256(pki.spki(pki.private_key())).digest()
    for serial in (1, 2):
        text = f"{{read: [CREATOR, {quoted(pki.certificate_pem(serial=serial))}, {KEY_HASH}]}}"
        assert policy(text).read == (
            CreatorSubject(),
            KeySubject(key_hash=spki_hash),
            KeySubject(key_hash=hashlib.sha256(b"example").digest()),
        )


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("{read: [ANY, CREATOR]}", "read[0]", '"ANY" must be the only entry'),
        ("{read: [CREATOR, NONE]}", "read[1]", '"NONE" must be the only entry'),
        ("{read: []}", "read", "an empty list admits nobody; write NONE"),
        ("{read: ~}", "read", "which would be the default"),
        ("{read: [CREATOR, ]}", None, ""),
        ("{read: [CREATOR, ~]}", "read[1]", "found an empty entry"),
        ("{read: [{}]}", "read[0]", "found an empty entry"),
        ("{read: [[CREATOR]]}", "read[0]", "found a list inside the list"),
        ("{read: [creator]}", "read[0]", "did you mean CREATOR?"),
        ("{read: [ALL]}", "read[0]", "expected CREATOR, ANY, NONE, a certificate or a key hash"),
        ("{read: [$voter]}", "read[0]", "template variable not replaced?"),
        (f"{{read: [{KEY_HASH[:-1]}s]}}", "read[0]", "its checksum is wrong"),
        ("{read: [LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM]}", "read[0]", "version 10, expected 1"),
        ("{read: [" + "ab" * 32 + "]}", "read[0]", "the hash of a certificate, which ended with 0.2"),
        ("{read: [$$SCONE::x$$]}", "read[0]", "names a secret that is not in secrets"),
        ("{update: [{signer: x}]}", "update[0].signer", "no public key of a signer"),
        ("{update: {require-at-least-2: [CREATOR]}}", "update.require-at-least-2", "write a number from 1 to 1"),
        ("{update: {require-all: []}}", "update.require-all", "has no entries"),
        ("{update: {require_all: [x]}}", "update.require_all", "did you mean require-all?"),
        ("{update: {xyz: [x]}}", "update.xyz", 'unknown entry "xyz"; expected CREATOR'),
        ("{create_sessions: []}", "create_sessions", "write NONE"),
        ("{raed: ANY}", "raed", "did you mean read?"),
        ("$$SCONE::x$$", "", "names a secret that is not in secrets"),
        ("[read]", "", "found a list, expected a mapping"),
    ],
)
def test_wrong_entries_are_refused(text: str, path: str | None, says: str) -> None:
    if path is None:
        assert policy(text).read == (CreatorSubject(),)
    else:
        assert says in mistake(f"{HEAD}access_policy: {text}", f"access_policy.{path}".removesuffix("."))


def test_wrong_certificates_are_refused_without_being_quoted() -> None:
    def says(pem: str) -> str:
        return mistake(f"{HEAD}access_policy: {{read: [{quoted(pem)}]}}", "access_policy.read[0]")

    certificate, key = pki.certificate_pem(), pki.private_key()
    assert "found PUBLIC KEY; write a certificate of this key" in says(pki.public_pem(key))
    assert says(pki.pkcs8_pem(key)) == "expected one PEM block CERTIFICATE, found PRIVATE KEY"
    assert "found CERTIFICATE, CERTIFICATE" in says(certificate * 2)
    assert "cannot be read as one" in says(certificate.replace("M", "N", 3))
    assert "a key that can be read, found one of an unknown type" in says(pki.odd_certificate_pem())


def test_0_2_has_hashes_of_certificates_and_none_of_keys() -> None:
    """F178."""
    head = 'name: a\nversion: "0.2"\naccess_policy: {read: [CREATOR, '
    assert "needs version 0.3.0, found 0.2" in mistake(f"{head}{KEY_HASH}]}}", "access_policy.read[1]")
    found = quiet(f"{head}{'ab' * 32}]}}").session.access_policy
    assert isinstance(found, AccessPolicy)
    assert found.read == (CreatorSubject(), CertificateHashSubject(pem_hash=b"\xab" * 32))
    text = 'name: a\nversion: "0.2"\naccess_policy: {read: NONE}'
    assert "expects everyone who may update to be able to read" in warning(text, "access_policy")


def test_policies_that_open_or_close_a_session_for_ever_are_pointed_out() -> None:
    text = f"{HEAD}access_policy: {{read: NONE, update: ANY}}"
    assert "everyone may replace this session" in warning(text, "access_policy.update")
    text = f"{HEAD}access_policy: {{read: ANY, update: NONE}}"
    assert "can never change" in note(text, "access_policy.update")


def test_the_creator_is_named_by_default_and_by_any_operation() -> None:
    closed = (NoneSubject(),)
    assert names_creator(AccessPolicy())
    assert names_creator(AccessPolicy(read=closed, update=(CreatorSubject(),)))
    assert names_creator(AccessPolicy(read=(CreatorSubject(),), update=closed))
    assert not names_creator(AccessPolicy(read=closed, update=(AnySubject(), KeySubject(key_hash=bytes(32)))))
