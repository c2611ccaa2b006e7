"""Signed lists of measurements: bytes and a signature to values. Pure.

The list, UTF-8, every line ended by LF, at most MAX_LIST_BYTES::

    ostiary-measurements-v1
    name <the name that the rules file gives it>
    expires <YYYY-MM-DDTHH:MM:SSZ>
    <hex digits of one measurement> [what it is]
    …

Empty lines and lines that begin with `#` mean nothing after the third line. The signature is in base64, of the list's
bytes as they are: Ed25519 (RFC 8032), or ECDSA over SHA-384 with P-384 (FIPS 186-5), DER. The first line keeps it apart
from whatever else the key signs; `name` from other lists of that key; `expires` bounds how long an older list of that
name can be put in the newer one's place.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature

from ostiary.checker.rules import ListSource
from ostiary.errors import InputError
from ostiary.session.signed import Signature, read_signature, verify_signature

MAX_LIST_BYTES = 1024 * 1024
MAX_SIGNATURE_FILE_BYTES = 1024

_FIRST_LINE = "ostiary-measurements-v1"
_SIZES = frozenset({32, 48})
"""Bytes of a measurement: MRENCLAVE, MRSIGNER and PCRs of SHA-256; those of TDX, SNP, Nitro and PCRs of SHA-384."""
_ENTRY = re.compile(r"([0-9a-fA-F]+)(?:[ \t].*)?")


def verify_list(source: ListSource, data: bytes, signature: bytes, *, now: datetime) -> tuple[str, ...]:
    """The measurements of a list, as lower-case hex digits. signature: the content of its file, base64.

    Guarantees on return: the holder of `source.signer` signed exactly this list, under this name, and it has not
    expired at `now`; it names at least one measurement. Does not guarantee that it is the newest of that name.
    Raises InputError, which says what does not hold.
    """
    where = f"list {source.name} ({source.file})"
    if len(data) > MAX_LIST_BYTES:
        raise InputError(f"{where}: it has more than {MAX_LIST_BYTES} bytes")
    _verify(where, source, data, signature)
    lines = _lines(where, data)
    _check_head(where, source, lines[:3], now)
    entries = [_entry(where, number, line) for number, line in enumerate(lines[3:], 4) if line and line[0] != "#"]
    if not entries:
        raise InputError(f"{where}: it names no measurement, so nothing could be admitted by it")
    return tuple(dict.fromkeys(entries))


def _verify(where: str, source: ListSource, data: bytes, signature: bytes) -> None:
    try:
        found = read_signature("".join(signature.decode("ascii").split()))
    except ValueError as error:
        raise InputError(f"{where}: its signature cannot be read: {error}") from None
    try:
        verify_signature(Signature(signer="", spki=source.signer, signature=found), data)
    except InvalidSignature:
        raise InputError(
            f"{where}: the signature does not hold: the signer that the rules name did not sign this list",
            "the list was changed after it was signed, or the rules name another key; sign it again",
        ) from None


def _lines(where: str, data: bytes) -> list[str]:
    try:
        return data.decode().split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{where}: it is no text in UTF-8") from None


def _check_head(where: str, source: ListSource, head: list[str], now: datetime) -> None:
    if not head or head[0] != _FIRST_LINE:
        raise InputError(f"{where}: line 1: expected {_FIRST_LINE}")
    if len(head) < 2 or head[1] != f"name {source.name}":
        raise InputError(f"{where}: line 2: expected `name {source.name}`; this is another list of that signer")
    try:
        expires = datetime.strptime(head[2], "expires %Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (IndexError, ValueError):
        raise InputError(f"{where}: line 3: expected `expires YYYY-MM-DDTHH:MM:SSZ`") from None
    if now >= expires:
        raise InputError(f"{where}: it expired at {head[2].removeprefix('expires ')}; ask its signer for a newer one")


def _entry(where: str, number: int, line: str) -> str:
    found = _ENTRY.fullmatch(line)
    if found is None or len(found[1]) % 2 or len(found[1]) // 2 not in _SIZES:
        raise InputError(f"{where}: line {number}: expected the 64 or 96 hex digits of a measurement")
    return found[1].lower()
