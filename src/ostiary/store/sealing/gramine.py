"""The database key under the SGX seal key of this enclave, which Gramine shows in a file.

Gramine asks the processor for the key (EGETKEY, SEAL_KEY) with the policy in the file's name, the current security
versions of processor and enclave, and the attributes, debug among them. So the key is another one in an enclave of
another measurement (or signer), in a debug enclave, on another processor, and after an update of the microcode or a
raised security version: the old one can then not be had any more.
Source: Gramine, Documentation/attestation.rst, and libos/src/fs/dev/attestation.c, pal/src/host/linux-sgx (ff71d7af).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from ostiary.errors import StoreError
from ostiary.store.sealing.wrapped import WrappedKey

DEVICE = Path("/dev/attestation")
SEAL_KEY_BYTES = 16

_TYPE = "attestation_type"
_MAX_TYPE_BYTES = 64


class Identity(StrEnum):
    """Who may unwrap: the same enclave only, or any of the same signer and product, of an equal security version."""

    ENCLAVE = "mrenclave"
    SIGNER = "mrsigner"


def gramine_sealing(path: Path, *, identity: Identity, device: Path = DEVICE) -> WrappedKey:
    """A `Sealing` in the file at `path` for an enclave under Gramine. device: where Gramine shows its files."""
    return WrappedKey(
        path,
        derive=lambda: _seal_key(device, identity),
        purpose=f"SGX seal key ({identity})",
        advice=(
            "it was wrapped by another enclave, on another processor, or before an update of the microcode or of the "
            "enclave's security version; start what wrapped it, or restore a database of this machine"
        ),
        warning=(
            "the database key is sealed to the signer of this enclave: whoever has the signing key can make an enclave "
            "that unseals it"
            if identity is Identity.SIGNER
            else ""
        ),
    )


def _seal_key(device: Path, identity: Identity) -> bytes:
    """16 bytes. Raises StoreError unless Gramine says that it runs in an SGX enclave and gives a key of that size."""
    # 1. Gramine shows the type under SGX only; without, its other key files hold whatever was written there.
    _require_enclave(device)
    # 2. The key is of this very process's enclave: the file belongs to Gramine, not to the host.
    place = device / "keys" / f"_sgx_{identity}"
    key = _read(place, SEAL_KEY_BYTES + 1)
    if len(key) != SEAL_KEY_BYTES:
        raise StoreError(f"{place} has {len(key)} bytes, expected an SGX seal key of {SEAL_KEY_BYTES}")
    # 3. What was never set reads as nothing or zeros; a key derived by the processor is neither.
    if not any(key):
        raise StoreError(f"{place} is all zeros, expected an SGX seal key: this is no enclave")
    return key


def _require_enclave(device: Path) -> None:
    if not device.is_dir():
        raise StoreError(
            f"this process runs in no SGX enclave under Gramine: {device} is absent; start it by gramine-sgx, or "
            "choose another sealing"
        )
    place = device / _TYPE
    if not place.exists():
        raise StoreError(
            f"Gramine runs this process without an enclave: {place} is absent; start it by gramine-sgx, not "
            "gramine-direct, or choose another sealing"
        )
    found = _read(place, _MAX_TYPE_BYTES).strip()
    if found not in {b"none", b"dcap", b"epid"}:
        raise StoreError(f"{place} says {found!r}, expected none, dcap or epid: this is no SGX enclave that we know")


def _read(place: Path, max_bytes: int) -> bytes:
    try:
        with place.open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror}: expected a file that Gramine shows in an SGX enclave") from error
