"""What the rest of a session text must know of its secrets to check what is said about them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SecretFacts:
    """One secret.

    kind: None if an import does not say it. mistaken: the secret cannot be read, so that nothing is checked.
    has_key: it is no certificate, or one whose private key is at hand. size: bytes of a binary secret, None if unknown.
    text: of an explicit ascii secret. nested: a fragment with a placeholder inside.
    """

    kind: str | None = None
    mistaken: bool = False
    has_key: bool = True
    size: int | None = None
    text: str | None = field(default=None, repr=False)
    nested: bool = False
