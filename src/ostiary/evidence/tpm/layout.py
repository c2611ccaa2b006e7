"""A TPM's quote, signature and public key: bytes to fields. Nothing here is authenticated; `verify` does that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.claims import JsonValue
from ostiary.evidence.tpm.reader import Reader

Hash: TypeAlias = Literal["sha1", "sha256", "sha384", "sha512"]
Scheme: TypeAlias = Literal["rsassa", "rsapss", "ecdsa"]

MAX_QUOTE_BYTES = 1024
MAX_SIGNATURE_BYTES = 1024
MAX_PUBLIC_BYTES = 1024
MAX_SELECTIONS = 8
"""Banks in one quote."""
MAX_PCR = 31

HASHES: Mapping[int, Hash] = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
DIGEST_BYTES: Mapping[Hash, int] = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
QUOTE_MAGIC = b"\xff\x54\x43\x47\x80\x18"
"""What every quote begins with: TPM_GENERATED_VALUE and TPM_ST_ATTEST_QUOTE."""

_SCHEMES: Mapping[int, Scheme] = {0x0014: "rsassa", 0x0016: "rsapss", 0x0018: "ecdsa"}
_NULL = 0x0010
_RSA, _ECC = 0x0001, 0x0023
_CURVES: Mapping[int, ec.EllipticCurve] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1(), 0x0005: ec.SECP521R1()}
_RSA_BITS = (2048, 3072, 4096)
_RAW_SIGNATURE_BYTES = tuple(bits // 8 for bits in _RSA_BITS)
_MAX_NAME_BYTES = 2 + 64
_MAX_DATA_BYTES = 2 + 64
_MAX_NUMBER_BYTES = 66
_MAX_MODULUS_BYTES = 512
_DEFAULT_EXPONENT = 65537
# TPMA_OBJECT: what makes a key one that signs nothing but what its own TPM made, and cannot leave it.
_ATTRIBUTES_SET = {"fixedTPM": 1, "fixedParent": 4, "sensitiveDataOrigin": 5, "restricted": 16, "sign": 18}
_ATTRIBUTE_DECRYPT = 17
_HIERARCHIES = {"owner": 0x40000001, "null": 0x40000007, "endorsement": 0x4000000B, "platform": 0x4000000C}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """PCRs of one bank, in rising order."""

    bank: Hash
    pcrs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Quote:
    """The fields of a quote. signed: all of it, which the signature is over.

    qualified_signer: the name of the key that signed, as it stands below its hierarchy. nonce: what the caller gave
    (`extraData`). clock: milliseconds. pcr_digest: over the values of all selected PCRs, in this order.
    firmware_version, reset_count, restart_count: obfuscated by the TPM for keys of the owner's hierarchy.
    """

    qualified_signer: bytes
    nonce: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: bytes
    selections: tuple[Selection, ...]
    pcr_digest: bytes
    signed: bytes


@dataclass(frozen=True, kw_only=True)
class Signature:
    """rsa: of RSA, the signature's bytes; else empty. r, s: of ECDSA; else 0. raw: had no header of its own."""

    scheme: Scheme
    hash: Hash
    rsa: bytes = b""
    r: int = 0
    s: int = 0
    raw: bool = False


@dataclass(frozen=True, kw_only=True)
class PublicArea:
    """The public area of a signing key. spki: DER SubjectPublicKeyInfo. name: hash algorithm and digest of the area."""

    spki: bytes
    name: bytes
    attributes: int

    @property
    def missing(self) -> tuple[str, ...]:
        """What keeps it from being an attestation key: attributes that it must have, or must not."""
        missing = [name for name, bit in _ATTRIBUTES_SET.items() if not self.attributes >> bit & 1]
        return (*missing, *(("no decrypt",) if self.attributes >> _ATTRIBUTE_DECRYPT & 1 else ()))

    def hierarchy(self, qualified_signer: bytes) -> str | None:
        """In which hierarchy a key of this name is primary and has this qualified name. None: it is primary in none.

        Source: TCG TPM 2.0 Library, part 1, "Qualified Name".
        """
        algorithm = HASHES[int.from_bytes(self.name[:2], "big")]
        for hierarchy, handle in _HIERARCHIES.items():
            digest = hashlib.new(algorithm, handle.to_bytes(4, "big") + self.name, usedforsecurity=True).digest()
            if self.name[:2] + digest == qualified_signer:
                return hierarchy
        return None


