"""Signed sessions: which bytes are signed, whose signatures hold, and that one bad signature refuses all."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from tests.simulators.signers import Person, ed25519_person, p384_person, signed
from tests.unit.session import pki

from ostiary.errors import InputError, TooLargeError
from ostiary.session import parse_session
from ostiary.session import signed as module
from ostiary.session.signed import (
    Signature,
    SignedSession,
    VerifiedSigners,
    message_to_be_signed,
    parse_signed_session,
    read_signature,
    verify_signatures,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "session-hash"
ALICE, BOB = ed25519_person(), p384_person()
TEXT = 'version: "0.3.10"\nname: s\naccess_policy: {read: ANY, update: NONE}\n'
HASH = parse_session(TEXT).hash
OLD_FORM = "LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM"


def made_by(person: Person, signature: bytes | None = None) -> Signature:
    return Signature(
        signer=person.pem, spki=person.spki, signature=person.sign(HASH) if signature is None else signature
    )


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("name", ["osv-scan-0", "osv-ca-challenge-0"])
def test_f208_published_signatures_hold_and_a_flipped_bit_refuses(name: str) -> None:
    """F208: over the bytes 00 01 and the session hash."""
    folder = VECTORS / name
    text, pem = (folder / "session.yml").read_text(), (folder / "signer.pem").read_text()
    document = {
        "session": text,
        "signatures": [{"signer": pem, "signature": (folder / "signature.txt").read_text().strip()}],
    }
    parsed = parse_signed_session(json.dumps(document))
    digest = parse_session(parsed.text).hash
    (signature,) = parsed.signatures
    assert verify_signatures(digest, parsed.signatures).keys == {signature.spki}
    for at in (0, len(digest) - 1):
        with pytest.raises(InputError, match=r"signatures\[0\] does not hold"):
            verify_signatures(flipped(digest, at), parsed.signatures)
    broken = Signature(signer=pem, spki=signature.spki, signature=flipped(signature.signature, 40))
    with pytest.raises(InputError, match=r"signatures\[0\] does not hold"):
        verify_signatures(digest, [broken])


def test_the_message_has_34_bytes() -> None:
    assert message_to_be_signed(HASH) == b"\x00\x01" + HASH
    assert len(message_to_be_signed(HASH)) == 34


def test_both_key_types_sign_and_each_signer_counts_once() -> None:
    """F209: a duplicate signer counts once."""
    verified = verify_signatures(HASH, [made_by(ALICE), made_by(BOB), made_by(ALICE), made_by(BOB)])
    assert verified.keys == {ALICE.spki, BOB.spki}
    assert verified.session_hash == HASH


@pytest.mark.parametrize("at", [0, 1, 2])
def test_f209_one_signature_that_does_not_hold_refuses_all(at: int) -> None:
    """F209: also where its signer signed well beside it."""
    signatures = [made_by(ALICE), made_by(BOB)]
    signatures.insert(at, made_by(ALICE, BOB.sign(HASH)))
    with pytest.raises(InputError, match=rf"signatures\[{at}\] does not hold.*sign it again"):
        verify_signatures(HASH, signatures)


@pytest.mark.parametrize("signature", [b"", b"\x00" * 64, ALICE.sign(b"\x00" * 32), ALICE.sign(HASH)[:-1]])
def test_what_is_no_signature_of_this_session_refuses(signature: bytes) -> None:
    with pytest.raises(InputError, match="does not hold"):
        verify_signatures(HASH, [made_by(ALICE, signature)])


def test_p384_signs_with_sha_384_and_no_other_hash() -> None:
    assert isinstance(BOB.key, ec.EllipticCurvePrivateKey)
    other = BOB.key.sign(message_to_be_signed(HASH), ec.ECDSA(SHA256()))
    with pytest.raises(InputError, match="does not hold"):
        verify_signatures(HASH, [made_by(BOB, other)])


def test_no_signature_verifies_nothing() -> None:
    with pytest.raises(InputError, match="there is no signature"):
        verify_signatures(HASH, [])


def test_a_key_of_another_type_signs_nothing_even_if_it_got_past_the_parser() -> None:
    key = pki.private_key("P-256")
    with pytest.raises(InputError, match="does not hold"):
        verify_signatures(HASH, [Signature(signer="", spki=pki.spki(key), signature=b"x")])


def test_verified_signers_are_made_by_verifying_and_nowhere_else() -> None:
    with pytest.raises(TypeError, match="made by verify_signatures"):
        VerifiedSigners(session_hash=HASH, keys=frozenset({ALICE.spki}), made_by=object())


def document(**members: object) -> str:
    return json.dumps({**json.loads(signed(TEXT, ALICE, BOB)), **members})


def with_signature(**members: object) -> str:
    first, second = json.loads(signed(TEXT, ALICE, BOB))["signatures"]
    return document(signatures=[first, {**second, **members}])


def test_the_json_form_comes_back_as_it_went_in() -> None:
    parsed = parse_signed_session(signed(TEXT, ALICE, BOB))
    assert parsed.text == TEXT
    assert [one.spki for one in parsed.signatures] == [ALICE.spki, BOB.spki]
    assert parse_signed_session(parsed.to_json()) == parsed
    assert "name: s" not in repr(parsed)


def test_the_older_forms_of_key_and_signature_are_read() -> None:
    """F182: base58check, version 10; 128 hex digits."""
    parsed = parse_signed_session(with_signature(signer=OLD_FORM, signature="AB" * 64))
    assert parsed.signatures[1].signature == b"\xab" * 64
    assert parsed.signatures[1].spki == base64.b64decode("MCowBQYDK2VwAyEAOsufQ7RCOXueVLQBpk7Y44GAaj+LzPbmHfdr/TPdlrE=")
    assert json.loads(parsed.to_json())["signatures"][1]["signer"] == OLD_FORM


@pytest.mark.parametrize(("text", "says"), [
    ("name: s", "a signed session must be JSON, and this is not"),
    (b"\xff\xfe", "a signed session must be JSON, and this is not"),
    ("[" * 100_000, "a signed session must be JSON, and this is not"),
    ("[]", "a JSON object with exactly the members session and signatures"),
    ('{"session": "x"}', "a JSON object with exactly the members session and signatures"),
    (document(policy="x"), "a JSON object with exactly the members session and signatures"),
    (document(session={"name": "s"}), "session must be the YAML text of the session, as one JSON string"),
    (document(signatures=[]), "signatures must be a list with at least one signature; sign the session"),
    (document(signatures={}), "signatures must be a list with at least one signature"),
    (document(signatures=["x"]), r"signatures\[0\] must be an object with exactly the members signer and signature"),
    (with_signature(key="x"), r"signatures\[1\] must be an object with exactly the members signer and signature"),
    (with_signature(signature=5), r"signatures\[1\]: signer and signature must both be text"),
    (with_signature(signature="###"), r"signatures\[1\]\.signature: it is neither base64 nor 128 hex digits"),
    (with_signature(signature="QUJD\nREVG"), r"signatures\[1\]\.signature: it is neither base64 nor 128 hex digits"),
    (with_signature(signature=""), r"signatures\[1\]\.signature: it has 0 bytes, expected 1 to 128"),
    (with_signature(signature="A" * 400), r"signatures\[1\]\.signature: it has 300 bytes, expected 1 to 128"),
    (with_signature(signer="ecdsa-sha2-nistp384 AAAA"), r"\.signer: no public key of a signer: it is in OpenSSH's"),
    (with_signature(signer="./pub.pem"), r"\.signer: no public key of a signer: it looks like the name of a file"),
    (with_signature(signer="0O"), r"signatures\[1\]\.signer: no public key of a signer: it is not base58check"),
    (with_signature(signer="\ud800"), r"signatures\[1\]\.signer: no public key of a signer"),
    (with_signature(signer="-----BEGIN PUBLIC KEY-----\ud800"), r"signatures\[1\]\.signer: no public key of a signer"),
    (with_signature(signer=pki.public_pem(pki.private_key("P-256"))), "type Ed25519 or P-384, found P-256"),
    (with_signature(signer=pki.public_pem(pki.private_key("RSA-2048"))), "Ed25519 or P-384, found RSA-2048"),
    (with_signature(signer=pki.pkcs8_pem(ALICE.key)), "expected one PEM block PUBLIC KEY"),
    (with_signature(signer=pki.certificate_pem()), "expected one PEM block PUBLIC KEY"),
    (with_signature(signer="3s1pm8W6Be6cxvAQRbRP5YXd9YuERAr7KswN97uGtoPkRW87x1"), "version 1, expected 10"),
])  # fmt: skip
def test_what_is_no_signed_session_is_refused_by_place(text: str | bytes, says: str) -> None:
    """F182: RSA and P-256 are refused."""
    with pytest.raises(InputError, match=says) as caught:
        parse_signed_session(text)
    assert "PRIVATE KEY-----\n" not in str(caught.value)


def test_the_number_of_signatures_and_the_size_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = parse_signed_session(signed(TEXT, ALICE)).signatures
    most = SignedSession(text=TEXT, signatures=(one,) * module.MAX_SIGNATURES)
    assert len(parse_signed_session(most.to_json()).signatures) == module.MAX_SIGNATURES
    over = SignedSession(text=TEXT, signatures=(one,) * (module.MAX_SIGNATURES + 1))
    with pytest.raises(TooLargeError, match="there are 65 signatures, at most 64"):
        parse_signed_session(over.to_json())
    monkeypatch.setattr(module, "MAX_SIGNED_BYTES", 100)
    with pytest.raises(TooLargeError, match="more than 100 bytes"):
        parse_signed_session(most.to_json())


def test_a_signature_is_hex_only_in_the_older_length() -> None:
    assert read_signature("ab" * 64) == b"\xab" * 64
    assert read_signature("abcd") == base64.b64decode("abcd")
