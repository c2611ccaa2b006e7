"""Who may read and update: a table of rules, most of them refusals."""

from __future__ import annotations

import hashlib

import pytest
from tests.simulators.signers import Person, ed25519_person, p384_person

from ostiary.board import Caller, Operation, authorize
from ostiary.errors import IdentityRequiredError, NotAuthorizedError, SessionFormatError
from ostiary.session import parse_session
from ostiary.session.base58 import encode_key_hash
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    CertificateHashSubject,
    CreatorSubject,
    KeySubject,
    NoneSubject,
    RuleSubject,
    SignerSubject,
    Subject,
    Variable,
)
from ostiary.session.placeholder import Placeholder
from ostiary.session.signed import Signature, VerifiedSigners, verify_signatures

ALICE, BOB, EVE = b"A" * 32, b"B" * 32, b"E" * 32
PEM = "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"
VARIABLE = Variable(placeholder=Placeholder(name="x"))


def tls(key_hash: bytes | None) -> Caller | None:
    """The caller with that key and a certificate of its own, or one without."""
    if key_hash is None:
        return None
    return Caller(certificate=PEM % key_hash[:1].decode(), key_hash=key_hash, key_bits_hash=key_hash[::-1].lower())


def key(key_hash: bytes) -> Subject:
    return KeySubject(key_hash=key_hash)


def certificate(key_hash: bytes) -> Subject:
    return CertificateHashSubject(pem_hash=hashlib.sha256((PEM % key_hash[:1].decode()).encode()).digest())


def rule(needed: int, *subjects: Subject) -> Subject:
    return RuleSubject(needed=needed, subjects=subjects)


def decide(
    *subjects: Subject,
    operation: Operation = Operation.UPDATE,
    creator: bytes | None = ALICE,
    caller: bytes | None = ALICE,
) -> None:
    """Ask with `subjects` for `operation`, and nobody for the other ones."""
    asked = {"read": (NoneSubject(),), "update": (NoneSubject(),), operation.value: subjects}
    policy = AccessPolicy(**asked)
    authorize(operation, policy, session="s", creator=creator, caller=tls(caller))


CHANGES = (Operation.UPDATE, Operation.CREATE_SESSIONS)

ADMITTED: dict[str, tuple[tuple[Subject, ...], bytes | None, bytes | None]] = {
    "ANY admits everyone": ((AnySubject(),), ALICE, EVE),
    "ANY admits a caller without certificate": ((AnySubject(),), ALICE, None),
    "CREATOR admits the creator's key": ((CreatorSubject(),), ALICE, ALICE),
    "a key admits its holder": ((KeySubject(key_hash=BOB),), ALICE, BOB),
    "the hash of a key's bits alone admits its holder": ((KeySubject(key_hash=b"b" * 32),), ALICE, BOB),
    "a certificate's hash admits that certificate": ((certificate(BOB),), ALICE, BOB),
    "one admitting subject of several is enough": ((CreatorSubject(), KeySubject(key_hash=BOB)), ALICE, BOB),
}

REFUSED: dict[str, tuple[tuple[Subject, ...], bytes | None, bytes | None]] = {
    "NONE admits nobody, the creator included": ((NoneSubject(),), ALICE, ALICE),
    "an empty list admits nobody": ((), ALICE, ALICE),
    "CREATOR does not admit another key": ((CreatorSubject(),), ALICE, EVE),
    "CREATOR admits nobody if no creator was recorded": ((CreatorSubject(),), None, ALICE),
    "a key does not admit another": ((KeySubject(key_hash=BOB),), ALICE, ALICE),
    "a certificate's hash does not admit another": ((certificate(BOB),), ALICE, ALICE),
    "a signer is never a TLS identity": ((SignerSubject(spki=ALICE),), ALICE, ALICE),
    "a variable that is not resolved admits nobody": ((VARIABLE,), ALICE, ALICE),
}

