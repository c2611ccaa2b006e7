"""Evidence in a file: a quote or an SNP report as the hardware made it."""

from __future__ import annotations

from pathlib import Path

from ostiary.errors import ConfigurationError, EvidenceFormatError
from ostiary.evidence.intel.quote import MAX_QUOTE_BYTES, parse_signed_quote
from ostiary.evidence.snp.layout import REPORT_BYTES, parse_report


def read_evidence(path: Path) -> tuple[str, bytes]:
    """The TEE, "sgx", "tdx" or "snp", and the bytes. Raises ConfigurationError and EvidenceFormatError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_QUOTE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "name a file with a quote or an SNP report") from error
    try:
        if len(data) == REPORT_BYTES:
            parse_report(data)
            return "snp", data
        return parse_signed_quote(data).tee, data
    except EvidenceFormatError as error:
        raise EvidenceFormatError(f"{path}: no SGX or TDX quote and no SNP report", *error.chain) from error
