"""Keys in PKCS#11 tokens: smart cards, security keys, HSMs. The token signs; we never see the key.

A token is asked for: objects of class public key, or else a certificate with the same CKA_ID; after C_Login the private
key; then CKM_EDDSA over the message, or CKM_ECDSA over its hash, which gives r and s, each as long as the order. A key
that is CKA_ALWAYS_AUTHENTICATE gets the PIN a second time, for that one signature. A token with a keypad asks by
itself. Only this module needs the extra `pkcs11`.
Source: PKCS #11 v3.0, base specification, and current mechanisms, section 2.3.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pkcs11
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11._pkcs11 import lib as Library  # noqa: N812 - it is a class
from pkcs11.types import PROTECTED_AUTH, SignMixin

from ostiary.errors import ConfigurationError, OutsideError
from ostiary.member_key.key import EXPECTED, Asking, MemberKey, spki_of
from ostiary.member_key.pin_file import read_pin
from ostiary.member_key.pkcs11_uri import KeyUri

MODULE_VARIABLE = "PKCS11_MODULE_PATH"
"""Names the library where the URI does not, as for OpenSSL's engine."""

_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
"""CKA_EC_PARAMS: the OID 1.3.101.112, or the name of the curve as a PrintableString."""
_CURVES: dict[bytes, tuple[ec.EllipticCurve, str]] = {
    bytes.fromhex("06082a8648ce3d030107"): (ec.SECP256R1(), "sha256"),
    bytes.fromhex("06052b81040022"): (ec.SECP384R1(), "sha384"),
}
_POINT_BYTES = {"ed25519": 32, "secp256r1": 65, "secp384r1": 97}
_OCTET_STRING = 4


