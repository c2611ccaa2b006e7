"""Microsoft Azure Attestation: tokens in which that service says what it verified of an SGX enclave."""

from ostiary.evidence.maa.layout import parse_key_set, parse_token
from ostiary.evidence.maa.verify import authenticate, verify

__all__ = ["authenticate", "parse_key_set", "parse_token", "verify"]
