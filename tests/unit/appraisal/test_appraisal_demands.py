"""What a session may demand and no evidence here can show."""

from __future__ import annotations

import pytest

from ostiary.appraisal import refuse_unprovable
from ostiary.errors import AppraisalRefusedError
from ostiary.session.model import SecurityAttestation, Service, Variable
from ostiary.session.placeholder import Placeholder

WEB = Service(name="web")
LOCAL = SecurityAttestation(
    must_be_sgx_local=True, tolerate=frozenset({"local-attestation-trust-cas-tcb"}), mode="hardware"
)
MAYBE_LOCAL = SecurityAttestation(must_be_sgx_local=Variable(placeholder=Placeholder(name="x")))


@pytest.mark.parametrize("mode", ["hardware", "maa"])
def test_f204_singleton_enclaves_are_refused_for_want_of_proof(mode: str) -> None:
    """F204: the refusal names the demand, and says what to do."""
    with pytest.raises(AppraisalRefusedError, match="service web: the session demands what") as caught:
        refuse_unprovable(WEB, SecurityAttestation(mode=mode), singleton_enclaves=True)
    (mismatch,) = caught.value.mismatches
    assert mismatch.factor == "singleton_enclaves"
    assert mismatch.found == "evidence that cannot prove a fresh and unused instance"
    assert "take singleton_enclaves: true out" in mismatch.advice


def test_f204_singleton_enclaves_have_no_effect_without_evidence() -> None:
    """F204: as the upload warned."""
    refuse_unprovable(WEB, SecurityAttestation(mode="none"), singleton_enclaves=True)
    with pytest.raises(AppraisalRefusedError):
        refuse_unprovable(WEB, SecurityAttestation(mode="hardware"), singleton_enclaves=True)


@pytest.mark.parametrize("security", [LOCAL, MAYBE_LOCAL], ids=["demanded", "unresolved"])
def test_f197_local_attestation_needs_an_enclave_of_the_service(security: SecurityAttestation) -> None:
    """F197."""
    with pytest.raises(AppraisalRefusedError, match="this CAS has no SGX enclave of its own") as caught:
        refuse_unprovable(WEB, security, singleton_enclaves=False)
    assert [mismatch.factor for mismatch in caught.value.mismatches] == ["must_be_sgx_local"]


def test_every_demand_is_told_at_once() -> None:
    with pytest.raises(AppraisalRefusedError) as caught:
        refuse_unprovable(WEB, LOCAL, singleton_enclaves=True)
    assert [mismatch.factor for mismatch in caught.value.mismatches] == ["singleton_enclaves", "must_be_sgx_local"]


def test_what_is_only_tolerated_is_no_demand() -> None:
    tolerated = SecurityAttestation(tolerate=frozenset({"local-attestation-trust-cas-tcb"}))
    refuse_unprovable(WEB, tolerated, singleton_enclaves=False)
    with pytest.raises(AppraisalRefusedError):
        refuse_unprovable(WEB, LOCAL, singleton_enclaves=False)
