"""The names of endorsements: one for each thing that a vendor signs, publishes at an address of its own and renews."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.errors import EvidenceFormatError

_PRODUCT = "Milan|Genoa|Turin"
_FORMS: Mapping[str, str] = {
    "tcb-info": r"(?:sgx|tdx)/[0-9a-f]{12}",
    "qe-identity": r"sgx|tdx",
    "pck-crl": r"processor|platform",
    "root-crl": r"intel",
    "vcek": r"(?:(?:Milan|Genoa)/[0-9a-f]{128}|Turin/[0-9a-f]{16})/[0-9a-f]{16}",
    "amd-chain": rf"(?:vcek|vlek)/(?:{_PRODUCT})",
    "amd-crl": _PRODUCT,
}
_STATEMENTS = frozenset({"tcb-info", "qe-identity", "pck-crl", "root-crl", "amd-crl"})
_OF_AMD = frozenset({"vcek", "amd-chain", "amd-crl"})


@dataclass(frozen=True, kw_only=True, order=True)
class Part:
    """One endorsement, whatever its age. kind, and what it is for:

        tcb-info     TEE/FMSPC: Intel's TCB info; FMSPC in 12 lower-case hex digits
        qe-identity  TEE: the identity of Intel's quoting enclave
        pck-crl      processor or platform: which of Intel's two CAs for PCK certificates revokes
        root-crl     intel: revocations by Intel's root
        vcek         PRODUCT/HWID/TCB: the certificate of a chip's key at a TCB version of 8 bytes, as in reports
        amd-chain    vcek/PRODUCT or vlek/PRODUCT: who issues those certificates, up to AMD's root
        amd-crl      PRODUCT: revocations by AMD's root

    Raises EvidenceFormatError for any other name.
    """

    kind: str
    name: str

    def __post_init__(self) -> None:
        form = _FORMS.get(self.kind)
        if form is None or re.fullmatch(form, self.name, re.ASCII) is None:
            raise EvidenceFormatError(f"no endorsement has the name {f'{self.kind}/{self.name}'[:200]!r}")

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def is_statement(self) -> bool:
        """It says how things are on a day, and is renewed; the others are certificates, which hold until they end."""
        return self.kind in _STATEMENTS

    @property
    def vendor(self) -> str:
        """intel or amd."""
        return "amd" if self.kind in _OF_AMD else "intel"

    @property
    def words(self) -> tuple[str, ...]:
        """The name at its slashes."""
        return tuple(self.name.split("/"))


def parse_part(text: str) -> Part:
    """The part that `str` wrote. Raises EvidenceFormatError."""
    kind, _, name = text.partition("/")
    return Part(kind=kind, name=name)
