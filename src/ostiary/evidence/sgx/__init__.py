"""Intel SGX: ECDSA quotes of version 3 with collateral, of hardware and of the software platform."""

from ostiary.evidence.sgx.layout import Quote, parse_quote
from ostiary.evidence.sgx.verifier import Verifier
from ostiary.evidence.sgx.verify import verify

__all__ = ["Quote", "Verifier", "parse_quote", "verify"]