RULES: dict[str, tuple[Subject, bytes | None]] = {
    "require-all of one": (rule(1, key(BOB)), BOB),
    "require-all of entries that one identity is": (rule(2, key(ALICE), CreatorSubject()), ALICE),
    "require-at-least-1": (rule(1, key(BOB), SignerSubject(spki=b"")), BOB),
    "a rule in a rule": (rule(1, rule(2, SignerSubject(spki=b""), key(BOB)), rule(1, key(BOB), VARIABLE)), BOB),
}

BROKEN_RULES: dict[str, tuple[Subject, bytes | None]] = {
    "require-all with another key": (rule(2, key(ALICE), key(BOB)), BOB),
    "require-all with a signer": (rule(2, key(BOB), SignerSubject(spki=b"")), BOB),
    "require-all with an unresolved variable": (rule(2, key(BOB), VARIABLE), BOB),
    "two of three are two parties, not one identity twice": (rule(2, key(BOB), certificate(BOB), key(EVE)), BOB),
    "a rule in a rule that is not satisfied": (rule(1, rule(2, key(BOB), key(ALICE))), BOB),
    "more than there are": (rule(2, key(BOB)), BOB),
    "none needed of none": (rule(0), BOB),
    "none needed of others": (rule(0, key(ALICE)), BOB),
}


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("case", ADMITTED)
def test_admits(case: str, operation: Operation) -> None:
    subjects, creator, caller = ADMITTED[case]
    decide(*subjects, operation=operation, creator=creator, caller=caller)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, operation: Operation) -> None:
    subjects, creator, caller = REFUSED[case]
    with pytest.raises(NotAuthorizedError, match=f"no caller of this key for '{operation.value}'"):
        decide(*subjects, operation=operation, creator=creator, caller=caller)


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("case", RULES)
def test_a_rule_that_is_satisfied_admits(case: str, operation: Operation) -> None:
    subject, caller = RULES[case]
    decide(subject, operation=operation, caller=caller)


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("case", BROKEN_RULES)
def test_a_rule_that_is_not_satisfied_refuses(case: str, operation: Operation) -> None:
    subject, caller = BROKEN_RULES[case]
    with pytest.raises(NotAuthorizedError, match=f"no caller of this key for '{operation.value}'"):
        decide(subject, operation=operation, caller=caller)


def test_no_rule_admits_to_read() -> None:
    with pytest.raises(NotAuthorizedError, match="access session s"):
        decide(rule(1, key(BOB)), operation=Operation.READ, caller=BOB)


@pytest.mark.parametrize("subject", [CreatorSubject(), key(BOB), certificate(BOB), rule(1, rule(1, key(BOB)))])
def test_a_caller_without_certificate_is_told_to_show_one_where_a_key_could_be_admitted(subject: Subject) -> None:
    with pytest.raises(IdentityRequiredError, match="no client certificate was shown"):
        decide(subject, caller=None)


def test_a_caller_without_certificate_is_not_told_to_show_one_where_none_would_help() -> None:
    with pytest.raises(NotAuthorizedError):
        decide(NoneSubject(), caller=None)


def test_a_caller_without_certificate_is_not_told_to_show_that_of_a_creator_who_is_a_signer() -> None:
    with pytest.raises(NotAuthorizedError):
        authorize(Operation.UPDATE, AccessPolicy(), session="s", creator=SignerSubject(spki=b"k"), caller=None)


def test_a_missing_creator_and_a_missing_caller_are_not_equal() -> None:
    with pytest.raises(IdentityRequiredError):
        decide(CreatorSubject(), creator=None, caller=None)


def test_a_refusal_shows_the_hash_that_an_access_policy_would_have_to_name() -> None:
    with pytest.raises(NotAuthorizedError) as refusal:
        decide(KeySubject(key_hash=BOB), caller=EVE)
    assert str(refusal.value).endswith(f"add the key, whose hash here is {encode_key_hash(EVE)}")


