"""What a board member should look at first: each kind of risk by an example, and nothing which widens left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
from tests.simulators.board_members import board, member

from ostiary.board.risk import RiskKind, risks
from ostiary.session import parse_session
from ostiary.session.diff import Effect, differences
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    AsciiSecret,
    BinarySecret,
    CreatorSubject,
    HostArgument,
    Image,
    ImageVolume,
    ImportedSecret,
    ImportedVolume,
    InjectionFile,
    KeySubject,
    KeyVault,
    NamespaceTarget,
    NoneSubject,
    Security,
    SecurityAttestation,
    Service,
    Session,
    SessionTarget,
    SignerSubject,
    TcbRules,
    Variable,
    Variant,
    Volume,
    VolumeExport,
)
from ostiary.session.placeholder import Placeholder, parse_template

A, B = b"\xaa" * 32, b"\xbb" * 32
VARIABLE = Variable(placeholder=Placeholder(name="v"))
APP = Service(name="app", image_name="img", attestation=(Variant(mrenclave=(A,)),))
IMAGE = Image(name="img", volumes=(ImageVolume(name="data", path="/data"),))
BOARD = board(1, member(A), member(B))
SECRET = AsciiSecret(name="k", size=8)
SESSION = Session(
    version="0.3.12", name="s", services=(APP,), images=(IMAGE,), secrets=(SECRET,), volumes=(Volume(name="data"),),
    access_policy=AccessPolicy(read=(CreatorSubject(),), update=(NoneSubject(),)), policy_board=BOARD,
)  # fmt: skip

UNBOARDED = replace(SESSION, policy_board=None)


def app(**changes: object) -> Session:
    return replace(SESSION, services=(replace(APP, **changes),))  # type: ignore[arg-type]


def img(**changes: object) -> Session:
    return replace(SESSION, images=(replace(IMAGE, **changes),))  # type: ignore[arg-type]


def secret(**changes: object) -> Session:
    return replace(SESSION, secrets=(replace(SECRET, **changes),))  # type: ignore[arg-type]


def attested(**rules: object) -> Session:
    return replace(SESSION, security=Security(attestation=SecurityAttestation(**rules)))  # type: ignore[arg-type]


def secured(**rules: object) -> Session:
    return replace(SESSION, security=Security(**rules))  # type: ignore[arg-type]


def access(**operations: object) -> Session:
    changed = replace(SESSION.access_policy, **operations)  # type: ignore[arg-type]
    return replace(SESSION, access_policy=changed)


STRANGER = (KeySubject(key_hash=b"k" * 32),)
FILE = InjectionFile(path="/a", content=parse_template("x"), permission=0o600)


@pytest.mark.parametrize(("after", "kind", "sentence"), [
    (replace(SESSION, policy_board=board(0, member(A), member(B))), "changes-board",
     "lets any 1 of the policy board approve a change, before 2"),
    (replace(SESSION, policy_board=board(1, member(A), member(B), member(b"c" * 32))), "changes-board", "adds "),
    (replace(SESSION, policy_board=board(1, member(A), member(B, power="reject"))), "changes-board",
     "of the policy board reject alone"),
    (replace(SESSION, policy_board=None), "changes-board", "removes the policy board: any 2 of "),
    (access(create_sessions=(CreatorSubject(),)), "changes-board",
     "takes create_sessions from the policy board and gives it to CREATOR"),
    (attested(tolerate=frozenset({"debug-mode"})), "tolerates-debug",
     "tolerates debug-mode: who runs the host can read the memory of its programs"),
    (attested(tolerate=frozenset({"software-platform"})), "tolerates-debug",
     "tolerates software-platform: who runs the host can read the memory of its programs"),
    (attested(tolerate=frozenset({VARIABLE})), "hidden-by-variable",
     "tolerates $$SCONE::v$$: whoever gives the variable its value decides what this says"),
    (attested(ignore_advisories=frozenset({VARIABLE})), "hidden-by-variable", "ignores $$SCONE::v$$: "),
    (attested(mode=VARIABLE), "hidden-by-variable", "attests by mode $$SCONE::v$$"),
    (replace(SESSION, security=VARIABLE), "hidden-by-variable", "gives the security section by another variable"),
    (secured(attestation=VARIABLE), "hidden-by-variable", "gives security.attestation by another variable"),
    (attested(mode="none"), "asks-no-evidence", "anybody can have its secrets"),
    (app(attestation=()), "asks-no-evidence",
     "asks for no evidence of service app any more: anybody can have its secrets"),
    (replace(SESSION, services=(APP, replace(APP, name="b", attestation=()))), "asks-no-evidence", "adds service b"),
    (replace(SESSION, services=(APP, replace(APP, name="b"))), "adds-measurement",
     "adds service b, which admits 1 program"),
    (app(attestation=(Variant(mrenclave=(A, B)),)), "adds-measurement",
     "adds 1 measurement to service app: bbbbbbbbbbbbbbbb…"),
    (attested(mode="maa", url="https://maa.example"), "weakens-tcb", "attests by mode maa"),
    (attested(tolerate=frozenset({"outdated-tcb"})), "weakens-tcb", "tolerates outdated-tcb"),
    (attested(ignore_advisories=frozenset({"INTEL-SA-00615"})), "weakens-tcb", "ignores INTEL-SA-00615"),
    (attested(ignore_all_advisories=True), "weakens-tcb", "ignores all advisories"),
    (attested(tcb=TcbRules(grace=timedelta(days=30))), "weakens-tcb", "tolerates an outdated TCB for 30days"),
    (secret(export_public=True), "exports-secret-publicly", "exports secret k to everyone"),
    (secret(exports=(SessionTarget(session="x"),)), "exports-secret", "exports secret k to session x"),
    (secret(exports=(NamespaceTarget(namespace="n"),)), "exports-secret", "to all sessions of namespace n"),
    (replace(SESSION, volumes=(Volume(name="data", exports=(VolumeExport(session="x"),)),)), "exports-secret",
     "exports volume data to session x"),
    (img(provide_secrets=("k",)), "exports-secret", "provides other secrets to the programs of image img: k"),
    (access(read=STRANGER), "widens-read", "widens read from CREATOR to key "),
    (access(list_sessions=(AnySubject(),)), "widens-read", "widens list_sessions from CREATOR to ANY"),
    (access(update=STRANGER), "widens-update", "widens update from NONE to key "),
    (app(fspf_update_policy="no_rollback_protection"), "drops-protection", "no_rollback_protection"),
    (app(fspf_path="/f", fspf_key=A, fspf_tag=A[:16]), "changes-program", "changes fspf_path of service app"),
    (img(volumes=(ImageVolume(name="data", path="/data", update_policy="no_rollback_protection"),)),
     "drops-protection", "changes the update policy of the volume at /data in image img"),
    (replace(SESSION, volumes=(Volume(name="data", fspf_tag=A[:16]),)), "drops-protection",
     "gives up the recorded state of volume data"),
    (app(command=(HostArgument(position=1),)), "changes-program", "changes the command of service app"),
    (app(environment=(("LD_PRELOAD", parse_template("/evil.so")),)), "changes-program",
     "adds the environment variable LD_PRELOAD of service app"),
    (app(pwd="/x"), "changes-program", "changes pwd of service app"),
    (img(injection_files=(FILE,)), "changes-program", "adds injection file /a to image img"),
    (secret(value="x"), "changes-secret", "gives secret k an explicit value"),
    (replace(SESSION, secrets=(ImportedSecret(name="k", session="theirs", secret="k"),)), "changes-secret",
     "makes secret k another one: ascii becomes imported from another session"),
    (replace(SESSION, volumes=(ImportedVolume(name="data", session="theirs", volume="data"),)), "changes-volume",
     "changes where volume data comes from"),
    (secret(size=4), "changes-secret", "changes size of secret k"),
    (replace(SESSION, secret_store=KeyVault(vault="v.example", token="t")), "changes-secret",
     "changes secret_store of the session"),
])  # fmt: skip
def test_each_kind_of_risk(after: Session, kind: str, sentence: str) -> None:
    found = risks(SESSION, after)
    assert found[0].kind == kind
    assert sentence in found[0].sentence


SECURITY = Security(
    singleton_enclaves=True,
    service_access_token="t0ken",
    attestation=SecurityAttestation(
        must_be_sgx_local=True, one_time_password_shared_secret=b"o" * 16, max_age=timedelta(days=1)
    ),
)


def test_an_access_policy_by_a_variable_hides_what_it_says() -> None:
    found = risks(UNBOARDED, replace(UNBOARDED, access_policy=VARIABLE))
    assert [risk.kind for risk in found] == [RiskKind.HIDDEN_BY_VARIABLE]
    assert found[0].sentence.startswith("gives the access policy by another variable")


def test_without_a_board_it_is_the_access_policy_that_widens() -> None:
    wider = replace(access(create_sessions=(CreatorSubject(),)), policy_board=None)
    found = risks(UNBOARDED, wider)
    assert [(risk.kind, risk.sentence) for risk in found] == [
        ("widens-update", "widens create_sessions from NONE to CREATOR")
    ]


GUARDED = replace(
    SESSION,
    security=SECURITY,
    images=(replace(IMAGE, injection_files=(FILE,)),),
    services=(replace(APP, platforms=(b"p" * 16,), one_time_password_shared_secret=b"o" * 16),),
    creator=SignerSubject(spki=A),
)


@pytest.mark.parametrize(("change", "kind", "sentence"), [
    ({"security": replace(SECURITY, singleton_enclaves=False)}, "drops-protection", "instances are fresh"),
    ({"security": replace(SECURITY, service_access_token=None)}, "drops-protection", "an access token"),
    ({"security": Security(singleton_enclaves=True, service_access_token="t0ken")}, "weakens-tcb", "local attestation"),
    ({"services": (replace(APP, platforms=()),)}, "drops-protection", "widens the platforms of service app to any"),
    ({"images": (replace(IMAGE, injection_files=(replace(FILE, permission=0o666),)),)}, "drops-protection", "0o666"),
    ({"creator": SignerSubject(spki=B)}, "changes-creator", "makes another key CREATOR"),
])  # fmt: skip
def test_each_protection_that_goes(change: dict[str, object], kind: str, sentence: str) -> None:
    found = risks(GUARDED, replace(GUARDED, **change))  # type: ignore[arg-type]
    assert found[0].kind == kind
    assert any(sentence in risk.sentence for risk in found)


@pytest.mark.parametrize("after", [
    SESSION,
    replace(SESSION, predecessor=A),
    app(attestation=(Variant(mrenclave=(A,)),)),
    replace(SESSION, services=()),
    replace(SESSION, secrets=(SECRET, BinarySecret(name="new", size=8))),
    replace(SESSION, secrets=()),
    replace(SESSION, volumes=(Volume(name="data"), Volume(name="new"))),
    replace(SESSION, volumes=()),
    replace(SESSION, images=(IMAGE, Image(name="new"))),
    access(read=(NoneSubject(),)),
    secured(singleton_enclaves=True),
    attested(max_age=timedelta(days=1)),
], ids=["the same", "its successor", "the same measurement", "a service less", "a new secret", "a secret less",
        "a new volume", "a volume less", "a new image", "fewer readers", "fresh instances only",
        "fresher TCB data"])  # fmt: skip
def test_what_is_no_risk(after: Session) -> None:
    assert risks(SESSION, after) == ()


def test_the_worst_comes_first() -> None:
    worse = replace(
        app(attestation=(Variant(mrenclave=(A, B)),), pwd="/x"),
        access_policy=AccessPolicy(read=(AnySubject(),), update=(NoneSubject(),)),
        policy_board=board(0, member(A), member(B)),
        security=Security(attestation=SecurityAttestation(tolerate=frozenset({"debug-mode", "outdated-tcb"}))),
    )
    assert [risk.kind for risk in dict.fromkeys(risks(SESSION, worse))][:1] == [RiskKind.CHANGES_BOARD]
    assert list(dict.fromkeys(risk.kind for risk in risks(SESSION, worse))) == [
        "changes-board", "tolerates-debug", "adds-measurement", "widens-read", "weakens-tcb", "changes-program",
    ]  # fmt: skip


def test_a_first_version_is_compared_with_one_that_gives_nothing() -> None:
    """Its board changes nobody's, and its creator may read what it wrote."""
    assert [(risk.kind, risk.sentence) for risk in risks(None, SESSION)] == [
        ("adds-measurement", "adds service app, which admits 1 program")
    ]
    open_to_all = replace(attested(tolerate=frozenset({"debug-mode"})), policy_board=None)
    assert [risk.kind for risk in risks(None, replace(open_to_all, access_policy=AccessPolicy()))] == [
        "tolerates-debug", "widens-update", "adds-measurement",
    ]  # fmt: skip


