"""Values of a session whose place is a key vault: sealed here, kept there as entries that tell nothing. Pure.

A value is written as `encode_values` writes it, filled up with blanks to a multiple of PADDED_BYTES, and cut into parts
of at most PART_BYTES, since a vault holds 25 KB an entry. Each part is one entry::

    name      cas-SESSION_HASH-TAG, both hex: 32 bytes, and 16 random bytes that are used for this part alone
    text      base64 (RFC 4648 section 4) of
              0x00  12  nonce
              0x0C   n  ciphertext, as long as the part
              +n    16  tag of AES-256-GCM-SIV (RFC 8452); associated data = the entry's name

No entry is ever written twice: what is made anew gets a new tag. So an entry has one version in the vault for all its
life, and another one there was put by somebody else.

Source: session language, "Secret backend"; Key Vault REST API 7.4, "Set Secret"; Key Vault service limits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.value import Value, decode_values, encode_values
from ostiary.secret.vault import VaultEntry

KEY_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = 12
PART_BYTES = 16 * 1024
"""As base64, sealed, 21,884 characters."""
PADDED_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class KeptEntry:
    """What the service's own database keeps of an entry, and the vault cannot change.

    tag: 16 bytes, of its name. version: as the vault named it when it was written. digest: SHA-256 of its text.
    """

    tag: bytes
    version: str
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class KeptValues:
    """The values of one session version in its vault. key: 32 bytes, seals them all, and never leaves the service.

    entries: of each value, in the order of its parts.
    """

    key: bytes = field(repr=False)
    entries: Mapping[str, tuple[KeptEntry, ...]]


def entry_name(session_hash: bytes, tag: bytes) -> str:
    """The name in the vault: letters, digits and dashes, 101 of the 127 that a vault admits."""
    return f"cas-{session_hash.hex()}-{tag.hex()}"


def parts_of(name: str, value: Value) -> list[bytes]:
    """A value as the parts that are sealed."""
    data = encode_values({name: value})
    data = data.ljust(-(-len(data) // PADDED_BYTES) * PADDED_BYTES)
    return [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]


def seal_part(part: bytes, *, key: bytes, entry: str, nonce: bytes) -> str:
    """The text of an entry. nonce: 12 bytes."""
    return base64.b64encode(nonce + AESGCMSIV(key).encrypt(nonce, part, entry.encode())).decode("ascii")


def digest_of(text: str) -> bytes:
    """Remembered of an entry's text. What a vault gives may be no Unicode: JSON has halves of surrogate pairs."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def open_part(found: VaultEntry, kept: KeptEntry, *, key: bytes, entry: str) -> bytes:
    """The part that an entry holds.

    Guarantees: it is what was written last under this name, in the version that was written.
    Raises ReleaseRefusedError that says which of the two it is not, and never quotes it.
    """
    if found.version != kept.version:
        raise ReleaseRefusedError(
            f"entry {entry} is not in the version that this service wrote: somebody wrote or restored another",
        )
    if not hmac.compare_digest(digest_of(found.text), kept.digest):
        raise ReleaseRefusedError(f"entry {entry} was changed, or put back to an older text")
    try:
        data = base64.b64decode(found.text, validate=True)
        return AESGCMSIV(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], entry.encode())
    except (ValueError, InvalidTag):
        raise ReleaseRefusedError(f"entry {entry} does not decrypt with the key in the session's record") from None


def value_of(name: str, parts: Iterable[bytes]) -> Value:
    """The value that `parts_of` cut up. Raises StoreError, KeyError: what no `parts_of` wrote."""
    return decode_values(b"".join(parts))[name]
