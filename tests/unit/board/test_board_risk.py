"""What a board member should look at first: each kind of risk by an example, and nothing which widens left out."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
from tests.simulators.board_members import board, member
from tests.unit.session.test_session_diff import ALTERED, FULL

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
     f"adds 1 measurement to service app: {B.hex()}"),
    (attested(mode="maa", url="https://maa.example"), "weakens-tcb", "attests by mode maa"),
    (attested(tolerate=frozenset({"outdated-tcb"})), "weakens-tcb", "tolerates outdated-tcb"),
    (attested(ignore_advisories=frozenset({"INTEL-SA-00615"})), "weakens-tcb", "ignores INTEL-SA-00615"),
    (attested(ignore_all_advisories=True), "weakens-tcb", "ignores all advisories"),
    (attested(tcb=TcbRules(grace=timedelta(days=30))), "weakens-tcb", "tolerates an outdated TCB for 30 days"),
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


EVIL = Image(name="evil", injection_files=(replace(FILE, path="/etc/ld.so.preload"),))


def told(before: Session | None, after: Session) -> list[tuple[str, str]]:
    return [(risk.kind.value, risk.sentence) for risk in risks(before, after)]


def test_a_new_image_under_a_program_that_is_there_is_a_risk() -> None:
    """Programs of an image that does not exist get no files, until it does."""
    dangling = replace(SESSION, services=(replace(APP, image_name="evil"),))
    preload = ("changes-program", "adds injection file /etc/ld.so.preload to image evil, permission 0o600")
    assert told(dangling, replace(dangling, images=(EVIL,))) == [("changes-program", "adds image evil"), preload]
    assert ("changes-program", "removes image img") in told(SESSION, replace(SESSION, images=()))
    # In two steps: the image first, its use later.
    stored = replace(SESSION, images=(IMAGE, EVIL))
    assert told(SESSION, stored) == []
    used = replace(stored, services=(replace(APP, image_name="evil"),))
    assert told(stored, used) == [
        ("changes-program", "changes image_name of service app: img becomes evil"),
        ("changes-program", "uses image evil, which no service used before"), preload,
    ]  # fmt: skip
    # And below a new service, or one by another name.
    new = replace(APP, name="new", image_name="evil", command=(parse_template("/bin/sh"),))
    assert {preload, ("changes-program", 'changes the command of service new: nothing becomes "/bin/sh"')} <= set(
        told(SESSION, replace(SESSION, services=(new,), images=(EVIL,)))
    )


def test_what_an_unused_image_would_give_away_is_a_risk_all_the_same() -> None:
    new = Image(name="new", provide_secrets=("k",))
    assert told(SESSION, replace(SESSION, images=(IMAGE, new))) == [
        ("exports-secret", "provides other secrets to the programs of image new: k")
    ]


def test_an_image_cannot_pass_for_an_unused_one_by_its_name() -> None:
    unused, used = Image(name="a"), replace(EVIL, name="a].x[b")
    dangling = replace(SESSION, services=(replace(APP, image_name=used.name),))
    sentences = [sentence for _, sentence in told(dangling, replace(dangling, images=(unused, used)))]
    assert sentences == [
        'adds image "a].x[b"',
        'adds injection file /etc/ld.so.preload to image "a].x[b", permission 0o600',
    ]


@pytest.mark.parametrize("before", [None, replace(SESSION, volumes=(), secrets=())], ids=["first", "update"])
def test_exports_of_what_comes_are_risks(before: Session | None) -> None:
    """What was taken out comes back as it was, for whoever it then goes to."""
    thief = Volume(name="data", exports=(VolumeExport(session="thief"),))
    after = replace(SESSION, volumes=(thief,), secrets=(replace(SECRET, exports=(SessionTarget(session="thief"),)),))
    assert [found for found in told(before, after) if found[0] == "exports-secret"] == [
        ("exports-secret", "exports secret k to session thief"),
        ("exports-secret", "exports volume data to session thief (rollback_protected)"),
    ]


def test_a_volume_that_comes_back_with_an_older_state_is_a_risk() -> None:
    after = replace(SESSION, volumes=(Volume(name="data", fspf_key=A, fspf_tag=A[:16]),))
    assert ("drops-protection", "gives volume data a key and a state, whatever was recorded of it before") in told(
        replace(SESSION, volumes=()), after
    )


def test_a_chosen_value_that_comes_back_for_a_program_that_takes_any_is_a_risk() -> None:
    """Files that are there may name every secret, one that was taken out for a while included."""
    takes = replace(SESSION, images=(replace(IMAGE, injection_files=(replace(FILE, content=None),)),), secrets=())
    for chosen in (replace(SECRET, value="x"), ImportedSecret(name="k", session="thief", secret="k")):
        [(kind, sentence)] = told(takes, replace(takes, secrets=(chosen,)))
        assert (kind, sentence[:13]) == ("changes-secret", "adds secret k")
        assert told(UNBOARDED, replace(UNBOARDED, secrets=(SECRET, replace(chosen, name="new")))) == []
    assert told(takes, replace(takes, secrets=(SECRET,))) == []


@pytest.mark.parametrize(("hidden", "kind", "where"), [
    (attested(tolerate=frozenset({VARIABLE})), "hidden-by-variable", "security"),
    (replace(UNBOARDED, access_policy=VARIABLE), "hidden-by-variable", "access_policy"),
    (app(attestation=(VARIABLE,)), "adds-measurement", "services[app].attestation"),
])  # fmt: skip
def test_another_value_behind_a_variable_is_the_risk_of_where_it_stands(hidden: Session, kind: str, where: str) -> None:
    before, after = (
        replace(hidden, secrets=(SECRET, AsciiSecret(name="v", value=value))) for value in ("hyperthreading", "debug")
    )
    found = told(before, after)
    meaning = f"gives what $$SCONE::v$$ stands for in {where} another value"
    assert [found_kind for found_kind, sentence in found if sentence.startswith(meaning)] == [kind]
    assert ("changes-secret", "gives secret v another explicit value") in found


def test_a_new_service_where_no_evidence_is_asked_for_is_told_as_that() -> None:
    before = attested(mode="none")
    assert told(before, replace(before, services=(APP, replace(APP, name="b"))))[0][0] == "asks-no-evidence"


MAA = {"mode": "maa", "url": "https://a", "certificates": ("a",)}


@pytest.mark.parametrize(("before", "after", "kind", "sentence"), [
    (attested(**MAA), attested(**{**MAA, "url": "https://thief"}), "weakens-tcb",
     'asks another attestation service: "https://a" becomes "https://thief"'),
    (attested(**MAA), attested(**{**MAA, "certificates": ("b",)}), "weakens-tcb",
     "trusts other authorities for the attestation service: 1 certificate"),
    (secured(service_access_token="ours"), secured(service_access_token="theirs"), "drops-protection",
     "changes how it demands an access token"),
    (attested(one_time_password_shared_secret=b"o" * 16), attested(one_time_password_shared_secret=b"t" * 16),
     "drops-protection", "changes how it demands one-time passwords"),
    (attested(must_be_sgx_local=True), attested(must_be_sgx_local=VARIABLE), "weakens-tcb",
     "changes how it demands local attestation"),
])  # fmt: skip
def test_another_guard_is_a_risk_as_the_loss_of_one(before: Session, after: Session, kind: str, sentence: str) -> None:
    assert told(before, after) == [(kind, sentence)]


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
        ("adds-measurement", f"adds service app, which admits 1 program: measurement {A.hex()}"),
        ("changes-program", "changes image_name of service app: nothing becomes img"),
        ("changes-program", "adds image img"),
        ("changes-program", "mounts volume data at /data in image img"),
    ]
    open_to_all = replace(attested(tolerate=frozenset({"debug-mode"})), policy_board=None)
    found = risks(None, replace(open_to_all, access_policy=AccessPolicy()))
    assert [risk.kind for risk in found][:4] == [
        "tolerates-debug", "widens-update", "adds-measurement", "changes-program",
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
    kinds = list(dict.fromkeys(risk.kind for risk in risks(None, wider)))
    assert kinds == ["widens-update", "adds-measurement", "changes-program"]


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


HARMLESS = re.compile(
    r"(adds|removes) (secret|volume|image) |"
    r"(adds injection file|mounts volume) .* image imgx|"  # which no service uses
    r"changes (name|namespace_hash|salt|version) of the session"
)


def test_whatever_does_not_narrow_is_a_risk_but_for_what_is_named_here() -> None:
    """Of every member of the language that changes; a new one is a risk until somebody says that it is none."""
    left = set()
    for (_, session), turned in product(ALTERED, (False, True)):
        assert isinstance(session, Session)
        before, after = (session, FULL) if turned else (FULL, session)
        found = {risk.difference for risk in risks(before, after)}
        changed = [one for one in differences(before, after) if one.effect is not Effect.NARROWER]
        left |= {one.meaning for one in changed if one not in found}
    assert [meaning for meaning in left if not HARMLESS.match(meaning)] == []
    assert len(left) > 50


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
