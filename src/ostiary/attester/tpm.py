"""Asks this machine's TPM 2.0 for a quote over its PCRs. Standard library only.

A quote tells what the machine started with, as far as its firmware and system measure it; not which program asked.
"""

from __future__ import annotations

import hashlib
import json
import os
from binascii import b2a_base64
from dataclasses import dataclass

from ostiary.attester.binding import qualifying_data
from ostiary.attester.evidence import Evidence
from ostiary.attester.program import Program
from ostiary.attester.tpm2 import ENDORSEMENT, SHA256, Tpm, TpmError
from ostiary.errors import ConfigurationError, OutsideError

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = "/dev/tpmrm0"
EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
MAX_EVENT_LOG_BYTES = 512 * 1024
"""A larger one is not sent: it would not fit into a request."""
MAX_PCR = 23
ALL_BUT_IMA = tuple(pcr for pcr in range(MAX_PCR + 1) if pcr != 10)
"""Linux (IMA) extends PCR 10 while it runs, at each new program."""
ATTEMPTS = 3
"""Quotes until the values read are the quoted ones: a PCR may be extended in between."""

AK_TEMPLATE = bytes.fromhex(
    "0023 000b 00050072 0000"  # ECC, named by SHA-256; fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth,
    "0010 0018 000b 0003 0010"  # restricted, sign; no symmetric; ECDSA with SHA-256; P-256; no key derivation
    "0000 0000"
)
"""The TPMT_PUBLIC of the AK that is made where none is found: primary in the endorsement hierarchy, so a TPM always
makes the same one, and anybody can see that it is one of that hierarchy.
"""
GOOGLE_AKS = ((0x01C10003, 0x01C10002), (0x01C10001, 0x01C10000))
"""NV indices of the template and the certificate of Google Cloud's AKs: ECC, RSA."""
AZURE_AK = 0x81000003
AZURE_HCL_REPORT = 0x01400001
"""Persistent handle of the AK that Azure's HCL report, at this NV index, names."""

_QUOTE_DIGESTS = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}


class TpmAttester:
    """The TPM at `device`. pcrs: those of the SHA-256 bank to quote.

    The AK is, in this order: the persistent key at `ak_handle`, if the caller names one; Azure's, which the HCL report
    names; Google's, of a template in the TPM's NV memory; the primary key of AK_TEMPLATE. event_log: such as
    EVENT_LOG, sent if it can be read, which takes root; the service refuses one that does not lead to the quoted PCRs.
    Raises ConfigurationError for PCRs that no TPM has, or none.
    """

    def __init__(
        self,
        device: str = DEVICE,
        *,
        pcrs: tuple[int, ...] = ALL_BUT_IMA,
        ak_handle: int | None = None,
        event_log: str | None = None,
    ) -> None:
        if not pcrs or not all(0 <= pcr <= MAX_PCR for pcr in pcrs):
            raise ConfigurationError(f"PCRs {list(pcrs)}: name some of 0 to {MAX_PCR}")
        self._device = device
        self._pcrs = tuple(sorted(set(pcrs)))
        self._ak_handle = ak_handle
        self._event_log = event_log

    def unavailable(self) -> str | None:
        """Why this host has no TPM that can be asked, in one line; None: it has one."""
        if not os.path.exists(self._device):
            return f"tpm: there is no {self._device}; the machine has no TPM 2.0, or its kernel no driver for it"
        if not os.access(self._device, os.R_OK | os.W_OK):
            return f"tpm: {self._device} may not be opened; run as root or as a member of its group"
        return None

    def attest(self, report_data: bytes, program: Program | None) -> Evidence:  # noqa: ARG002
        """A quote with `qualifying_data(report_data)` as its nonce. program: not looked at; a TPM measures none.

        Raises OutsideError: no TPM can be reached, it refuses a command, or a quoted PCR is extended all the time.
        """
        refusal = self.unavailable()
        if refusal is not None:
            raise OutsideError(refusal)
        with Tpm(self._device) as tpm:
            return self._attest(tpm, qualifying_data(report_data))

    def _attest(self, tpm: Tpm, nonce: bytes) -> Evidence:
        evidence: dict[str, object] = {}
        endorsements: dict[str, str] = {}
        ak = attestation_key(tpm, self._ak_handle)
        if ak.hcl_report is not None:
            evidence["hcl_report"] = base64_text(ak.hcl_report)
        if ak.certificate is not None:
            endorsements["ak"] = pem_text(ak.certificate)
        try:
            quote, signature, values = self._quote(tpm, ak.handle, nonce)
        finally:
            if ak.transient:
                tpm.flush(ak.handle)
        evidence["quote"] = base64_text(quote)
        evidence["signature"] = base64_text(signature)
        evidence["ak_public"] = base64_text(ak.public)
        evidence["pcrs"] = {"sha256": {str(pcr): value.hex() for pcr, value in values.items()}}
        for log in self._read_event_log():
            evidence["event_log"] = base64_text(log)
        return Evidence(
            tee="tpm",
            evidence=json.dumps(evidence).encode(),
            endorsements=json.dumps(endorsements).encode() if endorsements else b"",
        )

    def _quote(self, tpm: Tpm, key: int, nonce: bytes) -> tuple[bytes, bytes, dict[int, bytes]]:
        for _ in range(ATTEMPTS):
            read = tpm.read_pcrs(SHA256, self._pcrs)
            values = {pcr: read[pcr] for pcr in self._pcrs}
            quote, signature = tpm.quote(key, nonce, SHA256, self._pcrs)
            scheme = _QUOTE_DIGESTS.get(int.from_bytes(signature[2:4], "big"), "sha256")
            # The quote ends with its digest of the values.
            if quote.endswith(hashlib.new(scheme, b"".join(values.values()), usedforsecurity=False).digest()):
                return quote, signature, values
        raise OutsideError(f"PCRs {list(self._pcrs)} change all the time; quote those that only the start extends")

    def _read_event_log(self) -> Iterator[bytes]:
        """The event log, if it can be read: it takes root, and some machines have none."""
        if self._event_log is None:
            return
        try:
            with open(self._event_log, "rb") as file:
                log = file.read(MAX_EVENT_LOG_BYTES + 1)
        except OSError:
            return
        if 0 < len(log) <= MAX_EVENT_LOG_BYTES:
            yield log


