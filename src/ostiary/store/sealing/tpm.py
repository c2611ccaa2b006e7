"""The database key sealed to a TPM 2.0, for as long as chosen platform configuration registers (PCRs) do not change.

The key is a sealed object under the TPM's storage key, whose only authorization is the policy PolicyPCR. On its way to
and from the TPM it is encrypted (`ostiary.tpm`). The file beside the database holds what the TPM gave back, JSON:

    format       "ostiary-tpm-sealed-key-v1"
    storage_key  hex: the name, 34 bytes, of the storage key it lies under
    pcrs         {"7": hex of its value, 32 bytes, …}: bank SHA-256; the values are only for messages
    public       hex: TPM2B_PUBLIC
    private      hex: TPM2B_PRIVATE

Guarantees that the key comes out only of the same TPM, not cleared since, and only while those PCRs have the values
they had when the key was made. So a stolen disk gives nothing, nor does a machine that was started otherwise.
Does not protect the key from whoever is root on the machine while it runs as it should: he can ask the TPM as well.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPML_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TSS2_Exception,
)

from ostiary.errors import StoreError
from ostiary.store.keys import KEY_BYTES
from ostiary.store.sealing.drafted import DraftedFile
from ostiary.tpm import NAME_BYTES, RC_INTEGRITY, RC_PCR_CHANGED, RC_POLICY_FAIL, Tpm, response_code

FORMAT = "ostiary-tpm-sealed-key-v1"
PCR_BYTES = 32
MAX_PCR = 23
RESETTABLE_PCRS = frozenset({16, 23})
"""Whoever uses the machine may reset these (TCG PC Client Platform TPM Profile), so they prove nothing."""


@dataclass(frozen=True, kw_only=True)
class SealedKey:
    """The file's content. pcrs: number to the value it had. public, private: as the TPM wrote them."""

    storage_key: bytes
    pcrs: dict[int, bytes]
    public: bytes
    private: bytes


class TpmSealing:
    """A `Sealing` by the TPM at `tcti`, in the file at `path`. pcrs: one number or more, none that can be reset."""

    def __init__(self, path: Path, *, tcti: str, pcrs: Sequence[int]) -> None:
        self._file = DraftedFile(path, what="the sealed database key", size=None)
        self._tcti = tcti
        self._pcrs = tuple(sorted(set(pcrs)))
        if not self._pcrs or not set(self._pcrs) <= set(range(MAX_PCR + 1)) - RESETTABLE_PCRS:
            raise ValueError(f"PCRs {self._pcrs}, expected one or more of 0 to {MAX_PCR} without {RESETTABLE_PCRS}")

    @property
    def place(self) -> str:
        return str(self._file.path)

    @property
    def warning(self) -> str:
        return (
            f"the database key is sealed to the TPM under PCR {_list(self._pcrs)}: that protects a stolen disk, but "
            "not from whoever is root on this machine while it runs"
        )

    def kept(self) -> bytes | None:
        return self._unseal(self._file.kept())

    def drafted(self) -> bytes | None:
        return self._unseal(self._file.drafted())

    def draft(self, random: Callable[[int], bytes]) -> bytes:
        key = random(KEY_BYTES)
        with Tpm(self._tcti) as tpm:
            sealed = _seal(tpm, key, self._pcrs)
            # Only a key that comes out again may seal anything; it would not, had somebody forged the PCRs on the way.
            if not hmac.compare_digest(_unseal(tpm, sealed, self.place), key):
                raise StoreError(f"the TPM {tpm.place} unsealed another key than it was given: use another TPM")
        self._file.draft(encode(sealed))
        return key

    def keep(self) -> None:
        self._file.keep()

    def _unseal(self, content: bytes | None) -> bytes | None:
        if content is None:
            return None
        try:
            sealed = decode(content)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreError(
                f"{self.place} does not hold a key sealed to a TPM, as {FORMAT} says: put the right file in its place"
            ) from None
        if tuple(sealed.pcrs) != self._pcrs:
            raise StoreError(
                f"{self.place} was sealed under PCR {_list(tuple(sealed.pcrs))}, expected {_list(self._pcrs)}: "
                "configure the PCRs that it was sealed under"
            )
        with Tpm(self._tcti) as tpm:
            if not hmac.compare_digest(tpm.storage_name, sealed.storage_key):
                raise _foreign(self.place, tpm)
            return _unseal(tpm, sealed, self.place)


