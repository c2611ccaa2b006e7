"""Shared secrets of one-time passwords: nodes to bytes or variables. Source: session language, 12.8; RFC 4648, 6."""

from __future__ import annotations

import base64
import re

from ostiary.session import language
from ostiary.session.findings import quote
from ostiary.session.model import Variable
from ostiary.session.node import Node, Scalar
from ostiary.session.placeholder import MARK
from ostiary.session.reading import Reading
from ostiary.session.variable import read_variable

MIN_BYTES = 16
MAX_CHARACTERS = 1024

_BASE32 = re.compile(r"[A-Z2-7]+=*")
_FORMAT = "base32nopad"


def read_otp_secret(reading: Reading, node: Node) -> bytes | Variable:
    """The secret, at least MIN_BYTES long. The text is never part of a message."""
    variable = read_variable(reading, node, level=language.VARIABLE_LEVEL)
    if variable is not None:
        _check_variable(reading, node, variable)
        return variable
    text = reading.text(node)
    if not isinstance(node, Scalar) or node.is_null:
        return b""
    if MARK in text:
        reading.findings.error(node, "a variable is the whole value; write $$SCONE::name$$ and nothing else")
        return b""
    try:
        return decode_otp_secret(text)
    except ValueError as error:
        reading.findings.error(node, f"the shared secret {error}")
        return b""


def decode_otp_secret(text: str) -> bytes:
    """The bytes of a base32 text, in either case, padded or not. Raises ValueError with the rest of a sentence."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"has over {MAX_CHARACTERS} characters; 32 are enough")
    upper = text.upper()
    bare = upper.rstrip("=")
    if not text.isascii() or not _BASE32.fullmatch(upper) or len(bare) % 8 in (1, 3, 6):
        raise ValueError("is not base32 (A to Z and 2 to 7, without blanks)")
    secret = base64.b32decode(bare + "=" * (-len(bare) % 8))
    if len(secret) < MIN_BYTES:
        raise ValueError(f"has {8 * len(secret)} bits, expected at least {8 * MIN_BYTES}, which are 26 characters")
    return secret


def _check_variable(reading: Reading, node: Node, variable: Variable) -> None:
    shown = quote(str(variable.placeholder))
    facts = reading.secrets.get(variable.placeholder.name)
    if facts is None or facts.mistaken:
        return
    # An import of unknown kind without format may be text; in any other format, some bytes would happen to be base32.
    as_bytes = facts.kind == "binary" or (facts.kind is None and variable.placeholder.format != "")
    if as_bytes:
        if variable.placeholder.format != _FORMAT:
            name = variable.placeholder.name
            reading.findings.error(
                node, f"{shown}: a binary secret has to be base32; write $$SCONE::{name}:{_FORMAT}$$"
            )
        elif facts.size is not None and facts.size < MIN_BYTES:
            reading.findings.error(
                node, f"{shown} has {facts.size} bytes, expected at least {MIN_BYTES}; set size: {MIN_BYTES}"
            )
    elif facts.kind not in (None, "ascii", "config-fragment"):
        reading.findings.error(node, f"{shown} is of kind {facts.kind}, expected an ascii or binary secret")
    elif facts.text is not None:
        try:
            decode_otp_secret(facts.text)
        except ValueError as error:
            reading.findings.error(node, f"{shown}: the secret's value {error}")
