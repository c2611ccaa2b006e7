"""What the modules about secrets hand each other."""

from __future__ import annotations

from typing import TypeAlias

from ostiary.session.findings import quote
from ostiary.session.model import AkvSecret, ImportedSecret, Secret
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonValue
from ostiary.session.reading import Reading

Parts: TypeAlias = tuple[Secret, dict[str, JsonValue]]
"""A secret, and the members of its normal form that belong to its kind."""

Declared: TypeAlias = dict[str, tuple[Secret | None, Node]]
"""Secrets by name, None for one that cannot be read, each with its node."""


def referred(
    reading: Reading, node: Node, secrets: Declared, kind: str, types: tuple[type[Secret], ...]
) -> Secret | None:
    """The secret that `node` names, if it is one of `types`; None if it is imported or mistaken, or after a mistake.

    kind: of those types, for messages, and what an import must be if it says what it is.
    """
    name = node.text if isinstance(node, Scalar) else ""
    if name and name not in secrets:
        fitting = [other for other, (secret, _) in secrets.items() if isinstance(secret, types)]
        reading.findings.error(node, f"there is no secret {quote(name)}{reading.findings.did_you_mean(name, fitting)}")
    secret = secrets[name][0] if name in secrets else None
    if isinstance(secret, ImportedSecret | AkvSecret):
        if secret.kind not in (None, kind):
            reading.findings.error(node, f"{quote(name)} is of kind {secret.kind}; name a secret of kind {kind}")
        return None
    if secret is not None and not isinstance(secret, types):
        reading.findings.error(node, f"{quote(name)} is of another kind; name a secret of kind {kind}")
        return None
    return secret
