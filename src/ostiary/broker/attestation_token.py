"""A token in place of evidence: what the attestation service that a session names says of a program."""

from __future__ import annotations

from ostiary.broker.cas import Cas
from ostiary.broker.key_sets import Trust
from ostiary.errors import ReleaseRefusedError
from ostiary.evidence.claims import Claims
from ostiary.evidence.maa import parse_token, verify
from ostiary.session.model import SecurityAttestation, Variable


async def claims_of_token(cas: Cas, session: str, security: SecurityAttestation, token: bytes) -> Claims:
    """The verified claims of a token for a session with mode maa.

    Guarantees: the service at `security.url` vouches for them now, by a key that its server showed over TLS trusted by
    `security.certificates`, less than KEY_SET_LIFE ago. Not guaranteed: what `appraise` judges.
    Raises EvidenceFormatError, EvidenceRefusedError, KeysUnavailableError; ReleaseRefusedError for a session whose
    service is not known.
    """
    url, certificates = security.url, tuple(text for text in security.certificates if not isinstance(text, Variable))
    if not isinstance(url, str) or len(certificates) != len(security.certificates):
        raise ReleaseRefusedError(f"session {session}: url or certificates of security.attestation are not resolved")
    key_id = parse_token(token).key_id
    key_set = await cas.key_sets.key_set(Trust(url=url, certificates=certificates), key_id)
    return verify(token, key_set, issuer=url, now=cas.now())
