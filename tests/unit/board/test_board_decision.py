"""Whose signatures of decisions hold: those made elsewhere too, and for nothing but what was decided."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from tests.simulators.board_members import FACTS, Decider, ed25519_decider, p256_decider, p384_decider
from tests.simulators.signers import ed25519_person

from ostiary.board import (
    MAX_REASON_CHARS,
    Choice,
    ProposalFacts,
    VerifiedDecision,
    decision_message,
    verify_decision,
)
from ostiary.errors import InputError, TooLargeError

OPENSSL_SECONDS = 60
DECIDERS = {"Ed25519": ed25519_decider(), "P-384": p384_decider(), "P-256": p256_decider()}
ANN = DECIDERS["Ed25519"]
MESSAGE = """ostiary-board-decision-v1
cas 6363636363636363636363636363636363636363636363636363636363636363
session shop/web
proposal %s
break-glass no
decision approve
reason "looks \\"good\\""
"""


def verify(
    signature: bytes,
    *,
    facts: ProposalFacts = FACTS,
    signer: bytes = ANN.spki,
    choice: Choice = Choice.APPROVE,
    reason: str = "",
) -> VerifiedDecision:
    return verify_decision(facts, signer=signer, choice=choice, reason=reason, signature=signature)


def test_what_is_signed_is_a_text_that_says_what_is_decided() -> None:
    expected = (MESSAGE % FACTS.proposal_hash().hex()).encode()
    assert decision_message(FACTS, Choice.APPROVE, 'looks "good"') == expected


@pytest.mark.parametrize("choice", Choice)
@pytest.mark.parametrize("who", DECIDERS)
def test_the_decision_of_each_type_of_key_verifies(who: str, choice: Choice) -> None:
    decider = DECIDERS[who]
    found = verify(decider.decide(FACTS, choice.value, "é"), signer=decider.spki, choice=choice, reason="é")
    assert (found.proposal, found.key, found.choice, found.reason) == (
        FACTS.proposal_hash(), decider.spki, choice, "é",
    )  # fmt: skip


@pytest.mark.parametrize(("algorithm", "sign"), [
    (("ED25519",), ("pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "message", "-out", "signature")),
    (("EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
     ("dgst", "-sha384", "-sign", "key.pem", "-out", "signature", "message")),
    (("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
     ("dgst", "-sha256", "-sign", "key.pem", "-out", "signature", "message")),
], ids=["Ed25519", "P-384", "P-256"])  # fmt: skip
def test_signatures_of_the_openssl_program_verify(
    tmp_path: Path, algorithm: tuple[str, ...], sign: tuple[str, ...]
) -> None:
    """And hold for nothing but the message that it was given."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True, timeout=OPENSSL_SECONDS)

    (tmp_path / "message").write_bytes(decision_message(FACTS, Choice.REJECT, "no debug mode, please"))
    openssl("genpkey", "-algorithm", *algorithm, "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
    openssl(*sign)
    public = load_pem_public_key((tmp_path / "public.pem").read_bytes())
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = (tmp_path / "signature").read_bytes()
    found = verify(signature, signer=spki, choice=Choice.REJECT, reason="no debug mode, please")
    assert (found.key, found.choice) == (spki, Choice.REJECT)
    with pytest.raises(InputError, match="the signature does not hold"):
        verify(signature, signer=spki, choice=Choice.APPROVE, reason="no debug mode, please")


@pytest.mark.parametrize("who", DECIDERS)
@pytest.mark.parametrize("change", [
    {"cas": b"d" * 32},
    {"session": "shop/wwb"},
    {"predecessor": None},
    {"predecessor": b"q" * 32},
    {"session_hash": b"i" * 32},
    {"break_glass": True},
    {"created": FACTS.created + timedelta(seconds=1)},
    {"nonce": b"m" * 16},
    {"note": "swapped"},
], ids=" ".join)  # fmt: skip
def test_a_decision_about_another_proposal_does_not_hold(who: str, change: dict[str, object]) -> None:
    """Of another CAS, session, predecessor, version, kind, time, or just another proposal of the same."""
    decider = DECIDERS[who]
    other = replace(FACTS, **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did not sign to approve proposal") as error:
        verify(decider.decide(other, "approve"), signer=decider.spki)
    assert FACTS.proposal_hash().hex() in str(error.value)
    assert "review the proposal and sign again" in str(error.value)


@pytest.mark.parametrize(("signed", "claimed"), [("reject", Choice.APPROVE), ("withdraw", Choice.REJECT)])
def test_another_choice_than_the_one_signed_does_not_hold(signed: str, claimed: Choice) -> None:
    with pytest.raises(InputError, match=f"did not sign to {claimed.value}"):
        verify(ANN.decide(FACTS, signed), choice=claimed)


@pytest.mark.parametrize("claimed", ["", "Because", "because ", 'because"\nreason "x'])
def test_another_reason_than_the_one_signed_does_not_hold(claimed: str) -> None:
    with pytest.raises(InputError, match="with this reason"):
        verify(ANN.decide(FACTS, "approve", "because"), reason=claimed)


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\xff" * 64, b"0" * 200])
@pytest.mark.parametrize("who", DECIDERS)
def test_bytes_that_are_no_signature_do_not_hold(who: str, signature: bytes) -> None:
    with pytest.raises(InputError, match="does not hold"):
        verify(signature, signer=DECIDERS[who].spki)


def test_the_signature_of_somebody_else_does_not_hold() -> None:
    with pytest.raises(InputError, match="does not hold"):
        verify(ed25519_decider().decide(FACTS, "approve"))


def test_the_signature_of_a_session_is_no_decision() -> None:
    """One key signs both, and neither is ever worth the other."""
    person = ed25519_person()
    with pytest.raises(InputError, match="does not hold"):
        verify(person.sign(FACTS.session_hash), signer=person.spki)


@pytest.mark.parametrize(("key", "expected"), [
    (rsa.generate_private_key(public_exponent=65537, key_size=2048), "of a type that does not decide"),
    (ec.generate_private_key(ec.SECP521R1()), "of a type that does not decide"),
    (ec.generate_private_key(ec.SECP256K1()), "of a type that does not decide"),
], ids=["RSA", "P-521", "secp256k1"])  # fmt: skip
def test_keys_of_other_types_do_not_decide(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, expected: str) -> None:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InputError, match=f"{expected}, expected Ed25519 or P-384 or P-256"):
        verify(b"x", signer=spki)


@pytest.mark.parametrize("signer", [b"", b"x", ANN.spki[:-1], ANN.spki + b"\0"])
def test_bytes_that_are_no_key_do_not_decide(signer: bytes) -> None:
    with pytest.raises(InputError, match="no public key that can be read"):
        verify(ANN.decide(FACTS, "approve"), signer=signer)


def test_a_key_written_in_another_way_is_the_same_member() -> None:
    """A point can be compressed in DER: one member must not become two, nor a stranger."""
    decider = DECIDERS["P-256"]
    point = decider.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    written = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    assert written != decider.spki
    assert verify(decider.decide(FACTS, "approve"), signer=written).key == decider.spki


def test_a_reason_has_a_bound_and_whole_characters() -> None:
    longest = "é" * MAX_REASON_CHARS
    assert verify(ANN.decide(FACTS, "approve", longest), reason=longest).reason == longest
    with pytest.raises(TooLargeError, match="the reason has 1001 characters, at most 1000"):
        verify(b"", reason=longest + "é")
    with pytest.raises(InputError, match="the reason is not text: it has half a surrogate pair"):
        verify(b"", reason="\udfff")


def test_nobody_else_makes_a_verified_decision() -> None:
    with pytest.raises(TypeError, match="made by verify_decision"):
        VerifiedDecision(proposal=b"", key=b"", choice=Choice.APPROVE, reason="", made_by=None)


def test_a_decision_can_be_sent_again_and_verifies_again() -> None:
    """So what must not count twice is for whoever counts, by key: see `check_caution` and `count`."""
    signature = ANN.decide(FACTS, "approve")
    assert verify(signature) == verify(signature)


def test_deciders_of_the_tests_sign_as_the_product_does() -> None:
    """The simulator writes the message out apart; a member of another language would do the same."""
    assert isinstance(ANN, Decider)
    assert ANN.decide(FACTS, "withdraw", "x") == ANN.sign(decision_message(FACTS, Choice.WITHDRAW, "x"))
