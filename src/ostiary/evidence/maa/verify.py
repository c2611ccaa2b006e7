"""Is a token of Microsoft Azure Attestation authentic? The only place that makes `Claims` of one; PyJWT decides."""

from __future__ import annotations

from datetime import datetime, timedelta

from jwt import PyJWS, PyJWTError

from ostiary.errors import EvidenceRefusedError
from ostiary.evidence.claims import MAA_MANAGED, Claims
from ostiary.evidence.maa.layout import parse_key_set, parse_sgx_payload, parse_token, parse_validity

MAX_CLOCK_SKEW = timedelta(seconds=60)
"""How far in the future a token may begin: it is made a moment before it is shown, by another clock."""

_ALGORITHM = "RS256"


def verify(token: bytes, key_set: bytes, *, issuer: str, now: datetime) -> Claims:
    """Verify a token about an SGX enclave. Pure: `now` (aware) is the only clock.

    Guarantees: the holder of a key in `key_set` vouches for every field of the claims, as `issuer`, at `now`.
    Does not guarantee: that the keys are those of `issuer` (whoever fetched them saw to that), that the TCB is a good
    one or even known (`issuer` judged it, by a policy that `issuer`'s owner wrote), or what `appraise` judges.
    Raises as `authenticate`, and EvidenceRefusedError for a token that is not about an SGX enclave.
    """
    text = authenticate(token, key_set, issuer=issuer, now=now)
    payload = parse_sgx_payload(text)
    return Claims(
        tee="sgx",
        measurements={"mrenclave": payload.mrenclave},
        signer=payload.mrsigner,
        product_id=payload.isvprodid,
        svn=payload.isvsvn,
        report_data=payload.report_data,
        debug=payload.debug,
        software=False,
        tcb_status=MAA_MANAGED,
        advisories=frozenset(),
        tcb_date=None,
        platform_id="",
        attestation_service=issuer,
        issued=parse_validity(text).not_before,
    )


def authenticate(token: bytes, key_set: bytes, *, issuer: str, now: datetime) -> bytes:
    """The payload of a token of any type, once it is authentic.

    Checks, in this order:
    1. Form of token and key set (`layout`).
    2. The token's `kid` names an RSA key of 2048 bits or more in the key set. `jku` and `x5u` are never followed.
    3. That key signed it, with RS256 (RFC 7518, 3.3); no other algorithm, above all not `none`, by which the service
       marks what it attested under a draft of a policy.
    4. `iss` is `issuer`, byte for byte: a test instance has a name that ends as the others do.
    5. `nbf` is not more than MAX_CLOCK_SKEW after `now`, and `exp` is after `now`.

    Raises EvidenceFormatError (1) and EvidenceRefusedError (2 to 5).
    Source: RFC 7515, 5.2; RFC 8725, 3.1 and 3.8 to 3.10; Azure Attestation, "Examples of an attestation token".
    """
    # 1.
    key_id, known = parse_token(token).key_id, parse_key_set(key_set)
    # 2.
    key = known.keys.get(key_id)
    if key is None:
        why = "is no RSA key of 2048 bits or more" if key_id in known.unfit else "is none of the attestation service's"
        raise EvidenceRefusedError(f"the key {key_id!r} that signed the token {why}; have the enclave attested anew")
    # 3.
    try:
        payload = PyJWS().decode_complete(token, key, algorithms=[_ALGORITHM])["payload"]
    except PyJWTError as error:
        raise EvidenceRefusedError(
            f"the token is not signed with {_ALGORITHM} by the key that it names", str(error)
        ) from error
    # 4.
    validity = parse_validity(payload)
    if validity.issuer != issuer:
        raise EvidenceRefusedError(
            f"the token was issued by {validity.issuer[:256]!r}, which is not the attestation service of the session"
        )
    # 5.
    if validity.not_before > now + MAX_CLOCK_SKEW:
        raise EvidenceRefusedError(f"the token begins at {validity.not_before:%Y-%m-%dT%H:%M:%SZ}; compare the clocks")
    if validity.expires <= now:
        raise EvidenceRefusedError(
            f"the token ended at {validity.expires:%Y-%m-%dT%H:%M:%SZ}; have the enclave attested anew"
        )
    return bytes(payload)
