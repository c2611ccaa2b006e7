"""A fresh P-256 key with its certificate, and the public key of any certificate, by OpenSSL's libcrypto.

The standard library speaks TLS but makes no keys. Its `_ssl` module is linked to libcrypto, which ctypes can call; the
key goes straight into a file descriptor and never becomes a Python object.
Source: OpenSSL 3.0 manual, sections 3ossl EVP_PKEY_Q_keygen, X509_sign, PEM_write_bio_PrivateKey, d2i_X509.
"""

from __future__ import annotations

import _ssl
import ctypes
import os

from ostiary.errors import OutsideError

_CURVE = b"P-256"
_COMMON_NAME = b"ostiary run"
_SECONDS_BEFORE = 24 * 3600
_SECONDS_AFTER = 24 * 3600

_X509_VERSION_3 = 2
_MBSTRING_ASC = 0x1001
_BIO_NOCLOSE = 0
_ERROR_TEXT_BYTES = 256

_pointer = ctypes.c_void_p
_string = ctypes.c_char_p
_int = ctypes.c_int
_long = ctypes.c_long

# name: (what it returns, what it takes)
_PROTOTYPES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "EVP_PKEY_Q_keygen": (_pointer, (_pointer, _string, _string, _string)),
    "EVP_PKEY_free": (None, (_pointer,)),
    "EVP_sha256": (_pointer, ()),
    "X509_new": (_pointer, ()),
    "X509_free": (None, (_pointer,)),
    "X509_set_version": (_int, (_pointer, _long)),
    "X509_get_serialNumber": (_pointer, (_pointer,)),
    "ASN1_INTEGER_set_uint64": (_int, (_pointer, ctypes.c_uint64)),
    "X509_getm_notBefore": (_pointer, (_pointer,)),
    "X509_getm_notAfter": (_pointer, (_pointer,)),
    "X509_gmtime_adj": (_pointer, (_pointer, _long)),
    "X509_get_subject_name": (_pointer, (_pointer,)),
    "X509_NAME_add_entry_by_txt": (_int, (_pointer, _string, _int, _string, _int, _int, _int)),
    "X509_set_issuer_name": (_int, (_pointer, _pointer)),
    "X509_set_pubkey": (_int, (_pointer, _pointer)),
    "X509_sign": (_int, (_pointer, _pointer, _pointer)),
    "X509_get_X509_PUBKEY": (_pointer, (_pointer,)),
    "i2d_X509_PUBKEY": (_int, (_pointer, ctypes.POINTER(_pointer))),
    "d2i_X509": (_pointer, (_pointer, ctypes.POINTER(_string), _long)),
    "BIO_new_fd": (_pointer, (_int, _int)),
    "BIO_free": (_int, (_pointer,)),
    "PEM_write_bio_PrivateKey": (_int, (_pointer, _pointer, _pointer, _pointer, _int, _pointer, _pointer)),
    "PEM_write_bio_X509": (_int, (_pointer, _pointer)),
    "ERR_get_error": (ctypes.c_ulong, ()),
    "ERR_clear_error": (None, ()),
    "ERR_error_string_n": (None, (ctypes.c_ulong, _string, ctypes.c_size_t)),
}


class Libcrypto:
    """libcrypto 3 with the few functions used here. One thread; every object made is freed before a method returns."""

    def __init__(self, library: str | None) -> None:
        """`library`: file or name to load, None for the process itself. Raises OutsideError if it will not do."""
        try:
            self._library = ctypes.CDLL(library)
            for name, (result, arguments) in _PROTOTYPES.items():
                function = getattr(self._library, name)
                function.restype = result
                function.argtypes = arguments
        except (OSError, AttributeError) as error:
            raise OutsideError("libcrypto of OpenSSL 3.0 or later cannot be called", str(error)) from None

    def write_identity(self, fd: int) -> bytes:
        """Make a P-256 key and a self-signed certificate; write both to `fd` as PEM, the key first.

        Returns the DER SubjectPublicKeyInfo. The certificate is valid from a day ago for two days: the service looks
        at its key only, and clocks differ. Raises OutsideError.
        """
        key = self._made("EVP_PKEY_Q_keygen", None, None, b"EC", _CURVE)
        try:
            certificate = self._made("X509_new")
            try:
                self._fill(certificate, key)
                self._write_pem(fd, key, certificate)
                return self._spki(certificate)
            finally:
                self._library.X509_free(certificate)
        finally:
            self._library.EVP_PKEY_free(key)

    def certificate_spki(self, der: bytes) -> bytes:
        """The DER SubjectPublicKeyInfo of a DER certificate, as it stands there. Raises OutsideError."""
        certificate = self._made("d2i_X509", None, ctypes.byref(ctypes.c_char_p(der)), len(der))
        try:
            return self._spki(certificate)
        finally:
            self._library.X509_free(certificate)

    def _fill(self, certificate: int, key: int) -> None:
        serial = int.from_bytes(os.urandom(8), "big") >> 1 | 1
        self._made("X509_set_version", certificate, _X509_VERSION_3)
        self._made("ASN1_INTEGER_set_uint64", self._made("X509_get_serialNumber", certificate), serial)
        self._made("X509_gmtime_adj", self._made("X509_getm_notBefore", certificate), -_SECONDS_BEFORE)
        self._made("X509_gmtime_adj", self._made("X509_getm_notAfter", certificate), _SECONDS_AFTER)
        name = self._made("X509_get_subject_name", certificate)
        self._made("X509_NAME_add_entry_by_txt", name, b"CN", _MBSTRING_ASC, _COMMON_NAME, -1, -1, 0)
        self._made("X509_set_issuer_name", certificate, name)
        self._made("X509_set_pubkey", certificate, key)
        self._made("X509_sign", certificate, key, self._made("EVP_sha256"))

    def _write_pem(self, fd: int, key: int, certificate: int) -> None:
        bio = self._made("BIO_new_fd", fd, _BIO_NOCLOSE)
        try:
            self._made("PEM_write_bio_PrivateKey", bio, key, None, None, 0, None, None)
            self._made("PEM_write_bio_X509", bio, certificate)
        finally:
            self._library.BIO_free(bio)

    def _spki(self, certificate: int) -> bytes:
        public_key = self._made("X509_get_X509_PUBKEY", certificate)
        buffer = ctypes.create_string_buffer(self._made("i2d_X509_PUBKEY", public_key, None))
        end = ctypes.c_void_p(ctypes.addressof(buffer))
        self._made("i2d_X509_PUBKEY", public_key, ctypes.byref(end))
        return buffer.raw

    def _made(self, name: str, *arguments: object) -> int:
        """Call a function that returns a pointer or a positive number. Raises OutsideError for NULL, 0 and less."""
        result = getattr(self._library, name)(*arguments)
        if result is None or result <= 0:
            raise OutsideError(f"libcrypto: {name} failed", self._reason())
        return int(result)

    def _reason(self) -> str:
        """OpenSSL's oldest error. Empties its queue, in which `ssl` would otherwise find it."""
        text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
        self._library.ERR_error_string_n(self._library.ERR_get_error(), text, len(text))
        self._library.ERR_clear_error()
        return text.value.decode("ascii", "replace")


def load_libcrypto() -> Libcrypto:
    """The libcrypto that `ssl` uses; where that one shows no symbols, the system's. Raises OutsideError."""
    try:
        return Libcrypto(getattr(_ssl, "__file__", None))
    except OutsideError:
        return Libcrypto("libcrypto.so.3")