@dataclass(frozen=True, kw_only=True)
class TokenKey:
    """The one key that a URI names."""

    uri: KeyUri

    @property
    def name(self) -> str:
        return f"PKCS#11 key {self.uri}"

    def public(self) -> bytes | None:
        """None also where a token shows its public keys to those only who are logged in."""
        token = self._token()
        with _told(self.name), token.open() as session:
            return self._spki(session)

    @contextmanager
    def unlocked(self, ask: Asking) -> Iterator[MemberKey]:
        token = self._token()
        keypad = pkcs11.TokenFlag.PROTECTED_AUTHENTICATION_PATH in token.flags
        pin = None if keypad else self._pin(ask)
        with _told(self.name):
            session = token.open(user_pin=PROTECTED_AUTH if pin is None else pin)
        with session:
            with _told(self.name):
                private, spki = self._private(session), self._spki(session)
            if spki is None:
                raise ConfigurationError(
                    f"{self.name}: the token has neither a public key nor a certificate beside the private key"
                )
            yield _Usable(name=self.name, spki=spki, private=private, pin=pin)

    def _pin(self, ask: Asking) -> str:
        pin = ask(f"PIN of {self.name}") if self.uri.pin_file is None else read_pin(Path(self.uri.pin_file))
        if not pin:
            raise ConfigurationError(f"{self.name}: no PIN was given")
        return pin

    def _token(self) -> pkcs11.Token:
        uri = self.uri
        library = _library(uri)
        with _told(self.name):
            found = [
                token
                for token in library.get_tokens(token_label=uri.token)
                if pkcs11.TokenFlag.TOKEN_INITIALIZED in token.flags
                and uri.manufacturer in (None, token.manufacturer_id)
                and uri.model in (None, token.model)
                and uri.serial in (None, token.serial.decode(errors="replace"))
                and uri.slot_id in (None, token.slot.slot_id)
            ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigurationError(f"{self.name}: no such token is there", "is it plugged in?")
        labels = ", ".join(f"{token.label!r} (serial {token.serial.decode(errors='replace')})" for token in found)
        raise ConfigurationError(f"{self.name}: {len(found)} tokens fit", f"add token= or serial=: {labels}")

    def _objects(self, session: pkcs11.Session, kind: pkcs11.ObjectClass) -> list[pkcs11.Object]:
        wanted: dict[pkcs11.Attribute, object] = {pkcs11.Attribute.CLASS: kind}
        if self.uri.object_label is not None:
            wanted[pkcs11.Attribute.LABEL] = self.uri.object_label
        if self.uri.object_id is not None:
            wanted[pkcs11.Attribute.ID] = self.uri.object_id
        return list(session.get_objects(wanted))

    def _spki(self, session: pkcs11.Session) -> bytes | None:
        attribute = pkcs11.Attribute
        keys = self._objects(session, pkcs11.ObjectClass.PUBLIC_KEY)
        found = {
            _spki_of_point(bytes(key[attribute.EC_PARAMS]), bytes(key[attribute.EC_POINT]), self.name)
            for key in keys
            if key[attribute.KEY_TYPE] in (pkcs11.KeyType.EC, pkcs11.KeyType.EC_EDWARDS)
        }
        if not keys:
            certificates = self._objects(session, pkcs11.ObjectClass.CERTIFICATE)
            found = {_spki_of_certificate(bytes(one[attribute.VALUE]), self.name) for one in certificates}
        if len(found) > 1:
            raise ConfigurationError(f"{self.name}: the token has {len(found)} such keys", "add id= or object=")
        if keys and not found:
            raise ConfigurationError(f"{self.name}: the key is of another type, {EXPECTED}")
        return next(iter(found), None)

    def _private(self, session: pkcs11.Session) -> SignMixin:
        found = self._objects(session, pkcs11.ObjectClass.PRIVATE_KEY)
        if len(found) != 1:
            shown = "does not have it" if not found else f"has {len(found)} such keys; add id= or object="
            raise ConfigurationError(f"{self.name}: the token {shown}")
        key = found[0]
        if not isinstance(key, SignMixin):
            raise ConfigurationError(f"{self.name}: the token does not let it sign")
        return key


@dataclass(frozen=True, kw_only=True)
class _Usable:
    name: str
    spki: bytes
    private: SignMixin = field(repr=False)
    pin: str | None = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        key, attribute = self.private, pkcs11.Attribute
        with _told(self.name):
            again = self.pin if _always_authenticates(key) else None
            if key[attribute.KEY_TYPE] == pkcs11.KeyType.EC_EDWARDS:
                return key.sign(message, mechanism=pkcs11.Mechanism.EDDSA, pin=again)
            digest = hashlib.new(_CURVES[bytes(key[attribute.EC_PARAMS])][1], message).digest()
            raw = key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA, pin=again)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _library(uri: KeyUri) -> Library:
    path = uri.module_path or os.environ.get(MODULE_VARIABLE)
    if not path:
        raise ConfigurationError(
            f"PKCS#11 key {uri}: nothing names the token's library",
            f"add ?module-path=/PATH/OF/LIBRARY.so to the URI, or set {MODULE_VARIABLE}",
        )
    with _told(f"PKCS#11 library {path}"):
        return pkcs11.lib(path)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the library says, in our words. Raises ConfigurationError: a PIN; OutsideError: all else."""
    try:
        yield
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        raise ConfigurationError(
            f"{name}: the PIN is wrong", "a token locks itself after a few wrong PINs; do not guess"
        ) from None
    except pkcs11.PinLocked:
        raise ConfigurationError(f"{name}: the PIN is locked after too many wrong ones") from None
    except pkcs11.PKCS11Error as error:
        raise OutsideError(f"{name}: the token failed", str(error) or type(error).__name__) from None


def _always_authenticates(key: SignMixin) -> bool:
    try:
        return bool(key[pkcs11.Attribute.ALWAYS_AUTHENTICATE])
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive):
        # Older than version 2.20, which brought the attribute.
        return False


def _spki_of_point(parameters: bytes, point: bytes, name: str) -> bytes:
    """A point is in an OCTET STRING, or, of some tokens, bare; its length tells which."""
    if parameters in _ED25519:
        bare = _bare(point, _POINT_BYTES["ed25519"])
    elif parameters in _CURVES:
        bare = _bare(point, _POINT_BYTES[_CURVES[parameters][0].name])
    else:
        raise ConfigurationError(f"{name}: the key is on another curve, {EXPECTED}")
    try:
        if parameters in _ED25519:
            return spki_of(ed25519.Ed25519PublicKey.from_public_bytes(bare), name)
        return spki_of(ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[parameters][0], bare), name)
    except ValueError:
        raise OutsideError(f"{name}: the token's public key cannot be read") from None


def _bare(point: bytes, size: int) -> bytes:
    return point[2:] if len(point) == size + 2 and point[:2] == bytes((_OCTET_STRING, size)) else point


def _spki_of_certificate(der: bytes, name: str) -> bytes:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise OutsideError(f"{name}: the token's certificate cannot be read") from None
    return spki_of(key, name)
