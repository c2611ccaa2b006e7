"""A Nitro attestation document: bytes to fields. Nothing here is authenticated; `verify` does that."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import cbor2

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.claims import JsonValue

MAX_DOCUMENT_BYTES = 32 * 1024
MAX_CABUNDLE_CERTIFICATES = 7
MAX_PCR = 31
SIGNATURE_BYTES = 96
MAX_DEPTH = 8
"""Arrays and maps within each other; documents have three."""

# The protected header {1: -35}: ES384, and nothing else.
_PROTECTED = bytes.fromhex("a1013822")
_TAG_18 = b"\xd2"
_DIGEST_BYTES = {"SHA256": 32, "SHA384": 48, "SHA512": 64}
_MEMBERS = {"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"}
_OPTIONAL = {"public_key", "user_data", "nonce"}
_ZERO_PCRS_OF_DEBUG = (0, 1, 2)
# A billion seconds after 9999: no document is from there, and `datetime` cannot say it.
_MAX_TIMESTAMP_MS = 253_402_300_799_000


@dataclass(frozen=True, kw_only=True)
class Document:
    """The fields of a document. signed: what the signature, r and s of P-384, is over; certificates: DER.

    timestamp_ms: milliseconds since 1970. pcrs: by number, of the size of `digest`. cabundle: root first. public_key,
    user_data, nonce: None where the document has null or nothing.
    """

    module_id: str
    digest: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    signed: bytes
    signature: bytes

    @property
    def debug(self) -> bool:
        """PCR0, PCR1 and PCR2 are zero: the enclave was started in debug mode, its console is open to the host."""
        return not any(any(self.pcrs.get(number, b"")) for number in _ZERO_PCRS_OF_DEBUG)


def parse_document(data: bytes) -> Document:
    """Split a document into fields. Authenticates nothing.

    CBOR (RFC 8949): the array of COSE_Sign1 (RFC 9052 section 4.2), with or without its tag 18 in one byte, and
    without any other tag:
        0  protected header, bytes: {1: -35}, ES384      1  unprotected header: {}
        2  payload, bytes of a map:
               module_id text, digest "SHA256" | "SHA384" | "SHA512", timestamp uint (ms), pcrs {0 to 31: bytes},
               certificate DER, cabundle [DER, …] root first; public_key, user_data, nonce: bytes, null or absent
        3  signature, 96 bytes: r, s
    The signature is over the Sig_structure ["Signature1", protected header, h'', payload].

    Raises EvidenceFormatError, and nothing else for any input: over MAX_DOCUMENT_BYTES, another form, members or types
    than these, bytes after the end.
    Source: AWS, "Attestation document specification" of the Nitro Enclaves NSM API.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise EvidenceFormatError(f"Nitro document: {len(data)} bytes, expected at most {MAX_DOCUMENT_BYTES}")
    outer = _decode(data.removeprefix(_TAG_18), "Nitro document")
    if not isinstance(outer, list | tuple) or len(outer) != 4:
        raise EvidenceFormatError("Nitro document: expected COSE_Sign1, an array of four")
    protected, unprotected, payload, signature = outer
    if protected != _PROTECTED or unprotected != {}:
        raise EvidenceFormatError("Nitro document: expected the protected header {1: -35}, ES384, and no other header")
    if not isinstance(payload, bytes):
        raise EvidenceFormatError("Nitro document, payload: expected bytes")
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise EvidenceFormatError(f"Nitro document, signature: expected {SIGNATURE_BYTES} bytes")
    members = _decode(payload, "Nitro document, payload")
    if not isinstance(members, Mapping) or not _MEMBERS <= set(members) <= _MEMBERS | _OPTIONAL:
        raise EvidenceFormatError(f"Nitro document, payload: expected a map of {', '.join(sorted(_MEMBERS))}")
    digest = _text(members, "digest")
    if digest not in _DIGEST_BYTES:
        raise EvidenceFormatError(f"Nitro document, digest: {digest[:20]!r}, expected {', '.join(_DIGEST_BYTES)}")
    return Document(
        module_id=_text(members, "module_id"),
        digest=digest,
        timestamp_ms=_timestamp(members["timestamp"]),
        pcrs=_pcrs(members["pcrs"], _DIGEST_BYTES[digest]),
        certificate=_bytes(members["certificate"], "certificate"),
        cabundle=_cabundle(members["cabundle"]),
        public_key=_optional(members, "public_key"),
        user_data=_optional(members, "user_data"),
        nonce=_optional(members, "nonce"),
        signed=cbor2.dumps(["Signature1", protected, b"", payload]),
        signature=signature,
    )


