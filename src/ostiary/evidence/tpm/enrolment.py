"""The owner's half of enrolling a TPM's attestation key (AK): is it in the TPM that a maker certified?

The machine offers its EK, with the maker's certificate, and its AK. The owner hides a secret for that EK and the name
of that AK. Only a TPM that holds both gives it out, so whoever answers with it has that AK in that TPM. Then the owner
pins the AK. Messages: docs/tpm-enrolment.md. The machine's half is `ostiary.attester.tpm_enrolment`.
Source: TCG TPM 2.0 Library, part 1, "Credential Protection".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.tpm.endorsement_key import EndorsementKey, parse_endorsement_key, verify_ek_certificate
from ostiary.evidence.tpm.layout import HASHES, PublicArea, parse_public_area, pem_of_key
from ostiary.evidence.tpm.wire import json_object

OFFER_FORMAT = "ostiary-tpm-offer-v1"
CHALLENGE_FORMAT = "ostiary-tpm-challenge-v1"
ANSWER_FORMAT = "ostiary-tpm-answer-v1"
KEPT_FORMAT = "ostiary-tpm-enrolment-v1"
MAX_MESSAGE_BYTES = 256 * 1024
"""Of one message: an offer with a chain of eight certificates is far below."""
SECRET_BYTES = 32
"""The most that an EK named by SHA-256 takes."""
ID_BYTES = 16
MAX_AGE = timedelta(days=7)
"""Of a challenge: files may have to be carried from one place to the other."""

_DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a machine says of its TPM; nothing of it is verified. ek_certificates: PEM."""

    ek_certificates: bytes
    ek: EndorsementKey
    ak: PublicArea


@dataclass(frozen=True, kw_only=True)
class VerifiedOffer:
    """An EK that its maker certified, and an AK that may be in the same TPM. Made by `verify_offer` only."""

    ek: EndorsementKey
    ek_certificate: x509.Certificate
    ak: PublicArea


