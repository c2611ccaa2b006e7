"""Configuration variables: what they stand for in each place, and that what is unfit never widens a right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.session import pki

from ostiary.board import Caller, Operation, authorize
from ostiary.broker.read import read_session
from ostiary.broker.variables import MAX_READ_NODES, MAX_READINGS, Variables
from ostiary.errors import NotAuthorizedError, OstiaryError, ReleaseRefusedError
from ostiary.session import JsonValue
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    BoardMember,
    CreatorSubject,
    KeySubject,
    NoneSubject,
    PolicyBoard,
    RuleSubject,
    Security,
    SecurityAttestation,
    Service,
    Session,
    Signer,
    SignerSubject,
    Subject,
    TcbRules,
    TeeFactors,
    TeeVariant,
    Variable,
    Variant,
    variables_in,
)
from ostiary.session.placeholder import Placeholder
from ostiary.session.policy_board import MAX_MEMBERS

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

X, Y = Variable(placeholder=Placeholder(name="x")), Variable(placeholder=Placeholder(name="y"))
A, B, C = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32
HASH = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"
KEY = KeySubject(key_hash=bytes.fromhex("50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c"))
SIGNER: JsonValue = {
    "signer": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAcKtAFLOMRitgqlXJgLRvctwmDlY+xowL6ed9nQDHbc8=\n"
    "-----END PUBLIC KEY-----\n"
}


def variables(version: str = "0.3.12", **values: JsonValue) -> Variables:
    """Variables of which those in `values` can be had."""

    def look_up(placeholder: Placeholder) -> JsonValue:
        if placeholder.name not in values:
            raise ReleaseRefusedError(f"there is no secret {placeholder.name}")
        return values[placeholder.name]

    return Variables(Session(version=version, name="s"), look_up)


# --- attestation

ATTESTATIONS: dict[str, tuple[tuple[Variant | Variable, ...], JsonValue, tuple[Variant, ...]]] = {
    "a variant": ((X,), {"mrenclave": A.hex()}, (Variant(mrenclave=(A,)),)),
    "variants spliced in": (
        (Variant(mrenclave=(C,)), X),
        [{"mrenclave": [A.hex()]}, {"mrenclave": B.hex()}],
        (Variant(mrenclave=(C,)), Variant(mrenclave=(A,)), Variant(mrenclave=(B,))),
    ),
    "a measurement": ((Variant(mrenclave=(X,)),), A.hex(), (Variant(mrenclave=(A,)),)),
    "measurements spliced in": (
        (Variant(mrenclave=(C, X)),), [A.hex(), B.hex()], (Variant(mrenclave=(C, A, B)),),
    ),
    "a signer": (
        (Variant(signer=X),),
        {"mrsigner": A.hex(), "isvprodid": 1, "isvsvn_min": 2},
        (Variant(signer=Signer(mrsigner=A, isvprodid=1, isvsvn_min=2)),),
    ),
    "a signer's hash": (
        (Variant(signer=Signer(mrsigner=X, isvprodid=1)),), A.hex(), (Variant(signer=Signer(mrsigner=A, isvprodid=1)),),
    ),
    "a number": (
        (Variant(signer=Signer(mrsigner=A, isvprodid=X)),), 7, (Variant(signer=Signer(mrsigner=A, isvprodid=7)),),
    ),
    "a number as text": (
        (Variant(signer=Signer(mrsigner=A, isvprodid=X, isvsvn_min=X, isvsvn_max=X)),),
        "7",
        (Variant(signer=Signer(mrsigner=A, isvprodid=7, isvsvn_min=7, isvsvn_max=7)),),
    ),
}  # fmt: skip

D, E = b"\xdd" * 48, b"\xee" * 48


def guest(tee: str, *measurements: tuple[str, tuple[bytes | Variable, ...]], **bounds: int | Variable) -> TeeVariant:
    return TeeVariant(tee=tee, factors=TeeFactors(measurements=measurements, **bounds))


TEES: dict[str, tuple[TeeVariant, JsonValue, TeeVariant]] = {
    "all factors": (
        TeeVariant(tee="tdx", factors=X), {"mrtd": D.hex(), "rtmr1": [E.hex()]},
        guest("tdx", ("mrtd", (D,)), ("rtmr1", (E,))),
    ),
    "what names the program": (guest("tdx", ("mrtd", (X,))), D.hex(), guest("tdx", ("mrtd", (D,)))),
    "what does not": (
        guest("tdx", ("mrtd", (D,)), ("rtmr1", (X,))), E.hex(), guest("tdx", ("mrtd", (D,)), ("rtmr1", (E,))),
    ),
    "several values": (
        guest("snp", ("measurement", (D, X))), [E.hex(), D.hex()], guest("snp", ("measurement", (D, E, D))),
    ),
    "a shorter one": (
        guest("snp", ("measurement", (D,)), ("family_id", (X,))), "ab" * 16,
        guest("snp", ("measurement", (D,)), ("family_id", (b"\xab" * 16,))),
    ),
    "bounds": (
        guest("snp", ("measurement", (D,)), guest_svn_min=X, vmpl_max=X), 2,
        guest("snp", ("measurement", (D,)), guest_svn_min=2, vmpl_max=2),
    ),
    "a bound as text": (
        guest("snp", ("measurement", (D,)), guest_svn_min=X), "12345",
        guest("snp", ("measurement", (D,)), guest_svn_min=12345),
    ),
    "the signer of an image": (guest("nitro", ("pcr8", (X,))), D.hex(), guest("nitro", ("pcr8", (D,)))),
    "a register": (
        guest("tpm", ("sha256:7", (X,)), ("sha256:11", (A,))), A.hex(),
        guest("tpm", ("sha256:7", (A,)), ("sha256:11", (A,))),
    ),
    "a register of the other bank": (guest("tpm", ("sha384:4", (X,))), D.hex(), guest("tpm", ("sha384:4", (D,)))),
    "all registers": (
        TeeVariant(tee="tpm", factors=X), {"pcrs": {"sha256": {"4": A.hex()}}}, guest("tpm", ("sha256:4", (A,))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TEES)
def test_factors_of_other_tees_are_what_the_secret_says(case: str) -> None:
    written, value, expected = TEES[case]
    resolver = variables(x=value)
    assert resolver.service(Service(name="s", attestation=(written,))).attestation == (expected,)
    assert resolver.failures == []


@pytest.mark.parametrize("case", TEES)
@pytest.mark.parametrize("value", [
    None, True, "", "zz", "ab" * 47, [], {}, {"mrtd": []}, {"rtmr1": "dd" * 48}, 4294967296, -1, "ANY", "$$SCONE::y$$",
    {"pcrs": {}}, {"mrtd": "dd" * 48, "more": 1},
], ids=repr)  # fmt: skip
def test_factors_of_other_tees_that_do_not_fit_keep_the_variable(case: str, value: JsonValue) -> None:
    written, _, _ = TEES[case]
    resolver = variables(x=value)
    service = Service(name="s", attestation=(written,))
    assert resolver.service(service) == service
    assert all("its value is not what the language takes in this place" in failure for failure in resolver.failures)


def test_a_whole_variant_for_another_tee_may_come_from_a_secret() -> None:
    resolver = variables(x=[{"nitro": {"pcr0": D.hex()}}, {"mrenclave": A.hex()}])
    resolved = resolver.service(Service(name="s", attestation=(X,)))
    assert resolved.attestation == (guest("nitro", ("pcr0", (D,))), Variant(mrenclave=(A,)))


def test_a_session_of_an_older_version_gets_no_variant_for_another_tee() -> None:
    resolver = variables("0.3.11", x={"nitro": {"pcr0": D.hex()}})
    assert resolver.service(Service(name="s", attestation=(X,))).attestation == (X,)


DAYS = timedelta(days=30)


@pytest.mark.parametrize(("written", "value", "expected"), [
    ({"max_age": X}, "30 days", {"max_age": DAYS}),
    ({"tcb": TcbRules(grace=X)}, "720h", {"tcb": TcbRules(grace=DAYS)}),
    ({"tcb": X}, {"grace": "30 days"}, {"tcb": TcbRules(grace=DAYS)}),
    ({"max_age": X}, "soon", {"max_age": X}),
    ({"max_age": X}, 30, {"max_age": X}),
    ({"max_age": X}, None, {"max_age": X}),
    ({"tcb": TcbRules(grace=X)}, "", {"tcb": TcbRules(grace=X)}),
    ({"tcb": X}, {}, {"tcb": X}),
    ({"tcb": X}, {"grace": "0 days"}, {"tcb": X}),
])  # fmt: skip
def test_durations_are_what_the_secret_says(
    written: dict[str, TcbRules | Variable], value: JsonValue, expected: dict[str, object]
) -> None:
    """One that cannot be read stays a variable, which refuses every start."""
    found = variables(x=value).security(Security(attestation=SecurityAttestation(**written)))  # type: ignore[arg-type]
    assert found == Security(attestation=SecurityAttestation(**expected))  # type: ignore[arg-type]


UNFIT: tuple[JsonValue, ...] = (
    None, True, "", "zz", A.hex()[:-2], [], {}, {"mrenclave": []}, {"mrsinger": A.hex()}, [A.hex(), "zz"], 70000,
    "70000", {"mrsigner": A.hex()}, {"mrenclave": A.hex(), "more": 1}, "ANY", "$$SCONE::y$$",
    "7 # comment", "- 1", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("case", ATTESTATIONS)
def test_an_attestation_has_what_the_secret_says(case: str) -> None:
    written, value, expected = ATTESTATIONS[case]
    resolver = variables(x=value)
    assert resolver.service(Service(name="s", attestation=written)).attestation == expected
    assert resolver.failures == []


@pytest.mark.parametrize("case", ATTESTATIONS)
def test_an_attestation_whose_secret_cannot_be_had_keeps_the_variable(case: str) -> None:
    written, _, _ = ATTESTATIONS[case]
    resolver = variables()
    service = Service(name="s", attestation=written)
    assert resolver.service(service) == service
    assert set(resolver.failures) == {"$$SCONE::x$$: there is no secret x"}


@pytest.mark.parametrize("value", UNFIT, ids=repr)
def test_a_measurement_that_does_not_fit_keeps_the_variable_and_is_not_quoted(value: JsonValue) -> None:
    resolver = variables(x=value)
    service = Service(name="s", attestation=(Variant(mrenclave=(A, X)),))
    assert resolver.service(service) == service
    assert resolver.failures == ["$$SCONE::x$$: its value is not what the language takes in this place"]


@pytest.mark.parametrize("value", UNFIT, ids=repr)
@pytest.mark.parametrize("written", [X, Variant(signer=X), Variant(signer=Signer(mrsigner=A, isvprodid=X))], ids=repr)
def test_a_part_that_does_not_fit_keeps_the_variable(written: Variant | Variable, value: JsonValue) -> None:
    service = Service(name="s", attestation=(written,))
    assert list(variables_in(variables(x=value).service(service))) == [X]


def test_platforms_have_what_the_secret_says() -> None:
    id_ = "INTEL_QE_ID:" + "ab" * 16
    assert variables(x=[id_, id_]).service(Service(name="s", platforms=(X,))).platforms == (b"\xab" * 16,) * 2
    assert variables(x=id_).service(Service(name="s", platforms=(bytes(16), X))).platforms[1] == b"\xab" * 16
    assert variables(x="ab" * 16).service(Service(name="s", platforms=(X,))).platforms == (X,)


# --- security


def test_a_whole_security_section_may_come_from_a_secret() -> None:
    value: JsonValue = {"attestation": {"tolerate": ["debug-mode"], "mode": "hardware"}}
    expected = Security(attestation=SecurityAttestation(tolerate=frozenset({"debug-mode"})))
    assert variables(x=value).security(X) == expected
    assert variables(x=value["attestation"]).security(Security(attestation=X)) == expected  # type: ignore[index,call-overload]


@pytest.mark.parametrize("value", [None, "", [], {"atestation": {}}, {"attestation": {"tolerate": ["all"]}}], ids=repr)
def test_a_section_that_is_no_section_is_never_replaced_by_defaults(value: JsonValue) -> None:
    assert variables(x=value).security(X) == X
    assert variables().security(X) == X


SECURITY: dict[str, tuple[SecurityAttestation, JsonValue, SecurityAttestation]] = {
    "mode": (SecurityAttestation(mode=X), "none", SecurityAttestation(mode="none")),
    "tolerate, one": (
        SecurityAttestation(tolerate=frozenset({X, "aepic-leak"})),
        "debug-mode",
        SecurityAttestation(tolerate=frozenset({"debug-mode", "aepic-leak"})),
    ),
    "tolerate, several": (
        SecurityAttestation(tolerate=frozenset({X})),
        ["debug-mode", "aepic-leak"],
        SecurityAttestation(tolerate=frozenset({"debug-mode", "aepic-leak"})),
    ),
    "advisories": (
        SecurityAttestation(ignore_advisories=frozenset({X, "INTEL-SA-00001"})),
        ["INTEL-SA-00002"],
        SecurityAttestation(ignore_advisories=frozenset({"INTEL-SA-00001", "INTEL-SA-00002"})),
    ),
    "all advisories": (
        SecurityAttestation(ignore_advisories=frozenset({X})),
        "*",
        SecurityAttestation(ignore_all_advisories=True),
    ),
    "url": (
        SecurityAttestation(mode="maa", url=X),
        "https://t.r.attest.azure.net/",
        SecurityAttestation(mode="maa", url="https://t.r.attest.azure.net"),
    ),
    "local": (SecurityAttestation(must_be_sgx_local=X), True, SecurityAttestation(must_be_sgx_local=True)),
    "password": (
        SecurityAttestation(one_time_password_shared_secret=X),
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        SecurityAttestation(one_time_password_shared_secret=b"12345678901234567890"),
    ),
}


@pytest.mark.parametrize("case", SECURITY)
def test_a_part_of_security_is_what_the_secret_says(case: str) -> None:
    written, value, expected = SECURITY[case]
    assert variables(x=value).security(Security(attestation=written)) == Security(attestation=expected)


@pytest.mark.parametrize(
    "value", [None, "", "none ", 1, {}, [[]], ["debug-mode", "all"], ["*", "INTEL-SA-00001"]], ids=repr
)
@pytest.mark.parametrize("case", SECURITY)
def test_a_part_of_security_that_does_not_fit_keeps_the_variable(case: str, value: JsonValue) -> None:
    written = SECURITY[case][0]
    assert list(variables_in(variables(x=value).security(Security(attestation=written)))) == [X]


def test_every_advisory_is_ignored_only_if_the_list_says_nothing_else() -> None:
    written = SecurityAttestation(ignore_advisories=frozenset({X, "INTEL-SA-00001"}))
    resolver = variables(x="*")
    assert resolver.security(Security(attestation=written)) == Security(attestation=written)
    assert resolver.failures == ["$$SCONE::x$$: * must be the only entry; remove it or the others"]


def test_the_other_members_of_security_too() -> None:
    written = Security(singleton_enclaves=X, service_access_token=Y)
    assert variables(x=True, y="token").security(written) == Security(
        singleton_enclaves=True, service_access_token="token"
    )
    assert variables(x="true", y="").security(written) == written


# --- access policy

CREATOR, ANY, NONE = CreatorSubject(), AnySubject(), NoneSubject()
RULE: JsonValue = {"require-all": [HASH, SIGNER]}

SUBJECTS: dict[str, tuple[tuple[Subject, ...], JsonValue, tuple[Subject, ...]]] = {
    "a key hash": ((CREATOR, X), HASH, (CREATOR, KEY)),
    "CREATOR": ((X,), "CREATOR", (CREATOR,)),
    "a list spliced in": ((X, KEY), ["CREATOR"], (CREATOR, KEY)),
    "ANY alone": ((X,), "ANY", (ANY,)),
    "ANY beside another is left out": ((KEY, X), "ANY", (KEY,)),
    "NONE beside another is left out": ((KEY, X), ["NONE"], (KEY,)),
    "ANY in a list with others is unfit": ((KEY, X), ["ANY", "CREATOR"], (KEY, X)),
    "an unfit entry is left out": ((X,), [HASH, "nobody"], (KEY,)),
    "no fit entry": ((X,), ["nobody", None], (X,)),
    "an empty list": ((X,), [], (X,)),
}


@pytest.mark.parametrize("operation", ["read", "update", "create_sessions", "list_sessions"])
@pytest.mark.parametrize("case", SUBJECTS)
def test_an_operation_admits_whom_the_secret_says(case: str, operation: str) -> None:
    written, value, expected = SUBJECTS[case]
    policy = AccessPolicy(**{operation: written})
    assert variables(x=value).access_policy(policy) == AccessPolicy(**{operation: expected})


def test_a_whole_policy_may_come_from_a_secret() -> None:
    value: JsonValue = {"read": ["ANY"], "update": HASH, "create_sessions": "NONE"}
    assert variables(x=value).access_policy(X) == AccessPolicy(read=(ANY,), update=(KEY,), create_sessions=(NONE,))


def test_what_a_policy_leaves_out_is_as_in_any_session() -> None:
    assert variables(x={"read": "ANY"}).access_policy(X) == AccessPolicy(read=(ANY,))


@pytest.mark.parametrize("value", [
    None, "ANY", ["ANY"], {"raed": ["ANY"]}, {"read": "ANY", "update": ["ANY", "CREATOR"]},
], ids=repr)  # fmt: skip
def test_a_policy_that_is_none_admits_nobody(value: JsonValue) -> None:
    assert variables(x=value).access_policy(X) == X


def test_in_read_signers_and_rules_of_a_secret_are_ignored() -> None:
    value: JsonValue = [HASH, SIGNER, RULE]
    resolver = variables(x=value)
    resolved = resolver.access_policy(AccessPolicy(read=(X,), update=(X,)))
    assert isinstance(resolved, AccessPolicy)
    assert resolved.read == (KEY,)
    assert [type(subject) for subject in resolved.update] == [KeySubject, SignerSubject, RuleSubject]
    whole = variables(x={"read": value, "update": "NONE"}).access_policy(X)
    assert whole == AccessPolicy(read=(KEY,), update=(NONE,))


RULES: dict[str, tuple[RuleSubject, JsonValue, RuleSubject]] = {
    "all of what was put in is needed": (
        RuleSubject(needed=2, subjects=(CREATOR, X)),
        [HASH, SIGNER],
        RuleSubject(needed=3, subjects=(CREATOR, KEY, SignerSubject(spki=b"")))),
    "of several as many as before": (
        RuleSubject(needed=1, subjects=(CREATOR, X)), HASH, RuleSubject(needed=1, subjects=(CREATOR, KEY)),
    ),
    "a rule in a rule": (
        RuleSubject(needed=1, subjects=(CREATOR, RuleSubject(needed=1, subjects=(X,)))),
        [HASH, "CREATOR"],
        RuleSubject(needed=1, subjects=(CREATOR, RuleSubject(needed=2, subjects=(KEY, CREATOR)))),
    ),
    "ANY is no party": (
        RuleSubject(needed=2, subjects=(CREATOR, X)), "ANY", RuleSubject(needed=2, subjects=(CREATOR, X)),
    ),
    "nobody is no party": (
        RuleSubject(needed=2, subjects=(CREATOR, X)), [], RuleSubject(needed=2, subjects=(CREATOR, X)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
def test_a_rule_needs_what_the_secret_says(case: str) -> None:
    written, value, expected = RULES[case]
    resolved = variables(x=value).access_policy(AccessPolicy(update=(written,)))
    assert isinstance(resolved, AccessPolicy)
    (rule,) = resolved.update
    assert isinstance(rule, RuleSubject)
    assert rule.needed == expected.needed
    assert [type(subject) for subject in rule.subjects] == [type(subject) for subject in expected.subjects]
    if "spki" not in repr(rule):
        assert rule == expected


def test_the_hash_of_a_certificate_counts_in_old_sessions_only() -> None:
    policy = AccessPolicy(update=(X,))
    assert variables("0.2", x="ab" * 32).access_policy(policy) != policy
    assert variables("0.3.12", x="ab" * 32).access_policy(policy) == policy


def test_what_is_read_is_bounded() -> None:
    resolver = variables(x=A.hex(), y=[HASH] * (MAX_READINGS + 1))
    service = Service(name="s", attestation=(Variant(mrenclave=(X,) * (MAX_READINGS + 1)),))
    (variant,) = resolver.service(service).attestation
    assert isinstance(variant, Variant)
    assert variant.mrenclave == (A,) * MAX_READINGS + (X,)
    assert resolver.failures == [
        f"$$SCONE::x$$: there are over {MAX_READINGS} values and entries to be read; put them into one fragment"
    ]
    assert variables(y=[HASH] * (MAX_READINGS + 1)).access_policy(AccessPolicy(update=(Y,))).update == (Y,)  # type: ignore[union-attr]


def test_the_size_of_what_is_read_is_bounded_too() -> None:
    """A start is asked for by anybody, and each value may be as large as a session."""
    large = [A.hex()] * MAX_READ_NODES
    resolver = variables(x=A.hex(), y=large)
    resolved = resolver.service(Service(name="s", attestation=(Variant(mrenclave=(X, Y, X)),)))
    (variant,) = resolved.attestation
    assert isinstance(variant, Variant)
    assert variant.mrenclave == (A, Y, X)
    why = f"the values to be read have over {MAX_READ_NODES} nodes together; write the section out"
    assert resolver.failures == [f"$$SCONE::y$$: {why}", f"$$SCONE::x$$: {why}"]


def test_certificates_of_a_service_may_come_from_a_secret(alice: Caller) -> None:
    written = SecurityAttestation(mode="maa", url="https://t.r.attest.azure.net", certificates=(X,))
    resolved = variables(x=alice.certificate).security(Security(attestation=written))
    unfit = variables(x="certificate").security(Security(attestation=written))
    assert isinstance(resolved, Security)
    assert isinstance(resolved.attestation, SecurityAttestation)
    assert resolved.attestation.certificates == (alice.certificate,)
    assert unfit == Security(attestation=written)


# --- policy board

PEM = pki.public_pem(pki.private_key("Ed25519"))
SPKI = pki.spki(pki.private_key("Ed25519"))
FIXED = BoardMember(name="a", signer=SignerSubject(spki=B), may_approve=True)
CHECKER = BoardMember(name="c", signer=X, may_reject=True)
BOARD = PolicyBoard(tolerated_faults=1, members=(FIXED, CHECKER), decide_within=timedelta(1), break_glass=2)


def test_a_members_key_is_what_the_secret_says_and_the_rest_of_the_board_stays() -> None:
    resolver = variables(x=PEM)
    assert resolver.policy_board(BOARD) == replace(
        BOARD, members=(FIXED, replace(CHECKER, signer=SignerSubject(spki=SPKI)))
    )
    assert resolver.failures == []


@pytest.mark.parametrize("value", [
    None, "", "CREATOR", HASH, [PEM], {"signer": PEM}, PEM * 2, PEM[:-30], PEM.replace("PUBLIC", "PRIVATE"),
    "$$SCONE::x$$", 7, True,
], ids=range(12))  # fmt: skip
def test_a_member_whose_key_is_none_is_nobody(value: JsonValue) -> None:
    resolver = variables(x=value)
    assert resolver.policy_board(BOARD) == BOARD
    assert resolver.failures == ["$$SCONE::x$$: its value is not what the language takes in this place"]


def test_a_member_whose_secret_cannot_be_had_is_nobody() -> None:
    resolver = variables()
    assert resolver.policy_board(BOARD) == BOARD
    assert resolver.failures == ["$$SCONE::x$$: there is no secret x"]


@pytest.mark.parametrize(("kind", "taken"), [("P-256", True), ("P-384", True), ("P-521", False), ("RSA-2048", False)])
def test_a_members_key_is_of_a_type_that_members_may_have(kind: str, taken: bool) -> None:
    key = pki.private_key(kind)
    (_, checker) = variables(x=pki.public_pem(key)).policy_board(BOARD).members
    assert checker.signer == (SignerSubject(spki=pki.spki(key)) if taken else X)


def test_a_board_of_as_many_variables_as_it_may_have_members_is_resolved() -> None:
    members = (CHECKER,) * MAX_MEMBERS
    resolved = variables(x=PEM).policy_board(replace(BOARD, members=members))
    assert list(variables_in(resolved)) == []


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 70000)
    | st.text(max_size=8)
    | st.sampled_from(["ANY", "CREATOR", HASH, "NONE"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["read", "update", "require-all", "mrenclave", "attestation", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(_JSON)
def test_whatever_a_secret_says_an_entry_admits_no_stranger_beside_others(value: JsonValue) -> None:
    policy = variables(x=value).access_policy(AccessPolicy(update=(KEY, X)))
    eve = Caller(certificate="eve", key_hash=C, key_bits_hash=C)
    with pytest.raises(NotAuthorizedError):
        authorize(Operation.UPDATE, policy, session="s", creator=A, caller=eve)


@given(_JSON)
def test_whatever_a_secret_says_nothing_else_is_raised(value: JsonValue) -> None:
    resolver = variables(x=value)
    resolver.access_policy(X)
    resolver.security(X)
    resolver.security(Security(attestation=X))
    resolver.policy_board(BOARD)
    resolver.service(Service(name="s", attestation=(X, Variant(mrenclave=(X,), signer=X)), platforms=(X,)))


# --- on a real store


def session(name: str, policy: str, *secrets: str) -> str:
    listed = "".join(f"- {{{secret}}}\n" for secret in secrets)
    return f'version: "0.3.12"\nname: {name}\naccess_policy: {policy}\nsecrets:\n{listed}'


def reads(desk: Desk, name: str, caller: Caller | None) -> bool:
    try:
        asyncio.run(read_session(desk.cas, name, session_hash=None, caller=caller))
    except OstiaryError:
        return False
    return True


def test_creator_in_an_imported_policy_is_that_of_the_importing_session(desk: Desk, alice: Caller, eve: Caller) -> None:
    fragment = "name: x, kind: config-fragment, value: {read: [CREATOR], update: NONE}, export: {namespace: /}"
    desk.upload(session("admin", "{read: NONE}", fragment), alice)
    desk.upload(session("app", "$$SCONE::x$$", "name: x, import: {session: admin, secret: x}"), eve)
    assert (reads(desk, "app", eve), reads(desk, "app", alice), reads(desk, "app", None)) == (True, False, False)


def test_a_policy_follows_the_session_that_it_comes_from(desk: Desk, alice: Caller, eve: Caller) -> None:
    def fragment(subject: str) -> str:
        return f"name: x, kind: config-fragment, value: [{subject}], export: {{session: app}}"

    first = desk.upload(session("admin", "{read: NONE}", fragment("CREATOR")), alice)
    app = session("app", "{read: $$SCONE::x$$, update: [CREATOR]}", "name: x, import: {session: admin, secret: x}")
    desk.upload(app, eve)
    assert reads(desk, "app", eve)
    assert not reads(desk, "app", alice)
    second = desk.upload(session("admin", "{read: NONE}", fragment("ANY")) + f"predecessor: {first}\n", alice)
    assert reads(desk, "app", None)
    desk.upload(session("admin", "{read: NONE}", "name: z, kind: ascii") + f"predecessor: {second}\n", alice)
    assert not reads(desk, "app", eve)


def test_a_certificate_and_an_ascii_secret_may_be_entries(desk: Desk, alice: Caller, eve: Caller) -> None:
    pem = eve.certificate.replace("\n", "\\n")
    desk.upload(session("a", "{read: [$$SCONE::cert$$, $$SCONE::word$$]}", f'name: cert, kind: x509, value: "{pem}"',
                        "name: word, kind: ascii, value: CREATOR"), alice)  # fmt: skip
    assert (reads(desk, "a", alice), reads(desk, "a", eve), reads(desk, "a", None)) == (True, True, False)


def test_an_update_is_judged_by_the_policy_as_it_is_at_the_commit(desk: Desk, alice: Caller, eve: Caller) -> None:
    desk.upload(
        session("admin", "{read: NONE}", f"name: x, kind: ascii, value: {HASH}, export: {{session: app}}"), alice
    )
    first = desk.upload(session("app", "{update: [$$SCONE::x$$]}", "name: x, import: {session: admin, secret: x}"), eve)
    with pytest.raises(NotAuthorizedError, match="update session app"):
        desk.upload(session("app", "{update: [CREATOR]}", "name: y, kind: ascii") + f"predecessor: {first}\n", eve)


def test_a_namespace_may_say_by_a_variable_who_creates_sessions(desk: Desk, alice: Caller, eve: Caller) -> None:
    values: Mapping[str, str] = {"open": "ANY", "closed": "NONE"}
    for name, value in values.items():
        fragment = f"name: x, kind: config-fragment, value: {value}"
        desk.upload(session(name, "{create_sessions: $$SCONE::x$$}", fragment), alice)
    desk.upload(session("open/s", "{read: ANY}", "name: y, kind: ascii"), eve)
    with pytest.raises(NotAuthorizedError, match="create sessions in namespace closed"):
        desk.upload(session("closed/s", "{read: ANY}", "name: y, kind: ascii"), eve)
