"""Endorsements in one JSON text, to be carried to a service that reaches no vendor. Also the form of stored records.

::

    {"form": 1,
     "endorsements": [
       {"part": "tcb-info/sgx/00606a000000",     as in `part`
        "data": "<base64>", "signature": "<hex>", "chain": "<PEM>",
        "number": 17, "issued": "2026-11-01T00:00:00Z", "until": "2026-12-01T00:00:00Z"}]}

`number`, `issued` and `until` are for people: they are read again from the data, which the vendor signed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.endorsements.part import parse_part
from ostiary.evidence.endorsements.piece import Endorsement, Piece

MAX_BUNDLE_FILE_BYTES = 64 * 1024 * 1024
MAX_BUNDLE_PIECES = 4096
_FORM = 1
_MEMBERS = frozenset({"part", "data", "signature", "chain", "number", "issued", "until"})


def write_bundle(endorsements: Iterable[Endorsement]) -> bytes:
    """The bundle, the same bytes for the same endorsements in any order."""
    entries = [_entry(one) for one in sorted(endorsements, key=lambda one: one.part)]
    return json.dumps({"form": _FORM, "endorsements": entries}, indent=1).encode() + b"\n"


def read_bundle(data: bytes) -> tuple[Piece, ...]:
    """The pieces of a bundle. Authenticates nothing. Raises EvidenceFormatError, and nothing else for any bytes."""
    if len(data) > MAX_BUNDLE_FILE_BYTES:
        raise EvidenceFormatError(f"bundle: {len(data)} bytes, expected at most {MAX_BUNDLE_FILE_BYTES}")
    try:
        members = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError("bundle: not JSON, expected a file of `ostiary endorsements export`") from error
    if not isinstance(members, dict) or members.get("form") != _FORM:
        raise EvidenceFormatError(
            f"bundle: no JSON object with form {_FORM}, expected a file of `ostiary endorsements export`"
        )
    entries = members.get("endorsements")
    if not isinstance(entries, list) or len(entries) > MAX_BUNDLE_PIECES:
        raise EvidenceFormatError(f"bundle: endorsements is not a list of at most {MAX_BUNDLE_PIECES}")
    return tuple(_piece(entry, f"bundle, endorsements[{number}]") for number, entry in enumerate(entries))


def _entry(endorsement: Endorsement) -> dict[str, str | int]:
    piece = endorsement.piece
    return {
        "part": str(piece.part),
        "number": endorsement.number,
        "issued": f"{endorsement.issued:%Y-%m-%dT%H:%M:%SZ}",
        "until": f"{endorsement.until:%Y-%m-%dT%H:%M:%SZ}",
        "data": base64.b64encode(piece.data).decode(),
        "signature": piece.signature.hex(),
        "chain": piece.chain.decode("ascii"),
    }


def _piece(entry: object, where: str) -> Piece:
    if not isinstance(entry, dict) or not entry.keys() <= _MEMBERS:
        raise EvidenceFormatError(f"{where}: not an object with members {', '.join(sorted(_MEMBERS))}")
    try:
        return Piece(
            part=parse_part(_text(entry, "part", where)),
            data=base64.b64decode(_text(entry, "data", where), validate=True),
            signature=bytes.fromhex(_text(entry, "signature", where)),
            chain=_text(entry, "chain", where).encode(),
        )
    except (ValueError, binascii.Error) as error:
        raise EvidenceFormatError(f"{where}: data is not base64, or signature not hex") from error


def _text(entry: Mapping[str, object], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise EvidenceFormatError(f"{where}: {name} is missing or no ASCII text")
    return value