def shown(document: Document) -> dict[str, JsonValue]:
    """Every field, for people and programs to read, bytes in hex. Of PCRs above 2 only those that are not zero."""
    key = document.public_key
    return {
        "module_id": document.module_id,
        "digest": document.digest,
        "timestamp_ms": document.timestamp_ms,
        **{f"pcr{number}": document.pcrs[number].hex() for number in _ZERO_PCRS_OF_DEBUG if number in document.pcrs},
        "other_nonzero_pcrs": {
            str(number): value.hex()
            for number, value in sorted(document.pcrs.items())
            if number not in _ZERO_PCRS_OF_DEBUG and any(value)
        },
        "pcr_count": len(document.pcrs),
        "debug_mode": document.debug,
        "user_data": None if document.user_data is None else document.user_data.hex(),
        "nonce": None if document.nonce is None else document.nonce.hex(),
        "public_key_sha256": None if key is None else hashlib.sha256(key).hexdigest(),
        "public_key_len": len(key or b""),
        "cabundle_len": len(document.cabundle),
    }


class _NoTags(Mapping[int, Callable[[object, bool], object]]):
    """For every tag a decoder that refuses it. Documents have none within, and the library knows dozens, among them
    regular expressions, which it compiles, and numbers that take long to work out.
    """

    def __getitem__(self, tag: int) -> Callable[[object, bool], object]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _refuse_tag(_value: object, _immutable: bool) -> object:
    raise ValueError("a tag within the document")


def _decode(data: bytes, what: str) -> object:
    stream = io.BytesIO(data)
    try:
        decoder = cbor2.CBORDecoder(stream, read_size=1, max_depth=MAX_DEPTH, semantic_decoders=_NoTags())
        value: object = decoder.decode()
    except Exception as error:
        # Whatever errors the decoder has, this is no document.
        raise EvidenceFormatError(f"{what}: not CBOR that can be read") from error
    if stream.tell() != len(data):
        raise EvidenceFormatError(f"{what}: {len(data) - stream.tell()} bytes after its end, expected none")
    return value


def _text(members: Mapping[object, object], name: str) -> str:
    value = members[name]
    if not isinstance(value, str) or not value:
        raise EvidenceFormatError(f"Nitro document, {name}: expected text")
    return value


def _bytes(value: object, name: str) -> bytes:
    if not isinstance(value, bytes) or not value:
        raise EvidenceFormatError(f"Nitro document, {name}: expected bytes")
    return value


def _optional(members: Mapping[object, object], name: str) -> bytes | None:
    value = members.get(name)
    if value is not None and not isinstance(value, bytes):
        raise EvidenceFormatError(f"Nitro document, {name}: expected bytes or null")
    return value


def _timestamp(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_TIMESTAMP_MS:
        raise EvidenceFormatError("Nitro document, timestamp: expected milliseconds since 1970")
    return value


def _pcrs(value: object, size: int) -> dict[int, bytes]:
    if not isinstance(value, Mapping) or not 1 <= len(value) <= MAX_PCR + 1:
        raise EvidenceFormatError(f"Nitro document, pcrs: expected a map of 1 to {MAX_PCR + 1} registers")
    for number, register in value.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_PCR:
            raise EvidenceFormatError(f"Nitro document, pcrs: a register with another number than 0 to {MAX_PCR}")
        if not isinstance(register, bytes) or len(register) != size:
            raise EvidenceFormatError(f"Nitro document, pcrs[{number}]: expected {size} bytes")
    if 0 not in value:
        raise EvidenceFormatError("Nitro document, pcrs: no register 0, which measures the enclave")
    return dict(value)


def _cabundle(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_CABUNDLE_CERTIFICATES:
        raise EvidenceFormatError(
            f"Nitro document, cabundle: expected a list of 1 to {MAX_CABUNDLE_CERTIFICATES} certificates"
        )
    return tuple(_bytes(der, f"cabundle[{number}]") for number, der in enumerate(value))
