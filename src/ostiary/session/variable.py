"""Configuration variables: values that are one placeholder and nothing else. Source: session language, 8.2."""

from __future__ import annotations

from ostiary.session import language
from ostiary.session.facts import SecretFacts
from ostiary.session.findings import quote
from ostiary.session.model import Variable
from ostiary.session.node import Node, Scalar
from ostiary.session.placeholder import MARK, Placeholder, parse_template
from ostiary.session.reading import Reading
from ostiary.session.template import check_placeholder, is_raw

_KEY_BYTES = 32
_KEY_FORMATS = frozenset({"", "bin", "hex"})


def read_variable(reading: Reading, node: Node, *, level: int = language.VARIABLE_LEVEL) -> Variable | None:
    """The variable at `node`, None if there is a plain value. level: that variables need in this place.

    A text that begins like a placeholder and is none is a mistake, and so is a secret that cannot stand here: one that
    the session does not have, or raw bytes. What comes back after a mistake only stands in.
    """
    found = _variable(reading, node, level)
    if found is None:
        return None
    variable, facts = found
    if facts is not None and is_raw(reading, variable.placeholder, facts):
        reading.findings.error(
            node, f"{quote(str(variable.placeholder))} is raw bytes, expected text; use a text format such as :hex"
        )
    if facts is not None and facts.nested:
        reading.findings.warning(
            node,
            f"the fragment of {quote(str(variable.placeholder))} has a variable inside, which is not supported: "
            "whatever depends on it will be refused; write the value into the fragment",
        )
    return variable


def read_key_variable(reading: Reading, node: Node, *, level: int) -> Variable | None:
    """As read_variable, for a key of 32 bytes: a binary secret of that size."""
    found = _variable(reading, node, level)
    if found is None:
        return None
    variable, facts = found
    shown = quote(str(variable.placeholder))
    if facts is None:
        return variable
    if facts.kind not in (None, "binary"):
        reading.findings.error(node, f"{shown} is of kind {facts.kind}, expected a binary secret of {_KEY_BYTES} bytes")
    elif variable.placeholder.format not in _KEY_FORMATS:
        reading.findings.error(node, f"{shown}: the key is the secret itself; write $$SCONE::{_name(variable)}$$")
    elif facts.size is not None and facts.size != _KEY_BYTES:
        reading.findings.error(node, f"{shown} has {facts.size} bytes, expected {_KEY_BYTES}; set size: {_KEY_BYTES}")
    return variable


def read_secret_variable(reading: Reading, node: Node, kind: str) -> str | None:
    """The name of a secret of `kind` that `node` gives as `$$SCONE::name$$`; None after a mistake."""
    found = _variable(reading, node, language.KINDS[kind])
    if found is None:
        reading.findings.error(node, f"expected $$SCONE::name$$ of a secret of kind {kind}")
        return None
    variable, facts = found
    bare = not variable.placeholder.format and _name(variable) in reading.secrets
    if facts is not None and (facts.kind not in (None, kind) or not bare):
        reading.findings.error(
            node, f"{quote(str(variable.placeholder))}: expected $$SCONE::name$$ of a secret of kind {kind}"
        )
    return _name(variable)


def _variable(reading: Reading, node: Node, level: int) -> tuple[Variable, SecretFacts | None] | None:
    """The variable, and what is known of its secret if it may stand here."""
    if not isinstance(node, Scalar) or not node.text.startswith(MARK):
        return None
    parts = parse_template(node.text).parts
    if len(parts) != 1 or not isinstance(parts[0], Placeholder):
        reading.findings.error(
            node, f"found {quote(node.text)}, expected one placeholder and nothing else; write $$SCONE::name:format$$"
        )
        return Variable(placeholder=Placeholder(name="")), None
    reading.require_level(node, "a variable in this place", level)
    return Variable(placeholder=parts[0]), check_placeholder(reading, node, parts[0])


def _name(variable: Variable) -> str:
    return variable.placeholder.name
