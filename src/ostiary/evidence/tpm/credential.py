"""Credentials that only one TPM opens (TPM2_MakeCredential), by the TSS project's library, which is an extra."""

from __future__ import annotations

import os

# What the TSS would print by itself, it raises as well. Read at its first call.
os.environ.setdefault("TSS2_LOG", "all+none")

from tpm2_pytss import TPM2B_NAME, TPMT_PUBLIC
from tpm2_pytss.utils import make_credential as tss_make_credential

from ostiary.evidence.tpm.enrolment import Credential


def make_credential(ek_area: bytes, secret: bytes, ak_name: bytes) -> Credential:
    """Hide `secret`, at most 32 bytes, for the TPM that holds the EK of this TPMT_PUBLIC and the key of this name.

    ek_area: of `parse_endorsement_key`, which refused whatever is no such area. Randomness is the library's own.
    Source: TCG TPM 2.0 Library, part 1, "Credential Protection".
    """
    area, _ = TPMT_PUBLIC.unmarshal(ek_area)
    hidden, encrypted_secret = tss_make_credential(area, secret, TPM2B_NAME(ak_name))
    return Credential(credential=bytes(hidden), encrypted_secret=bytes(encrypted_secret))
