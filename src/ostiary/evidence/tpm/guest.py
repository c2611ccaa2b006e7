"""The hardware's evidence within that of a vTPM, and its endorsements within those. Authenticates nothing."""

from __future__ import annotations

import json
from typing import Literal

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.tpm.hcl import HclReport, parse_hcl_report
from ostiary.evidence.tpm.wire import Evidence, parse_endorsements, parse_evidence

Kind = Literal["snp", "tdx"]


def guest_evidence(evidence: bytes) -> tuple[Kind, bytes] | None:
    """The SNP report or TD quote of the guest whose vTPM made this evidence; None: no guest's, or no TD quote is there.

    Raises EvidenceFormatError.
    """
    parsed = parse_evidence(evidence)
    if parsed.hcl_report is None:
        return None
    hcl = parse_hcl_report(parsed.hcl_report)
    found = evidence_of(hcl, parsed)
    return None if found is None else (hcl.kind, found)


def evidence_of(hcl: HclReport, evidence: Evidence) -> bytes | None:
    """What is to vouch for the runtime claims of an HCL report: an SNP report, sent or within it, or a TD quote."""
    if hcl.kind == "snp":
        return evidence.snp_report or hcl.hardware_report
    return evidence.td_quote


def guest_endorsements(endorsements: bytes, kind: Kind) -> bytes:
    """Those of the guest's evidence among the endorsements of a vTPM; may be empty. Raises EvidenceFormatError."""
    parsed = parse_endorsements(endorsements)
    return parsed.snp if kind == "snp" else parsed.tdx


def with_guest_endorsements(endorsements: bytes, kind: Kind, guest: bytes) -> bytes:
    """The endorsements of a vTPM with `guest` in place of those of the guest's evidence. Raises EvidenceFormatError."""
    parsed = parse_endorsements(endorsements)
    members = {"ak": parsed.ak, "snp": parsed.snp, "tdx": parsed.tdx, kind: guest}
    try:
        return json.dumps({name: data.decode("ascii") for name, data in members.items() if data}).encode()
    except UnicodeDecodeError as error:
        raise EvidenceFormatError(f"TPM endorsements, {kind}: expected ASCII text") from error
