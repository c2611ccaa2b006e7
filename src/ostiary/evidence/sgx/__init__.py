"""Intel SGX: ECDSA quotes of version 3 with collateral, of hardware and of the software platform."""

from ostiary.evidence.sgx.layout import Quote, parse_quote
from ostiary.evidence.sgx.verify import Verifier, verify

__all__ = ["Quote", "Verifier", "parse_quote", "verify"]
