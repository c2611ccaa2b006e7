"""Namespaces: each session but the root lives in one, which is a session itself. Pure.

Source: session language, "Names, namespaces, paths".
"""

from __future__ import annotations

from functools import cache

from ostiary.session import ParsedSession, parse_session

ROOT = "/"

_DEFAULT_ROOT = """
version: "0.3.12"
name: /
access_policy: {read: ANY, update: ANY, create_sessions: ANY}
"""


def parent_of(name: str) -> str | None:
    """The session that is the namespace of session `name`; None for the root, which is in no other."""
    return None if name == ROOT else name.rpartition("/")[0] or ROOT


def is_below(name: str, namespace: str) -> bool:
    """Whether session `name` is the session `namespace` or somewhere below it."""
    return namespace in (ROOT, name) or name.startswith(f"{namespace}/")


@cache
def default_root() -> ParsedSession:
    """The root namespace until somebody updates it. It is the same in every service, and its hash anyone may know."""
    return parse_session(_DEFAULT_ROOT)
