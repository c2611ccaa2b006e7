"""The machine's half of enrolling its TPM's attestation key (AK): an offer, and an answer. Standard library only.

Messages and what they prove: docs/tpm-enrolment.md. The owner's half is `ostiary.evidence.tpm.enrolment`.
"""

from __future__ import annotations

import hashlib
import json
from binascii import a2b_base64
from dataclasses import dataclass

from ostiary.attester.tpm import DEVICE, TpmAttester, attestation_key, base64_text, pem_text
from ostiary.attester.tpm2 import ACTIVATE, ENDORSEMENT, Tpm, TpmError
from ostiary.errors import InputError, OutsideError, RefusedError

OFFER_FORMAT = "ostiary-tpm-offer-v1"
CHALLENGE_FORMAT = "ostiary-tpm-challenge-v1"
ANSWER_FORMAT = "ostiary-tpm-answer-v1"
MAX_CHALLENGE_BYTES = 16 * 1024

# PolicySecret(TPM_RH_ENDORSEMENT), the policy of all of these templates.
_POLICY = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
_NAME_HASHES = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}


@dataclass(frozen=True, kw_only=True)
class EkKind:
    """certificate_index: the NV index of the EK's certificate. template: TPMT_PUBLIC."""

    certificate_index: int
    template: bytes


EK_KINDS = {
    "rsa": EkKind(
        certificate_index=0x01C00002,
        template=bytes.fromhex(f"0001 000b 000300b2 0020 {_POLICY} 0006 0080 0043 0010 0800 00000000 0100")
        + bytes(256),
    ),
    "ecc": EkKind(
        certificate_index=0x01C0000A,
        template=bytes.fromhex(
            f"0023 000b 000300b2 0020 {_POLICY} 0006 0080 0043 0010 0003 0010 0020 {bytes(32).hex()} 0020"
        )
        + bytes(32),
    ),
}
"""The EKs that nearly every TPM has, RSA-2048 and P-256, both with AES-128-CFB and SHA-256.

Source: TCG EK Credential Profile for TPM 2.0, templates L-1 and L-2.
"""


def make_offer(device: str = DEVICE, *, kind: str | None = None, certificate: str | None = None) -> bytes:
    """What the owner starts from: the EK with its certificate, and the AK of the TPM at `device`. JSON.

    kind: of `EK_KINDS`; None: the first whose certificate the TPM holds, or rsa with a `certificate`. certificate: PEM,
    that of the EK, and its issuers if they are at hand, in place of the one that the TPM holds.
    Raises OutsideError: no TPM can be reached, it refuses a command, or it holds no certificate.
    """
    with _open(device) as tpm:
        if certificate is None:
            kind, certificate = _held_certificate(tpm, kind)
        ak = attestation_key(tpm)
        if ak.transient:
            tpm.flush(ak.handle)
        ek, ek_public = _endorsement_key(tpm, kind or "rsa")
        tpm.flush(ek)
    offer = {
        "format": OFFER_FORMAT,
        "ek_certificate": certificate,
        "ek_public": base64_text(ek_public),
        "ak_public": base64_text(ak.public),
    }
    return json.dumps(offer).encode()


