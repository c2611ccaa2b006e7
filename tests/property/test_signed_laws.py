"""Laws of signed and encrypted sessions: no input surprises, and more signatures never give fewer rights."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.signers import Person, ed25519_person, p384_person, signed

from ostiary.board import Operation, authorize
from ostiary.errors import InputError, NotAuthorizedError
from ostiary.session.encrypted import EncryptedSession, parse_encrypted_session
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    CreatorSubject,
    KeySubject,
    NoneSubject,
    RuleSubject,
    SignerSubject,
    Subject,
)
from ostiary.session.signed import Signature, VerifiedSigners, parse_signed_session, verify_signatures

PEOPLE = (ed25519_person(), p384_person(), ed25519_person(), ed25519_person())
DIGEST = b"h" * 32
SIGNATURES = {one: Signature(signer=one.pem, spki=one.spki, signature=one.sign(DIGEST)) for one in PEOPLE}
TEXT = 'version: "0.3.10"\nname: s\naccess_policy: {read: ANY, update: NONE}\n'
OLD_FORM = "LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM"
GOOD = json.loads(signed(TEXT, *PEOPLE[:2]))

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(
    [PEOPLE[0].pem, PEOPLE[1].pem, GOOD["signatures"][0]["signature"], OLD_FORM]
)  # fmt: skip
keys = (
    st.sampled_from(["session", "signatures", "signer", "signature", "encrypted_session", "encryption_key"]) | st.text()
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@given(documents)
def test_no_json_raises_anything_undocumented(document: object) -> None:
    for parse in (parse_signed_session, parse_encrypted_session):
        try:
            parse(json.dumps(document))
        except InputError:
            continue


@given(st.lists(scalars, min_size=2, max_size=2), st.lists(scalars, min_size=2, max_size=2))
def test_documents_of_the_right_form_with_any_values_raise_nothing_undocumented(
    first: list[object], second: list[object]
) -> None:
    signature = {"signer": first[0], "signature": first[1]}
    for members in (
        {"session": TEXT, "signatures": [signature]},
        {"session": second[0], "signatures": second[1]},
    ):
        try:
            parse_signed_session(json.dumps(members))
        except InputError:
            continue
    try:
        parse_encrypted_session(json.dumps({"encrypted_session": second[0], "encryption_key": second[1]}))
    except InputError:
        return


@given(st.binary() | st.text())
def test_no_text_or_bytes_raise_anything_undocumented(data: bytes | str) -> None:
    for parse in (parse_signed_session, parse_encrypted_session):
        try:
            parse(data)
        except InputError:
            continue


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_the_form_of_encrypted_sessions_comes_back_as_it_went_in(ciphertext: bytes, key: bytes) -> None:
    encrypted = EncryptedSession(ciphertext=ciphertext, key=key)
    assert parse_encrypted_session(encrypted.to_json()) == encrypted


@given(st.integers(0, 33), st.integers(0, 7), st.sampled_from(PEOPLE))
def test_any_flipped_bit_of_the_hash_refuses(at: int, bit: int, person: Person) -> None:
    changed = bytearray(DIGEST)
    changed[at % 32] ^= 1 << bit
    try:
        verify_signatures(bytes(changed), [SIGNATURES[person]])
    except InputError:
        return
    raise AssertionError("a signature of another hash held")


leaves: st.SearchStrategy[Subject] = st.sampled_from(
    [*(SignerSubject(spki=one.spki) for one in PEOPLE), CreatorSubject(), KeySubject(key_hash=b"k" * 32)]
)
rules: st.SearchStrategy[Subject] = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda needed, subjects: RuleSubject(needed=needed, subjects=tuple(subjects)),
        st.integers(0, 4),
        st.lists(inner, min_size=1, max_size=4),
    ),
    max_leaves=10,
)
crowds = st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=6)


def verified(people: list[Person]) -> VerifiedSigners:
    return verify_signatures(DIGEST, [SIGNATURES[one] for one in people])


def admitted(subject: Subject, people: list[Person], operation: Operation = Operation.UPDATE) -> bool:
    policy = AccessPolicy(**{"read": (NoneSubject(),), "update": (NoneSubject(),), operation.value: (subject,)})
    creator = SignerSubject(spki=PEOPLE[0].spki)
    try:
        authorize(operation, policy, session="s", creator=creator, caller=verified(people))
    except NotAuthorizedError:
        return False
    return True


@given(rules, crowds, crowds)
def test_more_signatures_never_give_fewer_rights(subject: Subject, people: list[Person], more: list[Person]) -> None:
    assert admitted(subject, [*people, *more]) or not admitted(subject, people)


@given(rules, crowds)
def test_neither_order_nor_repetition_of_signatures_matters(subject: Subject, people: list[Person]) -> None:
    once = list(dict.fromkeys(people))
    assert admitted(subject, [*people, *reversed(people)]) == admitted(subject, once)


@given(rules, crowds)
def test_no_rule_and_no_signer_admits_to_read(subject: Subject, people: list[Person]) -> None:
    assert not admitted(subject, people, Operation.READ)


@given(st.integers(1, 4), st.lists(leaves, min_size=1, max_size=6), crowds)
def test_at_least_n_are_n_people_unless_every_entry_is_satisfied(
    needed: int, entries: list[Subject], people: list[Person]
) -> None:
    """The creator is the first of the people, whichever entry names that one."""
    named = {
        PEOPLE[0].spki if isinstance(entry, CreatorSubject) else entry.spki
        for entry in entries
        if isinstance(entry, CreatorSubject | SignerSubject)
    }
    signed_by = {one.spki for one in people}
    rule = RuleSubject(needed=needed, subjects=tuple(entries))
    everything = all(admitted(entry, people) for entry in entries) and len(entries) >= needed
    assert admitted(rule, people) == (len(named & signed_by) >= needed or everything)


@given(crowds)
def test_everyone_is_admitted_by_any_and_nobody_by_none(people: list[Person]) -> None:
    assert admitted(AnySubject(), people)
    assert not admitted(NoneSubject(), people)