def encode(sealed: SealedKey) -> bytes:
    """The file's content. The inverse of `decode`."""
    document = {
        "format": FORMAT,
        "storage_key": sealed.storage_key.hex(),
        "pcrs": {str(number): value.hex() for number, value in sealed.pcrs.items()},
        "public": sealed.public.hex(),
        "private": sealed.private.hex(),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def decode(content: bytes) -> SealedKey:
    """What `encode` wrote. Authenticates nothing: the TPM does.

    Raises ValueError, KeyError, TypeError or AttributeError for anything else.
    """
    document = json.loads(content)
    if document["format"] != FORMAT:
        raise ValueError(document["format"])
    sealed = SealedKey(
        storage_key=bytes.fromhex(document["storage_key"]),
        pcrs={int(number): bytes.fromhex(value) for number, value in document["pcrs"].items()},
        public=bytes.fromhex(document["public"]),
        private=bytes.fromhex(document["private"]),
    )
    if len(sealed.storage_key) != NAME_BYTES or any(len(value) != PCR_BYTES for value in sealed.pcrs.values()):
        raise ValueError("lengths")
    return sealed


def _seal(tpm: Tpm, key: bytes, numbers: Sequence[int]) -> SealedKey:
    pcrs = _read_pcrs(tpm, numbers)
    template = TPM2B_PUBLIC(
        TPMT_PUBLIC(
            type=TPM2_ALG.KEYEDHASH,
            nameAlg=TPM2_ALG.SHA256,
            # Neither a password (userWithAuth) nor another TPM's parent: the policy alone lets the key out.
            objectAttributes=TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.NODA,
            authPolicy=_policy(tpm, pcrs),
        )
    )
    template.publicArea.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG.NULL
    with tpm.explained("sealing the database key"):
        private, public, *_ = tpm.esapi.create(
            tpm.storage_key,
            TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=key)),
            template,
            session1=tpm.session,
        )
    return SealedKey(
        storage_key=tpm.storage_name, pcrs=pcrs, public=bytes(public.marshal()), private=bytes(private.marshal())
    )


def _unseal(tpm: Tpm, sealed: SealedKey, place: str) -> bytes:
    try:
        private, _ = TPM2B_PRIVATE.unmarshal(sealed.private)
        public, _ = TPM2B_PUBLIC.unmarshal(sealed.public)
        item = tpm.esapi.load(tpm.storage_key, private, public, session1=tpm.session)
        session = tpm.start_session(TPM2_SE.POLICY)
        try:
            tpm.esapi.policy_pcr(session, None, _selection(tuple(sealed.pcrs)))
            return bytes(tpm.esapi.unseal(item, session1=session))
        finally:
            tpm.esapi.flush_context(session)
            tpm.esapi.flush_context(item)
    except TSS2_Exception as error:
        code = response_code(error)
        if code in {RC_POLICY_FAIL, RC_PCR_CHANGED}:
            raise _changed(tpm, sealed, place) from error
        if code == RC_INTEGRITY:
            raise StoreError(
                f"{place}: the TPM {tpm.place} did not seal these bytes: they were changed, put the right file in "
                "its place"
            ) from error
        with tpm.explained(f"unsealing {place}"):
            raise


def _changed(tpm: Tpm, sealed: SealedKey, place: str) -> StoreError:
    now = _read_pcrs(tpm, tuple(sealed.pcrs))
    changed = [number for number, value in sealed.pcrs.items() if now[number] != value]
    findings = [f"PCR {number}: found {now[number].hex()}, expected {sealed.pcrs[number].hex()}" for number in changed]
    return StoreError(
        f"the TPM {tpm.place} does not unseal {place}: PCR {_list(changed) or 'values'} changed since the key was "
        "sealed, so this machine was started with other firmware, settings or software; start it as it was then, or "
        "find out who changed it",
        *findings,
    )


def _foreign(place: str, tpm: Tpm) -> StoreError:
    return StoreError(
        f"{place} was sealed by another TPM than {tpm.place}, or this one was cleared since: use the machine that "
        "sealed it; a cleared TPM has lost the key for good"
    )


def _policy(tpm: Tpm, pcrs: dict[int, bytes]) -> bytes:
    """The digest of PolicyPCR over these values, which need not be the current ones."""
    digest = hashlib.sha256(b"".join(pcrs.values())).digest()
    session = tpm.start_session(TPM2_SE.TRIAL)
    with tpm.explained("making the PCR policy"):
        tpm.esapi.policy_pcr(session, digest, _selection(tuple(pcrs)))
        policy = bytes(tpm.esapi.policy_get_digest(session))
        tpm.esapi.flush_context(session)
    return policy


def _read_pcrs(tpm: Tpm, numbers: Sequence[int]) -> dict[int, bytes]:
    """Number to value, ascending. The TPM gives at most eight a time."""
    values: dict[int, bytes] = {}
    for number in numbers:
        with tpm.explained(f"reading PCR {number}"):
            _, _, digests = tpm.esapi.pcr_read(_selection((number,)), session1=ESYS_TR.NONE)
        if len(digests) != 1 or len(bytes(digests[0])) != PCR_BYTES:
            raise StoreError(
                f"the TPM {tpm.place} has no PCR {number} in the bank SHA-256: allocate that bank in the firmware"
            )
        values[number] = bytes(digests[0])
    return values


def _selection(numbers: Sequence[int]) -> TPML_PCR_SELECTION:
    return TPML_PCR_SELECTION.parse("sha256:" + ",".join(str(number) for number in numbers))


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
