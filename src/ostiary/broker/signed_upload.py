"""Create or update a session by signatures: who signed counts, and not who connects."""

from __future__ import annotations

import asyncio

from ostiary.broker.cas import Cas
from ostiary.broker.session_encryption import encryption_key
from ostiary.broker.upload import Uploaded, store_upload
from ostiary.errors import InputError
from ostiary.session import ParsedSession, SignerSubject, parse_session
from ostiary.session.encrypted import decrypt_session, parse_encrypted_session
from ostiary.session.signed import VerifiedSigners, parse_signed_session, verify_signatures
from ostiary.store import Store


async def upload_signed_session(cas: Cas, body: bytes) -> Uploaded:
    """Make the session in `body`, JSON of `ostiary.session.signed`, the current version of its name.

    Guarantees on return what `upload_session` does, with the verified signers as the caller; and besides: every
    signature in `body` holds over the session as it is stored, `creator` included; the creator, if the session records
    one, is one of the signers. A client certificate plays no part.

    Raises InputError (not of the form, a signature that does not hold, a creator that signed nothing) and what
    `upload_session` raises.
    """
    parsed, signers = await asyncio.to_thread(_read, body)
    return await store_upload(cas, parsed, signers)


async def upload_encrypted_session(cas: Cas, body: bytes) -> Uploaded:
    """As `upload_signed_session`, of JSON of `ostiary.session.encrypted` with a signed session inside.

    Raises InputError besides: encrypted for another service, or by another scheme.
    """
    return await upload_signed_session(cas, await asyncio.to_thread(_decrypt, cas.store, body))


def _decrypt(store: Store, body: bytes) -> bytes:
    return decrypt_session(parse_encrypted_session(body), encryption_key(store))


def _read(body: bytes) -> tuple[ParsedSession, VerifiedSigners]:
    signed = parse_signed_session(body)
    parsed = parse_session(signed.text)
    signers = verify_signatures(parsed.hash, signed.signatures)
    _check_creator(parsed, signers)
    return parsed, signers


def _check_creator(parsed: ParsedSession, signers: VerifiedSigners) -> None:
    """The signatures cover `creator`, so it is there already, or it never will be."""
    creator = parsed.session.creator
    if creator is None and parsed.names_creator:
        raise InputError(
            f"Failed to upload signed session '{parsed.session.name}'",
            "its access policy names CREATOR, explicitly or by default, and the session does not say who that is; the "
            "signatures cover the creator, so the service cannot add it",
            "set `creator: {signer: <public key>}` to one of the signers and sign again, as `session sign` does",
        )
    if isinstance(creator, str):
        raise InputError(
            "creator is a certificate, and the creator of a signed session is one of its signers",
            "set `creator: {signer: <public key>}` and sign again, or upload it unsigned over TLS",
        )
    if isinstance(creator, SignerSubject) and creator.spki not in signers.keys:
        raise InputError(
            "creator is a key that did not sign: a session records who uploaded it",
            "add a signature of the creator's key, or sign the session with `creator` set to one of its signers",
        )
