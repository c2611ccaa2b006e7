"""The security section."""

from __future__ import annotations

import pytest
from tests.unit.session.texts import HEAD, mistake, quiet, warning

from ostiary.session import SecurityAttestation, parse_session


def security(text: str) -> SecurityAttestation:
    found = parse_session(f"{HEAD}security: {{attestation: {text}}}").session.attestation
    assert isinstance(found, SecurityAttestation)
    return found


def test_without_the_section_evidence_of_hardware_is_demanded_and_nothing_tolerated() -> None:
    strict = SecurityAttestation(mode="hardware", tolerate=frozenset(), ignore_advisories=frozenset())
    assert parse_session(HEAD).session.attestation == strict
    for text in ("{}", "{attestation: }", "{attestation: {}}", "{attestation: {tolerate: [], ignore_advisories: []}}"):
        assert quiet(f"{HEAD}security: {text}").session.attestation == strict


def test_tolerances_and_advisories_are_taken_by_name() -> None:
    assert security("{tolerate: [outdated-tcb, software-platform], ignore_advisories: [INTEL-SA-00657]}") == (
        SecurityAttestation(
            tolerate=frozenset({"outdated-tcb", "software-platform"}), ignore_advisories=frozenset({"INTEL-SA-00657"})
        )
    )


@pytest.mark.parametrize("spelling", ['"*"', '["*"]'])
def test_the_wildcard_has_both_spellings_and_needs_debug_mode(spelling: str) -> None:
    debug = f"{{tolerate: [debug-mode], ignore_advisories: {spelling}}}"
    assert security(debug) == SecurityAttestation(tolerate=frozenset({"debug-mode"}), ignore_all_advisories=True)
    quiet(f"{HEAD}security: {{attestation: {debug}}}")
    text = f"{HEAD}security: {{attestation: {{ignore_advisories: {spelling}}}}}"
    assert "no effect without debug-mode" in warning(text, "security.attestation.ignore_advisories")


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("{mode: sim}", "mode", 'unknown mode "sim"'),
        ("{mode: maa, tolerate: [maa-managed-tcb]}", "url", "url is missing; name the attestation service"),
        ("{tolerate: [debug]}", "tolerate[0]", 'unknown toleration "debug": did you mean debug-mode?'),
        ("{tolerate: debug-mode}", "tolerate", "expected a list of tolerances"),
        ("{tolerate: [~]}", "tolerate[0]", "found nothing, expected text"),
        ("{tolerate: ['']}", "tolerate[0]", "empty toleration"),
        ("{ignore_advisories: INTEL-SA-00657}", "ignore_advisories", "expected a list of INTEL-SA-nnnnn"),
        ("{ignore_advisories: ['*', INTEL-SA-00657]}", "ignore_advisories[0]", "* must be the only entry"),
        ("{ignore_advisories: [INTEL-SA-1]}", "ignore_advisories[0]", "expected an advisory such as"),
        ("{ignore_advisories: [~]}", "ignore_advisories[0]", "found nothing, expected text"),
        ("{ignore_advisories: {a: b}}", "ignore_advisories", "found a mapping, expected text"),
        ("{trusted_scone_qe_pubkeys: [abc]}", "trusted_scone_qe_pubkeys[0]", "expected 64 hex digits"),
        ("{trusted_scone_qe_pubkeys: [~]}", "trusted_scone_qe_pubkeys[0]", "found nothing, expected text"),
        ("{mode: maa, tolerate: [maa-managed-tcb], url: 'http://x'}", "url", "expected https://<tenant>"),
        ("{must_be_sgx_local: true}", "must_be_sgx_local", "add local-attestation-trust-cas-tcb to tolerate"),
        ("{toleratte: []}", "toleratte", "did you mean tolerate?"),
    ],
)
def test_wrong_values_are_refused(text: str, path: str, says: str) -> None:
    assert says in mistake(f"{HEAD}security: {{attestation: {text}}}", f"security.attestation.{path}")


def test_keys_of_the_old_quoting_enclave_add_no_trust() -> None:
    text = f"{HEAD}security: {{attestation: {{trusted_scone_qe_pubkeys: [{'AB' * 32}]}}}}"
    assert "add no trust" in warning(text, "security.attestation.trusted_scone_qe_pubkeys")
    assert parse_session(text).session.attestation == SecurityAttestation()
