"""What rules may look at: the very versions that a proposal names, as plain data."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ostiary.board import ProposalFacts
from ostiary.checker.material import admitted, material, variables
from ostiary.errors import InputError
from ostiary.session import ParsedSession, parse_session

M1, M2, M48 = "a1" * 32, "b2" * 32, "c3" * 48


def session(body: str, name: str = "app") -> ParsedSession:
    return parse_session(f'name: {name}\nversion: "0.3.12"\n{body}')


OLD = session(f"services: [{{name: web, attestation: [{{mrenclave: [{M1}]}}]}}]")
NEW = session(
    f"predecessor: {OLD.hash.hex()}\nservices: [{{name: web, attestation: [{{mrenclave: [{M1}, {M2}]}}]}}]\n"
    "security: {attestation: {tolerate: [debug-mode]}}"
)


def facts(before: ParsedSession | None = OLD, after: ParsedSession = NEW, name: str = "app") -> ProposalFacts:
    return ProposalFacts(
        cas=bytes(32),
        session=name,
        predecessor=None if before is None else before.hash,
        session_hash=after.hash,
        break_glass=False,
        created=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
        note="more",
        nonce=bytes(16),
    )


def test_rules_see_both_normal_forms_the_differences_the_risks_and_the_facts() -> None:
    shown = material(facts(), OLD, NEW)
    assert shown["old"] == dict(OLD.normal)
    assert shown["new"] == dict(NEW.normal)
    diff, risks = shown["diff"], shown["risks"]
    assert isinstance(diff, list)
    assert isinstance(risks, list)
    assert {"effect": "wider", "path": "security.attestation.tolerate", "meaning": "tolerates debug-mode"} in diff
    assert "tolerates-debug" in [risk["kind"] for risk in risks if isinstance(risk, dict)]
    assert shown["proposal"] == {
        "id": facts().proposal_hash().hex(),
        "cas": "00" * 32,
        "session": "app",
        "predecessor": OLD.hash.hex(),
        "session_hash": NEW.hash.hex(),
        "break_glass": False,
        "created": "2026-11-23T12:00:00Z",
        "note": "more",
    }


def test_a_first_version_has_no_old_one_and_is_compared_with_nothing() -> None:
    shown = material(facts(None, OLD), None, OLD)
    assert shown["old"] is None
    assert isinstance(shown["diff"], list)
    paths = [one["path"] for one in shown["diff"] if isinstance(one, dict)]
    assert "services[web]" in paths
    assert isinstance(shown["proposal"], dict)
    assert shown["proposal"]["predecessor"] is None


@pytest.mark.parametrize(
    ("of", "before", "after", "message"),
    [
        (facts(), OLD, OLD, "the session that was shown is not the one that the proposal's id covers"),
        (facts(name="other"), OLD, NEW, "the session that was shown is not the one that the proposal's id covers"),
        (facts(), None, NEW, "the version that was shown as the current one is not the predecessor"),
        (facts(), NEW, NEW, "the version that was shown as the current one is not the predecessor"),
        (facts(None), OLD, NEW, "the version that was shown as the current one is not the predecessor"),
    ],
)
def test_nothing_is_shown_of_versions_that_the_id_does_not_cover(
    of: ProposalFacts, before: ParsedSession | None, after: ParsedSession, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        material(of, before, after)


def rows(body: str) -> list[tuple[str, str, str, str]]:
    return [(row["service"], row["tee"], row["name"], row["value"]) for row in admitted(session(body).session)]


@pytest.mark.parametrize(
    ("attestation", "expected"),
    [
        (f"[{{mrenclave: [{M1}, {M2}]}}]", [("sgx", "mrenclave", M1), ("sgx", "mrenclave", M2)]),
        (f"[{{signer: {{mrsigner: {M1}, isvprodid: 1, isvsvn: 2}}}}]", [("sgx", "mrsigner", M1)]),
        (
            f"[{{mrenclave: [{M2}], signer: {{mrsigner: {M1}, isvprodid: 1, isvsvn: 2}}}}]",
            [("sgx", "mrenclave", M2)],
        ),
        (
            f"[{{snp: {{measurement: [{M48}], host_data: {M1}}}}}]",
            [("snp", "measurement", M48), ("snp", "host_data", M1)],
        ),
        (f"[{{tpm: {{pcrs: {{sha256: {{'4': {M1}}}}}}}}}]", [("tpm", "sha256:4", M1)]),
        (f"[{{mrenclave: [{M1}]}}, {{nitro: {{pcr0: {M48}}}}}]", [("sgx", "mrenclave", M1), ("nitro", "pcr0", M48)]),
        ("[{mrenclave: [$$SCONE::m$$]}]", [("sgx", "variable", "$$SCONE::m$$")]),
        ("[{signer: $$SCONE::m$$}]", [("sgx", "variable", "$$SCONE::m$$")]),
        ("[{snp: $$SCONE::m$$}]", [("snp", "variable", "$$SCONE::m$$")]),
        ("[$$SCONE::m$$]", [("any", "variable", "$$SCONE::m$$")]),
        ("$$SCONE::m$$", [("any", "variable", "$$SCONE::m$$")]),
    ],
)
def test_each_value_that_admits_a_program_is_a_row(attestation: str, expected: list[tuple[str, str, str]]) -> None:
    secrets = f"secrets: [{{name: m, kind: config-fragment, value: {M1}}}]"
    body = f"services: [{{name: web, attestation: {attestation}}}]\n{secrets}"
    assert rows(body) == [("web", *one) for one in expected]


@pytest.mark.parametrize("mode", ["none", "$$SCONE::mode$$"])
def test_a_service_that_may_ask_for_no_evidence_admits_any_program_whatever_its_variants(mode: str) -> None:
    body = (
        f"services: [{{name: web, attestation: [{{mrenclave: [{M1}]}}]}}]\n"
        f"security: {{attestation: {{mode: {mode}}}}}\n"
        "secrets: [{name: mode, kind: ascii, value: hardware}]"
    )
    assert rows(body) == [("web", "any", "any", "")]


@pytest.mark.parametrize("security", ["$$SCONE::s$$", "{attestation: $$SCONE::s$$}"])
def test_so_does_one_whose_security_a_variable_decides(security: str) -> None:
    body = (
        f"services: [{{name: web, attestation: [{{mrenclave: [{M1}]}}]}}]\nsecurity: {security}\n"
        "secrets: [{name: s, kind: config-fragment, value: {}}]"
    )
    assert rows(body) == [("web", "any", "any", "")]


def test_every_placeholder_is_found_with_its_secret() -> None:
    parsed = session(
        "services: [{name: web, command: app --key $$SCONE::k$$ --also $$SCONE::k$$, "
        f"attestation: [{{mrenclave: [{M1}]}}]}}]\n"
        "secrets: [{name: k, kind: ascii}]\naccess_policy: {read: [$$SCONE::k$$], update: [CREATOR]}"
    )
    assert [(row["path"], row["secret"]) for row in variables(parsed.normal)] == [
        ("services[web].command", "k"),
        ("services[web].command", "k"),
        ("access_policy.read[0]", "k"),
    ]