def test_the_shortcuts_of_a_first_board_are_risks() -> None:
    shortcuts = board(0, member(A, name="ann", power="approve"), member(B, name="ben"), break_glass=2)
    found = risks(None, replace(SESSION, policy_board=shortcuts))
    assert [risk.sentence for risk in found if risk.kind is RiskKind.CHANGES_BOARD] == [
        "lets member ann of the policy board approve alone",
        "lets any 1 of the policy board approve a change, before 2",
        "lets any 2 of the policy board change the session against a rejection",
    ]


def test_a_first_board_that_leaves_creating_to_others_changes_no_board() -> None:
    wider = access(create_sessions=(CreatorSubject(),))
    assert [risk.kind for risk in risks(None, wider)] == ["widens-update", "adds-measurement"]


@pytest.mark.parametrize("hidden", [
    replace(SESSION, security=VARIABLE), secured(attestation=VARIABLE), replace(UNBOARDED, access_policy=VARIABLE),
], ids=["security", "attestation", "access policy"])  # fmt: skip
def test_what_stood_behind_a_variable_does_not_hide_what_stands_there_now(hidden: Session) -> None:
    after = replace(
        attested(tolerate=frozenset({"debug-mode"})),
        access_policy=AccessPolicy(read=(AnySubject(),), update=(NoneSubject(),)),
    )
    kinds = {risk.kind for risk in risks(hidden, after)}
    assert {RiskKind.TOLERATES_DEBUG, RiskKind.WIDENS_READ} <= kinds
    assert RiskKind.HIDDEN_BY_VARIABLE not in kinds


def test_no_sentence_holds_a_secret() -> None:
    after = replace(
        secret(value="hunter2"),
        services=(replace(APP, environment=(("PASSWORD", parse_template("hunter2")),)),),
        security=Security(service_access_token="hunter2"),
    )
    assert "hunter2" not in str(risks(SESSION, after)) + str(risks(after, SESSION)) + str(risks(None, after))


EXAMPLES = Path(__file__).parents[2] / "vectors" / "session-language" / "examples.yaml"


def test_whatever_widens_is_a_risk() -> None:
    """From each of the examples of the language to each other one, whatever their sections: none of it is left out."""
    texts = [text for text in EXAMPLES.read_text().split("\n---\n") if text.startswith("# accept")]
    sessions = [parse_session(text).session for text in texts]
    widened = 0
    for before, after in product(sessions, repeat=2):
        sentences = "\n".join(risk.sentence for risk in risks(before, after))
        wider = [one.meaning for one in differences(before, after) if one.effect is Effect.WIDER]
        assert [meaning for meaning in wider if meaning not in sentences] == []
        widened += len(wider)
    assert widened > len(sessions)