@dataclass(frozen=True, kw_only=True)
class AttestationKey:
    """The AK of a TPM, loaded. public: TPMT_PUBLIC. certificate: DER. transient: the caller flushes `handle`."""

    handle: int
    public: bytes
    certificate: bytes | None = None
    hcl_report: bytes | None = None
    transient: bool = False


def attestation_key(tpm: Tpm, handle: int | None = None) -> AttestationKey:
    """The key that quotes of this TPM are signed with; `TpmAttester` says which. handle: of a persistent one.

    Raises OutsideError: the TPM cannot be reached, or makes no such key.
    """
    if handle is not None:
        return AttestationKey(handle=handle, public=tpm.read_public(handle))
    hcl_report = tpm.nv_read(AZURE_HCL_REPORT)
    if hcl_report is not None:
        return AttestationKey(handle=AZURE_AK, public=tpm.read_public(AZURE_AK), hcl_report=hcl_report)
    primary, public, certificate = _primary_ak(tpm)
    return AttestationKey(handle=primary, public=public, certificate=certificate, transient=True)


def _primary_ak(tpm: Tpm) -> tuple[int, bytes, bytes | None]:
    """Handle, public area and certificate (DER) of a primary AK: Google's if the TPM has one, else our own."""
    for template_index, certificate_index in GOOGLE_AKS:
        template = tpm.nv_read(template_index)
        if template is not None:
            certificate = tpm.nv_read(certificate_index)
            return *tpm.create_primary(ENDORSEMENT, _without_size(template)), certificate
    try:
        return *tpm.create_primary(ENDORSEMENT, AK_TEMPLATE), None
    except TpmError as error:
        raise OutsideError(
            "the TPM makes no attestation key; its endorsement hierarchy may have a password", *error.chain
        ) from error


def _without_size(template: bytes) -> bytes:
    """The TPMT_PUBLIC of a template that may be a TPM2B_PUBLIC; no type of a key is as large as its size would be."""
    return template[2:] if int.from_bytes(template[:2], "big") == len(template) - 2 else template


def pem_text(der: bytes) -> str:
    """A certificate in PEM."""
    text = b2a_base64(der, newline=False).decode("ascii")
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def base64_text(data: bytes) -> str:
    """Standard base64, one line."""
    return b2a_base64(data, newline=False).decode("ascii")