def make_answer(challenge: bytes, device: str = DEVICE) -> bytes:
    """What proves that AK and EK of a challenge are in the TPM at `device`. JSON.

    Raises InputError: not a challenge; RefusedError: it is for another machine, or for keys that this TPM has no more;
    OutsideError: no TPM can be reached, or it refuses a command.
    """
    asked = _parse_challenge(challenge)
    with _open(device) as tpm:
        ak = attestation_key(tpm)
        try:
            if _name(ak.public) != asked.ak_name:
                raise RefusedError(
                    "the challenge is for another attestation key than this machine's: it was made from the offer of "
                    "another machine, or the TPM was cleared since; begin with `ostiary tpm offer` here"
                )
            ek, ek_public = _endorsement_key(tpm, asked.ek)
            try:
                if _name(ek_public) != asked.ek_name:
                    raise RefusedError(
                        "the challenge is for the endorsement key of another TPM: the offer named an EK that is not "
                        "this machine's"
                    )
                secret = tpm.activate_credential(ak.handle, ek, asked.credential, asked.encrypted_secret)
            except TpmError as error:
                # Which code a TPM has for this differs by maker and by kind of EK.
                if error.command != ACTIVATE:
                    raise
                raise RefusedError(
                    "the TPM does not open the challenge: it was made for other keys than it says, or was changed; or "
                    "a key here has a password",
                    *error.chain,
                ) from error
            finally:
                tpm.flush(ek)
        finally:
            if ak.transient:
                tpm.flush(ak.handle)
    return json.dumps({"format": ANSWER_FORMAT, "id": asked.id, "secret": base64_text(secret)}).encode()


def _open(device: str) -> Tpm:
    refusal = TpmAttester(device).unavailable()
    if refusal is not None:
        raise OutsideError(refusal)
    return Tpm(device)


def _held_certificate(tpm: Tpm, kind: str | None) -> tuple[str, str]:
    """The kind of an EK whose certificate the TPM holds, and the certificate in PEM."""
    kinds = tuple(EK_KINDS) if kind is None else (kind,)
    for one in kinds:
        found = tpm.nv_read(EK_KINDS[one].certificate_index)
        if found is not None:
            return one, pem_text(_without_padding(found))
    indices = ", ".join(f"{EK_KINDS[one].certificate_index:#010x}" for one in kinds)
    raise OutsideError(
        f"the TPM holds no certificate of an endorsement key (NV index {indices}); "
        "fetch it from its maker, or from the cloud that the machine runs in, and name it with --ek-certificate"
    )


def _without_padding(data: bytes) -> bytes:
    """The certificate that an index begins with, and which some makers fill up: a SEQUENCE, its size in two bytes."""
    if data[:2] != b"\x30\x82":
        raise OutsideError("what the TPM holds in place of its EK's certificate is none; name it with --ek-certificate")
    return data[: 4 + int.from_bytes(data[2:4], "big")]


def _endorsement_key(tpm: Tpm, kind: str) -> tuple[int, bytes]:
    try:
        return tpm.create_primary(ENDORSEMENT, EK_KINDS[kind].template)
    except TpmError as error:
        raise OutsideError(
            "the TPM makes no endorsement key; its endorsement hierarchy may have a password", *error.chain
        ) from error


def _name(public: bytes) -> bytes:
    """The name of a key, from its TPMT_PUBLIC; empty for a hash that no challenge is made for."""
    algorithm = _NAME_HASHES.get(int.from_bytes(public[2:4], "big"))
    return b"" if algorithm is None else public[2:4] + hashlib.new(algorithm, public).digest()


@dataclass(frozen=True, kw_only=True)
class _Challenge:
    id: str
    ek: str
    ek_name: bytes
    ak_name: bytes
    credential: bytes
    encrypted_secret: bytes


def _parse_challenge(data: bytes) -> _Challenge:
    unreadable = InputError("this is not a challenge of `ostiary tpm challenge`; take the file that the owner made")
    if len(data) > MAX_CHALLENGE_BYTES:
        raise unreadable
    try:
        members = json.loads(data)
        if members["format"] != CHALLENGE_FORMAT or members["ek"] not in EK_KINDS:
            raise unreadable
        return _Challenge(
            id=bytes.fromhex(members["id"]).hex(),
            ek=members["ek"],
            ek_name=bytes.fromhex(members["ek_name"]),
            ak_name=bytes.fromhex(members["ak_name"]),
            credential=a2b_base64(members["credential"], strict_mode=True),
            encrypted_secret=a2b_base64(members["encrypted_secret"], strict_mode=True),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise unreadable from error