@dataclass(frozen=True, kw_only=True)
class Credential:
    """Contents of a TPM2B_ID_OBJECT and of a TPM2B_ENCRYPTED_SECRET."""

    credential: bytes
    encrypted_secret: bytes


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What the owner remembers of a challenge. ak: PEM. secret_sha256: of the secret, which nobody keeps.

    ek_certificate_sha256: of its DER. made: when (aware).
    """

    id: bytes
    made: datetime
    ak: str
    ak_name: bytes
    ek_certificate_sha256: bytes
    secret_sha256: bytes = field(repr=False)


def parse_offer(data: bytes) -> Offer:
    """Read an offer, with the public areas in it. Authenticates nothing.

    JSON: `format`; `ek_certificate`, PEM; `ek_public`, `ak_public`: TPMT_PUBLIC, base64.
    Raises EvidenceFormatError, and nothing else for any bytes.
    """
    members = _members(data, OFFER_FORMAT, "offer", ("ek_certificate", "ek_public", "ak_public"))
    certificates = members["ek_certificate"]
    if not certificates.isascii():
        raise EvidenceFormatError("offer, ek_certificate: expected PEM")
    return Offer(
        ek_certificates=certificates.encode("ascii"),
        ek=parse_endorsement_key(_binary(members, "ek_public", "offer")),
        ak=parse_public_area(_binary(members, "ak_public", "offer")),
    )


def verify_offer(
    offer: Offer, *, certificates: bytes = b"", roots: Sequence[TrustedRoot], now: datetime
) -> VerifiedOffer:
    """Decide whether a challenge may be made for this offer. Pure: `now` (aware) is the only clock.

    certificates: PEM, issuers and revocation lists that the offer lacks; they are used, never trusted.

    Guarantees on return:
    1. Somebody whom the owner believes certified the EK (`verify_ek_certificate`).
    2. The AK is a restricted signing key that cannot leave its TPM, and its name is no SHA-1.
    Does not guarantee that the AK is in a TPM at all: the answer to the challenge proves it.

    Raises EvidenceFormatError and EvidenceRefusedError.
    """
    # 1.
    certificate = verify_ek_certificate(offer.ek_certificates + b"\n" + certificates, offer.ek, roots=roots, now=now)
    # 2.
    if offer.ak.missing:
        raise EvidenceRefusedError(
            "the AK is not a restricted signing key of its TPM: it could leave it, or sign what the TPM did not make",
            f"its attributes lack {', '.join(offer.ak.missing)}",
        )
    if HASHES[int.from_bytes(offer.ak.name[:2], "big")] == "sha1":
        raise EvidenceRefusedError("the AK is named by SHA-1: another key may have the same name")
    return VerifiedOffer(ek=offer.ek, ek_certificate=certificate, ak=offer.ak)


def make_challenge(
    offer: VerifiedOffer,
    *,
    random: Callable[[int], bytes],
    make_credential: Callable[[bytes, bytes, bytes], Credential],
    now: datetime,
) -> tuple[bytes, Pending]:
    """A challenge for the machine, JSON, and what to remember of it.

    make_credential: `credential.make_credential`. The secret is fresh, and nothing but the credential holds it.
    """
    challenge_id, secret = random(ID_BYTES), random(SECRET_BYTES)
    hidden = make_credential(offer.ek.area, secret, offer.ak.name)
    challenge = {
        "format": CHALLENGE_FORMAT,
        "id": challenge_id.hex(),
        "ek": offer.ek.kind,
        "ek_name": offer.ek.name.hex(),
        "ak_name": offer.ak.name.hex(),
        "credential": _base64(hidden.credential),
        "encrypted_secret": _base64(hidden.encrypted_secret),
    }
    pending = Pending(
        id=challenge_id,
        made=now,
        ak=pem_of_key(offer.ak),
        ak_name=offer.ak.name,
        ek_certificate_sha256=offer.ek_certificate.fingerprint(hashes.SHA256()),
        secret_sha256=hashlib.sha256(secret).digest(),
    )
    return json.dumps(challenge).encode(), pending


def accept_answer(answer: bytes, pending: Pending, *, now: datetime) -> str:
    """The AK in PEM, if this is the answer to the challenge that `pending` remembers. Pure.

    Guarantees: whoever made the answer had the challenge's secret, so a TPM that holds the EK and the AK of the
    verified offer gave it out, at most MAX_AGE ago. Does not guarantee that the answer comes from the machine itself,
    nor that it was not accepted before: each leads to the same AK.

    Raises EvidenceFormatError and EvidenceRefusedError.
    """
    members = _members(answer, ANSWER_FORMAT, "answer", ("id", "secret"))
    answered, secret = _hex(members, "id", ID_BYTES, "answer"), _binary(members, "secret", "answer")
    if now - pending.made > MAX_AGE:
        raise EvidenceRefusedError(
            f"the challenge is older than {MAX_AGE.days} days; make a new one with `ostiary tpm challenge`",
            f"it was made at {pending.made:%Y-%m-%dT%H:%M:%SZ}",
        )
    if answered != pending.id:
        raise EvidenceRefusedError(
            "this is the answer to another challenge",
            f"it names {answered.hex()}, expected {pending.id.hex()}",
        )
    if not hmac.compare_digest(hashlib.sha256(secret).digest(), pending.secret_sha256):
        raise EvidenceRefusedError("the answer is wrong: no TPM that holds both keys of the offer gave it")
    return pending.ak


def pending_text(pending: Pending) -> bytes:
    """What `parse_pending` reads, JSON."""
    members = {
        "format": KEPT_FORMAT,
        "id": pending.id.hex(),
        "made": pending.made.astimezone(UTC).isoformat(),
        "ak": pending.ak,
        "ak_name": pending.ak_name.hex(),
        "ek_certificate_sha256": pending.ek_certificate_sha256.hex(),
        "secret_sha256": pending.secret_sha256.hex(),
    }
    return json.dumps(members).encode()


def parse_pending(data: bytes) -> Pending:
    """What `pending_text` wrote. Raises EvidenceFormatError, and nothing else for any bytes.

    Authenticates nothing: whoever can write the file says which AK is accepted, and so can whoever writes the AK.
    """
    what = "kept challenge"
    names = ("id", "made", "ak", "ak_name", "ek_certificate_sha256", "secret_sha256")
    members = _members(data, KEPT_FORMAT, what, names)
    try:
        made = datetime.fromisoformat(members["made"])
        ak_name = bytes.fromhex(members["ak_name"])
    except ValueError as error:
        raise EvidenceFormatError(f"{what}: made or ak_name is not what was written") from error
    if made.tzinfo is None:
        raise EvidenceFormatError(f"{what}, made: expected a time with its zone")
    return Pending(
        id=_hex(members, "id", ID_BYTES, what),
        made=made,
        ak=members["ak"],
        ak_name=ak_name,
        ek_certificate_sha256=_hex(members, "ek_certificate_sha256", _DIGEST_BYTES, what),
        secret_sha256=_hex(members, "secret_sha256", _DIGEST_BYTES, what),
    )


def _members(data: bytes, form: str, what: str, names: tuple[str, ...]) -> dict[str, str]:
    """The members of a message, all of them text, without its format."""
    members = json_object(data, MAX_MESSAGE_BYTES, what)
    if members.get("format") != form:
        raise EvidenceFormatError(f"{what}: not a file of `ostiary tpm`, or of another step; expected format {form}")
    if members.keys() != {"format", *names}:
        raise EvidenceFormatError(f"{what}: expected the members format, {', '.join(names)}, and no other")
    texts = {name: value for name, value in members.items() if isinstance(value, str)}
    if len(texts) != len(members):
        raise EvidenceFormatError(f"{what}: expected texts only")
    return texts


def _binary(members: Mapping[str, str], name: str, what: str) -> bytes:
    try:
        return a2b_base64(members[name], strict_mode=True)
    except ValueError as error:
        raise EvidenceFormatError(f"{what}, {name}: expected base64") from error


def _hex(members: Mapping[str, str], name: str, size: int, what: str) -> bytes:
    try:
        found = bytes.fromhex(members[name])
    except ValueError:
        found = b""
    if len(found) != size:
        raise EvidenceFormatError(f"{what}, {name}: expected {2 * size} hex digits")
    return found


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")
