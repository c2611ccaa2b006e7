"""The PEM form of DER (RFC 7468)."""

from __future__ import annotations

import base64
import re

_BEGIN = re.compile(r"-----BEGIN ([^\r\n-]*)-----")
_LINE_CHARACTERS = 64


def encode_pem(label: str, der: bytes) -> bytes:
    """One PEM block: lines of 64 characters, LF line ends, exactly one at the end. Source: RFC 7468 sections 2, 3."""
    text = base64.b64encode(der).decode("ascii")
    body = "\n".join(text[start : start + _LINE_CHARACTERS] for start in range(0, len(text), _LINE_CHARACTERS))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode("ascii")


def pem_labels(text: str) -> tuple[str, ...]:
    """The labels of all PEM blocks that begin in `text`, in order. Says nothing about what is inside them."""
    return tuple(_BEGIN.findall(text))


def pem_blocks(text: str, label: str) -> str:
    """The PEM blocks of `text` with this label, one after the other; "" if there is none."""
    block = re.compile(f"-----BEGIN {label}-----.*?-----END {label}-----", re.DOTALL)
    return "".join(f"{found}\n" for found in block.findall(text))