def parse_quote(data: bytes) -> Quote:
    """Split a quote (TPMS_ATTEST) into fields. Authenticates nothing.

    Integers are big-endian, `+` is relative to the field before:
        0x00   4  magic = ff 54 43 47
        0x04   2  type = 0x8018, quote
        0x06   2  n; n bytes qualifiedSigner, at most 66
        +n     2  m; m bytes extraData, at most 66
        +m     8  clock in ms   +8   4  resetCount   +12  4  restartCount   +16  1  safe, 0 or 1
        +17    8  firmwareVersion
        +8     4  number of selections, 1 to MAX_SELECTIONS; each
                    2  bank: 0x0004 SHA-1, 0x000b SHA-256, 0x000c SHA-384, 0x000d SHA-512; no bank twice
                    1  k, 1 to 4; k bytes: bit i of byte j stands for PCR 8j + i
               2  d; d bytes pcrDigest; the quote ends here

    Raises EvidenceFormatError, and nothing else for any input: over MAX_QUOTE_BYTES, another form than this, no PCR
    selected. Source: TCG, TPM 2.0 Library, part 2: TPMS_ATTEST, TPMS_QUOTE_INFO, TPML_PCR_SELECTION.
    """
    _require_size(data, "TPM quote", MAX_QUOTE_BYTES)
    reader = Reader(data, "TPM quote", "big")
    reader.expect(0xFF544347, 4, "magic")
    reader.expect(0x8018, 2, "type")
    qualified_signer = reader.sized("qualifiedSigner", _MAX_NAME_BYTES)
    nonce = reader.sized("extraData", _MAX_DATA_BYTES)
    clock = reader.number(8, "clock")
    reset_count = reader.number(4, "resetCount")
    restart_count = reader.number(4, "restartCount")
    safe = reader.number(1, "safe")
    if safe > 1:
        raise reader.wrong("safe", str(safe), "0 or 1", back=1)
    firmware_version = reader.take(8, "firmwareVersion")
    count = reader.number(4, "pcrSelect")
    if not 1 <= count <= MAX_SELECTIONS:
        raise reader.wrong("pcrSelect", f"{count} selections", f"1 to {MAX_SELECTIONS}", back=4)
    selections = tuple(_selection(reader) for _ in range(count))
    if len({selection.bank for selection in selections}) != count:
        raise reader.wrong("pcrSelect", "a bank twice", "each bank once")
    if not any(selection.pcrs for selection in selections):
        raise reader.wrong("pcrSelect", "no PCR", "a quote over one PCR or more")
    pcr_digest = reader.sized("pcrDigest", max(DIGEST_BYTES.values()))
    reader.end()
    return Quote(
        qualified_signer=qualified_signer,
        nonce=nonce,
        clock=clock,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=bool(safe),
        firmware_version=firmware_version,
        selections=selections,
        pcr_digest=pcr_digest,
        signed=data,
    )


def _selection(reader: Reader) -> Selection:
    bank = _hash(reader, "pcrSelect.hash")
    size = reader.number(1, "pcrSelect.sizeofSelect")
    if not 1 <= size <= (MAX_PCR + 1) // 8:
        raise reader.wrong("pcrSelect.sizeofSelect", str(size), f"1 to {(MAX_PCR + 1) // 8}", back=1)
    bits = int.from_bytes(reader.take(size, "pcrSelect.pcrSelect"), "little")
    return Selection(bank=bank, pcrs=tuple(number for number in range(8 * size) if bits >> number & 1))


def parse_signature(data: bytes) -> Signature:
    """Split a signature into fields. Authenticates nothing.

    TPMT_SIGNATURE, integers big-endian:
        0  2  scheme: 0x0014 RSASSA, 0x0016 RSAPSS, 0x0018 ECDSA
        2  2  hash, as in `parse_quote`
        4  2  n; n bytes: the RSA signature, at most 512; or r, at most 66, and the same for s
    Or 256, 384 or 512 bytes and no header, as Azure hands them out: RSASSA with SHA-256. No TPMT_SIGNATURE is so long.

    Raises EvidenceFormatError, and nothing else for any input. Source: TCG, TPM 2.0 Library, part 2: TPMT_SIGNATURE.
    """
    _require_size(data, "TPM signature", MAX_SIGNATURE_BYTES)
    if len(data) in _RAW_SIGNATURE_BYTES:
        return Signature(scheme="rsassa", hash="sha256", rsa=data, raw=True)
    reader = Reader(data, "TPM signature", "big")
    scheme = _SCHEMES.get(number := reader.number(2, "sigAlg"))
    if scheme is None:
        raise reader.wrong("sigAlg", f"{number:#06x}", "RSASSA (0x0014), RSAPSS (0x0016) or ECDSA (0x0018)", back=2)
    algorithm = _hash(reader, "hash")
    if scheme == "ecdsa":
        r, s = (int.from_bytes(reader.sized(field, _MAX_NUMBER_BYTES), "big") for field in ("signatureR", "signatureS"))
        reader.end()
        return Signature(scheme=scheme, hash=algorithm, r=r, s=s)
    signature = reader.sized("sig", _MAX_MODULUS_BYTES)
    reader.end()
    return Signature(scheme=scheme, hash=algorithm, rsa=signature)