def test_operations_are_judged_apart() -> None:
    """Who may read may not therefore update."""
    policy = AccessPolicy(read=(AnySubject(),), update=(CreatorSubject(),))
    authorize(Operation.READ, policy, session="s", creator=ALICE, caller=tls(EVE))
    with pytest.raises(NotAuthorizedError, match="insufficient rights to update session s"):
        authorize(Operation.UPDATE, policy, session="s", creator=ALICE, caller=tls(EVE))


def test_who_may_update_may_create_sessions_unless_the_policy_says_who() -> None:
    nobody, bob = (NoneSubject(),), (KeySubject(key_hash=BOB),)
    unsaid = AccessPolicy(read=nobody, update=bob)
    authorize(Operation.CREATE_SESSIONS, unsaid, session="s", creator=ALICE, caller=tls(BOB))
    said = AccessPolicy(read=nobody, update=bob, create_sessions=nobody)
    with pytest.raises(NotAuthorizedError, match="insufficient rights to create sessions in namespace s"):
        authorize(Operation.CREATE_SESSIONS, said, session="s", creator=ALICE, caller=tls(BOB))


@pytest.mark.parametrize("operation", Operation)
def test_a_policy_that_is_an_unresolved_variable_admits_nobody(operation: Operation) -> None:
    """F180."""
    with pytest.raises(NotAuthorizedError):
        authorize(operation, VARIABLE, session="s", creator=ALICE, caller=tls(ALICE))


ANN, BEN, CEM, DAN = ed25519_person(), p384_person(), ed25519_person(), ed25519_person()


def signers(*people: Person) -> VerifiedSigners:
    """Those who signed a session with some hash."""
    digest = b"h" * 32
    return verify_signatures(
        digest, [Signature(signer=one.pem, spki=one.spki, signature=one.sign(digest)) for one in people]
    )


def signer(person: Person) -> SignerSubject:
    return SignerSubject(spki=person.spki)


def asked(
    *subjects: Subject,
    by: VerifiedSigners,
    operation: Operation = Operation.UPDATE,
    creator: bytes | SignerSubject | None = None,
) -> None:
    policy = AccessPolicy(**{"read": (NoneSubject(),), "update": (NoneSubject(),), operation.value: subjects})
    authorize(operation, policy, session="s", creator=creator, caller=by)


TWO_OF_THREE = rule(2, signer(ANN), signer(BEN), signer(CEM))
VETO = rule(2, signer(DAN), TWO_OF_THREE)
OVERRULED = rule(1, CreatorSubject(), VETO)

SIGNED: dict[str, tuple[Subject, tuple[Person, ...]]] = {
    "ANY admits every signer": (AnySubject(), (ANN,)),
    "a signer": (signer(ANN), (ANN,)),
    "a signer beside another who stands nowhere": (signer(BEN), (ANN, BEN)),
    "CREATOR is the signer that the session names": (CreatorSubject(), (DAN,)),
    "two of three": (TWO_OF_THREE, (ANN, CEM)),
    "three of three": (TWO_OF_THREE, (ANN, BEN, CEM)),
    "veto and two of three": (VETO, (DAN, BEN, CEM)),
    "the owner overrules": (OVERRULED, (DAN,)),
    "or the others agree": (OVERRULED, (BEN, CEM, DAN)),
    "one signer who is every entry of require-all": (rule(2, CreatorSubject(), signer(DAN)), (DAN,)),
    "two parties in three entries": (rule(2, CreatorSubject(), signer(DAN), signer(ANN)), (DAN, ANN)),
}

