"""Sizes that tell little: every sealed text is padded to the next size of a short list."""

from __future__ import annotations

MIN_BUCKET_BYTES = 256

_LENGTH_BYTES = 4


def bucket(length: int) -> int:
    """The smallest padded size, in bytes, that holds `length` bytes.

    256, and above it the sizes of Padmé: only as many leading bits of a size may be set as it takes to write down how
    many bits it has. Costs at most 12 % and leaves an observer O(log log n) bits about a length n.
    Source: Nikitin and others, "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019.
    """
    if length <= MIN_BUCKET_BYTES:
        return MIN_BUCKET_BYTES
    exponent = length.bit_length() - 1
    cleared = exponent - exponent.bit_length()
    mask = (1 << cleared) - 1
    return (length + mask) & ~mask


def pad(value: bytes) -> bytes:
    """Offset 0x00, 4 bytes: length n, unsigned, big-endian; then the value, n bytes; then zeros up to a bucket."""
    framed = len(value).to_bytes(_LENGTH_BYTES, "big") + value
    return framed.ljust(bucket(len(framed)), b"\x00")


def unpad(padded: bytes) -> bytes:
    """The value that `pad` framed. Raises ValueError for anything that `pad` does not write."""
    end = _LENGTH_BYTES + int.from_bytes(padded[:_LENGTH_BYTES], "big")
    value = padded[_LENGTH_BYTES:end]
    if pad(value) != padded:
        raise ValueError("the padding is not what this program writes")
    return value