def parse_public_area(data: bytes) -> PublicArea:
    """Split the public area (TPMT_PUBLIC) of a signing key into fields. Authenticates nothing.

    Integers are big-endian:
        0  2  type: 0x0001 RSA, 0x0023 ECC            2  2  nameAlg, as in `parse_quote`
        4  4  objectAttributes                        8  2  n; n bytes authPolicy
        then  2  symmetric = 0x0010, none             2  scheme: 0x0010 none, or 0x0014, 0x0016, 0x0018 and 2 hash
        RSA   2  bits: 2048, 3072 or 4096             4  exponent, 0 for 65537      2  n; n bytes modulus
        ECC   2  curve: 0x0003 P-256, 0x0004 P-384, 0x0005 P-521   2  kdf = 0x0010   x and y, each 2 n; n bytes
        the area ends here

    Raises EvidenceFormatError, and nothing else for any input: over MAX_PUBLIC_BYTES, another form than this (that of
    a key that encrypts among them), no point of the curve. Source: TCG, TPM 2.0 Library, part 2: TPMT_PUBLIC.
    """
    _require_size(data, "TPM public area", MAX_PUBLIC_BYTES)
    reader = Reader(data, "TPM public area", "big")
    kind = reader.number(2, "type")
    if kind not in (_RSA, _ECC):
        raise reader.wrong("type", f"{kind:#06x}", "RSA (0x0001) or ECC (0x0023)", back=2)
    name_hash = _hash(reader, "nameAlg")
    attributes = reader.number(4, "objectAttributes")
    reader.sized("authPolicy", max(DIGEST_BYTES.values()))
    reader.expect(_NULL, 2, "symmetric")
    scheme = reader.number(2, "scheme")
    if scheme != _NULL:
        if scheme not in _SCHEMES:
            raise reader.wrong("scheme", f"{scheme:#06x}", "RSASSA, RSAPSS, ECDSA or none", back=2)
        _hash(reader, "scheme.hash")
    try:
        key = _rsa_key(reader) if kind == _RSA else _ecc_key(reader)
    except ValueError as error:
        raise EvidenceFormatError("TPM public area: its numbers are no public key") from error
    reader.end()
    return PublicArea(
        spki=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        name=data[2:4] + hashlib.new(name_hash, data, usedforsecurity=True).digest(),
        attributes=attributes,
    )


def _rsa_key(reader: Reader) -> rsa.RSAPublicKey:
    bits = reader.number(2, "keyBits")
    if bits not in _RSA_BITS:
        raise reader.wrong("keyBits", str(bits), ", ".join(map(str, _RSA_BITS)), back=2)
    exponent = reader.number(4, "exponent") or _DEFAULT_EXPONENT
    modulus = reader.sized("unique", _MAX_MODULUS_BYTES)
    number = int.from_bytes(modulus, "big")
    if number.bit_length() != bits:
        raise reader.wrong("unique", f"{number.bit_length()} bits", f"{bits}")
    return rsa.RSAPublicNumbers(exponent, number).public_key()


def _ecc_key(reader: Reader) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(number := reader.number(2, "curveID"))
    if curve is None:
        raise reader.wrong("curveID", f"{number:#06x}", "P-256, P-384 or P-521", back=2)
    reader.expect(_NULL, 2, "kdf")
    x, y = (int.from_bytes(reader.sized(field, _MAX_NUMBER_BYTES), "big") for field in ("unique.x", "unique.y"))
    return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()


def pem_of_key(area: PublicArea) -> str:
    """The public key of an area, in PEM."""
    key = load_der_public_key(area.spki)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def shown(quote: Quote) -> dict[str, JsonValue]:
    """Every field of a quote, for people and programs to read, bytes in hex.

    pcr_bank, pcrs: the bank and its PCRs; of a quote over several banks a list of banks, and PCRs by bank.
    """
    by_bank: dict[str, JsonValue] = {selection.bank: list(selection.pcrs) for selection in quote.selections}
    single = len(by_bank) == 1
    return {
        "qualified_signer": quote.qualified_signer.hex(),
        "nonce": quote.nonce.hex(),
        "clock": quote.clock,
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
        "safe": int(quote.safe),
        "firmware_version": quote.firmware_version.hex(),
        "pcr_bank": quote.selections[0].bank if single else list(by_bank),
        "pcrs": list(quote.selections[0].pcrs) if single else by_bank,
        "pcr_digest": quote.pcr_digest.hex(),
    }


def shown_signature(signature: Signature) -> dict[str, JsonValue]:
    """How a quote is signed, for people and programs to read."""
    return {
        "signature_alg": signature.scheme,
        "signature_hash": signature.hash,
        "signature_format": "raw RSASSA (no TPMT header)" if signature.raw else "TPMT_SIGNATURE",
    }


def _hash(reader: Reader, field: str) -> Hash:
    algorithm = HASHES.get(number := reader.number(2, field))
    if algorithm is None:
        raise reader.wrong(field, f"{number:#06x}", "SHA-1, SHA-256, SHA-384 or SHA-512", back=2)
    return algorithm


def _require_size(data: bytes, what: str, most: int) -> None:
    if len(data) > most:
        raise EvidenceFormatError(f"{what}: {len(data)} bytes, expected at most {most}")
