"""What the owner alone may decide about freshness: to go on with an older state, or with another anchor.

The store records the identity of its anchor: no start with another one, or with none, gets further. To change that, or
to have a state accepted that the anchor holds to be turned back, the owner signs a statement. It names the very head
that was found, and all that the anchor holds against it:

    ostiary accept-rollback v1
    found head SEQ digest HEX leaves SIZE root HEX
    anchor IDENTITY
    remembers LINE                       one for each thing that the anchor holds against the head; none: nothing
    successor IDENTITY                   the anchor that the store has from then on; it may be the same

The owner's key is an EC key on P-256 or an Ed25519 key, such as the one of `scone self show`. Its public part is
recorded in the store once and never changes; a signature is what `openssl` makes (ECDSA with SHA-256 in DER, or
Ed25519). The statement and the signature stay in the audit log for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Protocol, runtime_checkable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from ostiary.audit import Kind, entry
from ostiary.errors import ConfigurationError, NotAuthorizedError, RefusedError, RollbackError, TamperedError
from ostiary.freshness.growth import Leaves
from ostiary.store import Anchor, Backend, Head, Store, Write
from ostiary.store.vault import Vault

OWNER_RECORD = "owner"
ANCHOR_RECORD = "anchor"


@runtime_checkable
class Recoverable(Anchor, Protocol):
    """An anchor that can say what it holds against a head."""

    def remembered(self) -> tuple[str, ...]:
        """After a `settle` that raised RollbackError: what the anchor remembers instead, a line for each thing."""


def parse_owner_key(pem: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of a public key in PEM. Raises ConfigurationError: no such text, another kind of key."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise ConfigurationError("the owner's key is no public key in PEM") from error
    _require_kind(key)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record_owner(store: Store, spki: bytes, *, now: datetime, random: Callable[[int], bytes]) -> None:
    """Record the owner's key, DER, if there is none yet; it stays for ever.

    Raises NotAuthorizedError if the store has another owner; StoreError.
    """
    record = store.get(OWNER_RECORD)
    if record is None:
        leaf = entry(Kind.OWNER_RECORDED, {"key": _hash(spki)}, now, random)
        store.commit([Write(name=OWNER_RECORD, value=spki, expected_version=0)], leaf).result()
    elif record.value != spki:
        raise NotAuthorizedError(
            f"the owner of this store has the key {_hash(record.value)}, found {_hash(spki)}: an owner is not replaced"
        )


def require_anchor(store: Store, identity: str, *, now: datetime, random: Callable[[int], bytes]) -> None:
    """Hold the store to the anchor it began with. identity: of the anchor that it was opened with, "" for none.

    The first identity is recorded; so is one that comes where there was none, since that is more than before.
    Guarantees on return that no state of this store since was written under another one, but by the owner's decision.
    Raises RefusedError otherwise; StoreError.
    """
    record = store.get(ANCHOR_RECORD)
    recorded = "" if record is None else record.value.decode()
    if recorded == identity:
        return
    if record is not None:
        raise RefusedError(
            f"this store is anchored by {recorded}, found {identity or 'no anchor'}",
            "start it with its own anchor, or have the owner accept another one with `ostiary store accept-rollback`",
        )
    leaf = entry(Kind.ANCHOR_RECORDED, {"anchor": identity}, now, random)
    store.commit([Write(name=ANCHOR_RECORD, value=identity.encode(), expected_version=0)], leaf).result()


def make_statement(store: Store, anchor: Recoverable, *, identity: str, successor: str, leaves: Leaves) -> str:
    """The statement that the owner has to sign so that the store's head is accepted, under the anchor `successor`.

    store, leaves: as `accept_rollback`. identity: of `anchor`, as `require_anchor` has it; successor: an identity too.
    Raises RefusedError if there is nothing to decide, as the anchor holds nothing against the head, and stays; or if
    `anchor` is not the store's, so that nobody has the owner sign against one of his own making; StoreError if it
    cannot be asked.
    """
    head, record = store.head, store.get(ANCHOR_RECORD)
    if record is not None and record.value.decode() != identity:
        raise RefusedError(
            f"this store is anchored by {record.value.decode()}, found {identity}",
            "give the settings that it was started with",
        )
    against: tuple[str, ...] = ()
    try:
        anchor.settle(head, leaves)
    except RollbackError:
        against = anchor.remembered() or ("nothing of this history",)
    else:
        if successor == identity:
            raise RefusedError(f"{anchor.place} takes head {head.seq} for the newest: there is no rollback to accept")
    lines = (
        "ostiary accept-rollback v1",
        f"found head {head.seq} digest {head.digest.hex()} leaves {head.log_size} root {head.log_root.hex()}",
        f"anchor {identity}",
        *(f"remembers {line}" for line in against),
        f"successor {successor}",
    )
    return "".join(f"{line}\n" for line in lines)


def accept_rollback(
    store: Store,
    anchor: Recoverable,
    signature: bytes,
    *,
    identity: str,
    successor: str,
    leaves: Leaves,
    now: datetime,
    random: Callable[[int], bytes],
) -> Head:
    """Go on with the state that `store` has, whatever `anchor` remembers, under the anchor with identity `successor`.

    store: opened without an anchor, by this process alone. signature: the owner's over `make_statement`. identity: of
    `anchor`. leaves: the reader of the log (`read_leaves`).
    Returns the head that holds the decision; the caller makes an anchor that can forget (file, TPM) forget, and has it
    settle this head. Witnesses never forget: their successor is a log of another name, which the next start begins.
    Guarantees that the owner recorded in this very store signed this very head and what the anchor holds against it
    now; that statement and signature are a leaf of the log before any anchor knows; that the signature is worth nothing
    a second time while an anchor remembers what came of it. Does not tell whether the newer state is really lost.
    Raises RefusedError (nothing to decide), NotAuthorizedError (no owner, not his signature), StoreError. If the
    process ends before the anchor moved, the new head is refused again, and the owner signs again for that one.
    """
    statement = make_statement(store, anchor, identity=identity, successor=successor, leaves=leaves)
    owner = store.get(OWNER_RECORD)
    if owner is None:
        raise NotAuthorizedError(
            "this store has no owner: none was recorded before this state was written, so nobody can accept a rollback"
        )
    verify_statement(statement, signature, owner.value)
    leaf = entry(
        Kind.ROLLBACK_ACCEPTED,
        {
            "statement": statement,
            "signature": signature.hex(),
            "owner": _hash(owner.value),
        },
        now,
        random,
    )
    pinned = store.version(ANCHOR_RECORD) or 0
    write = Write(name=ANCHOR_RECORD, value=successor.encode(), expected_version=pinned)
    return store.commit([write], leaf).result()


def read_leaves(backend: Backend, database_key: bytes) -> Leaves:
    """The log's leaves in the clear, for anchors: what `Anchor.settle` is given, of a database nobody writes to."""
    vault = Vault(database_key)

    def leaves(start: int) -> Iterator[bytes]:
        with backend.snapshot() as view:
            for row in view.leaves(start):
                yield vault.unseal_leaf(row)

    return leaves


def verify_statement(statement: str, signature: bytes, spki: bytes) -> None:
    """Raises NotAuthorizedError unless `signature` is of the key, DER, over the statement's UTF-8."""
    try:
        key = load_der_public_key(spki)
    except ValueError as error:
        raise TamperedError("the recorded key of the owner is none") from error
    _require_kind(key)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, statement.encode())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, statement.encode(), ec.ECDSA(SHA256()))
    except InvalidSignature as error:
        raise NotAuthorizedError(
            f"the signature is not of the owner, whose key is {_hash(spki)}, over this very statement",
            "let the owner sign exactly the text that this command prints now",
        ) from error


def _require_kind(key: object) -> None:
    if isinstance(key, Ed25519PublicKey):
        return
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return
    raise ConfigurationError("the owner's key is neither Ed25519 nor an EC key on P-256", "make one of these")


def _hash(spki: bytes) -> str:
    return hashlib.sha256(spki).hexdigest()