NOT_SIGNED: dict[str, tuple[Subject, tuple[Person, ...]]] = {
    "another signer": (signer(ANN), (BEN,)),
    "NONE": (NoneSubject(), (ANN,)),
    "CREATOR is no other signer": (CreatorSubject(), (ANN,)),
    "a TLS key is no signer": (key(hashlib.sha256(ANN.spki).digest()), (ANN,)),
    "one of three": (TWO_OF_THREE, (ANN,)),
    "one of three and a stranger": (TWO_OF_THREE, (ANN, DAN)),
    "one of three, twice": (TWO_OF_THREE, (ANN, ANN)),
    "two of three without the veto": (VETO, (ANN, BEN)),
    "the veto alone": (VETO, (DAN,)),
    "the veto and one": (VETO, (DAN, ANN)),
    "nobody overrules without being the owner": (OVERRULED, (ANN, BEN)),
    "one signer in two of three entries is one party": (rule(2, CreatorSubject(), signer(DAN), signer(ANN)), (DAN,)),
    "also by way of a rule": (rule(2, signer(DAN), rule(1, signer(DAN)), signer(ANN)), (DAN,)),
    "an unresolved variable beside": (rule(2, VARIABLE, signer(ANN)), (ANN,)),
    "none needed": (rule(0), (ANN,)),
}


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("case", SIGNED)
def test_f184_f209_signatures_that_suffice_admit(case: str, operation: Operation) -> None:
    """F184, F209: require-all, require-at-least-N nested; each signer counts once."""
    subject, people = SIGNED[case]
    asked(subject, by=signers(*people), operation=operation, creator=signer(DAN))


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("case", NOT_SIGNED)
def test_f184_f209_signatures_that_do_not_suffice_refuse(case: str, operation: Operation) -> None:
    """F184, F209."""
    subject, people = NOT_SIGNED[case]
    with pytest.raises(NotAuthorizedError, match=f"not satisfied for '{operation.value}' by the signatures of "):
        asked(subject, by=signers(*people), operation=operation, creator=signer(DAN))


@pytest.mark.parametrize("subject", [signer(ANN), CreatorSubject(), rule(1, signer(ANN))])
def test_no_signature_admits_to_read(subject: Subject) -> None:
    with pytest.raises(NotAuthorizedError, match="access session s"):
        asked(subject, by=signers(ANN), operation=Operation.READ, creator=signer(ANN))


def test_a_creator_who_signed_is_not_the_tls_client_of_the_same_key_and_the_other_way_round() -> None:
    """Who signs may keep the key far from any connection; who connects proves nothing about a text."""
    key_hash = hashlib.sha256(ANN.spki).digest()
    client = Caller(certificate=PEM % "ann", key_hash=key_hash, key_bits_hash=key_hash)
    policy = AccessPolicy()
    for operation in Operation:
        with pytest.raises(NotAuthorizedError, match="no caller of this key"):
            authorize(operation, policy, session="s", creator=signer(ANN), caller=client)
        with pytest.raises(NotAuthorizedError, match="by the signatures of"):
            authorize(operation, policy, session="s", creator=key_hash, caller=signers(ANN))


def test_a_refusal_names_the_signers_that_were_counted_each_once() -> None:
    with pytest.raises(NotAuthorizedError) as refusal:
        asked(signer(CEM), by=signers(ANN, BEN, ANN))
    shown = sorted(encode_key_hash(hashlib.sha256(one.spki).digest()) for one in (ANN, BEN))
    assert f"by the signatures of {shown[0]} and {shown[1]}; collect" in str(refusal.value)


def test_the_deepest_rule_that_a_session_can_hold_is_decided() -> None:
    """The levels of a session bound its rules: one more is refused where it is read."""

    def text(levels: int) -> str:
        rules = (
            "{require-all: [" * levels + "{signer: LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM}" + "]}" * levels
        )
        return f'name: s\nversion: "0.3.12"\naccess_policy: {{read: ANY, update: {rules}}}\n'

    policy = parse_session(text(30)).session.access_policy
    with pytest.raises(NotAuthorizedError):
        authorize(Operation.UPDATE, policy, session="s", creator=None, caller=tls(ALICE))
    with pytest.raises(SessionFormatError, match="nested over 64 levels"):
        parse_session(text(31))
