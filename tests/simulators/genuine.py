"""The cases of tests/vectors: genuine evidence, with what independent tools made of it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

NO_MATTER_WHEN = "2026-11-23T00:00:00Z"
"""For evidence that nothing with a date vouches for."""
VECTORS = Path(__file__).parents[1] / "vectors"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case of a MANIFEST. files: by name. expected, claims: as the MANIFEST has them."""

    name: str
    files: dict[str, bytes]
    verify_at: datetime
    expected: dict[str, Any]
    claims: dict[str, Any]

    @property
    def valid(self) -> bool:
        return bool(self.expected["verdict"] == "valid")

    def __str__(self) -> str:
        return self.name


def cases(tee: str) -> list[Case]:
    """All cases of a TEE."""
    return [
        Case(
            name=entry["id"],
            files={path.name: path.read_bytes() for path in (VECTORS / file["path"] for file in entry["files"])},
            verify_at=datetime.fromisoformat(entry["verify_at"] or NO_MATTER_WHEN),
            expected=entry["expected"],
            claims=entry["claims"],
        )
        for entry in json.loads((VECTORS / tee / "MANIFEST.json").read_text())
    ]


def pem(*ders: bytes) -> bytes:
    """Certificates in one PEM text."""
    return b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n" for der in ders
    )
