"""What a key vault holds, to the value of a secret. Source: session language, "Import from Azure Key Vault"."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from ostiary.errors import InputError, ReleaseRefusedError
from ostiary.secret.akv import decode_akv
from ostiary.secret.certificate import parse_certificate
from ostiary.secret.import_value import describe_source, require_kind, require_size
from ostiary.secret.kind import text_value
from ostiary.secret.pem import pem_blocks, pem_labels
from ostiary.secret.private_key import MAX_RSA_BITS, MIN_RSA_BITS, parse_private_key
from ostiary.secret.value import BinaryValue, PrivateKeyValue, Value
from ostiary.session.model import AkvSecret

_BINARY_TYPE, _RSA_KEY_TYPE = "binary", "PKCS#1"


@dataclass(frozen=True, kw_only=True)
class VaultEntry:
    """text: the secret as the vault gives it. type: its content type there. version: its name of this text. "" if not
    said.
    """

    text: str = field(repr=False)
    type: str = ""
    version: str = ""


def vault_value(secret: AkvSecret, entry: VaultEntry, *, key: bytes | None) -> Value:
    """The value of a secret in a key vault. key: of `decryption_key`, None if the secret names none.

    Encrypted, it is bytes or an RSA key where the vault's type says so. All else is text; text that is PEM with a
    certificate is that certificate, its chain, and its key if that stands beside it, unless the session says kind
    `ascii`. PKCS#12 stays the text that it is.
    Raises ReleaseRefusedError: it does not decrypt, is not what its type says, or is not what the session expects.
    """
    try:
        value = _plain(secret, entry.text) if key is None else _decrypted(secret, decode_akv(entry.text, key), entry)
    except InputError as error:
        raise ReleaseRefusedError(f"{describe_source(secret)}: {error.message}", *error.causes) from None
    require_kind(secret, "", value)
    require_size(secret, value)
    return value


def _decrypted(secret: AkvSecret, data: bytes, entry: VaultEntry) -> Value:
    if entry.type == _BINARY_TYPE:
        return BinaryValue(data=data)
    if entry.type == _RSA_KEY_TYPE:
        return _rsa_key(data)
    try:
        return _plain(secret, data.decode())
    except UnicodeDecodeError:
        raise InputError("it is not UTF-8 text; set the content type 'binary' in the vault") from None


def _plain(secret: AkvSecret, text: str) -> Value:
    labels = pem_labels(text)
    if secret.kind == "private-key":
        return parse_private_key(text)
    if secret.kind != "ascii" and "CERTIFICATE" in labels and set(labels) <= {"CERTIFICATE", "PRIVATE KEY"}:
        keys = pem_blocks(text, "PRIVATE KEY")
        key = parse_private_key(keys) if keys else None
        return parse_certificate(pem_blocks(text, "CERTIFICATE"), key=key)
    return text_value(text)


def _rsa_key(data: bytes) -> PrivateKeyValue:
    """RSAPrivateKey (RFC 8017, appendix A.1.2), DER."""
    try:
        key = load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey) or not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InputError(f"it is not the DER of an RSA private key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    return PrivateKeyValue(pkcs8_der=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
