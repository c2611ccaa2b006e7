"""Which secrets the value of another is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

from ostiary.errors import InputError
from ostiary.secret.kind import needs
from ostiary.secret.value import SESSION_CA
from ostiary.session.model import AkvSecret, ImportedSecret, Secret


def making_order(secrets: Mapping[str, Secret]) -> tuple[str, ...]:
    """All names, each after those that its value is made of; among them SESSION_CA if something is made of it.

    Raises InputError: a name of no secret, a circle.
    """
    graph = {name: needs(secret, secrets) for name, secret in secrets.items()}
    for name, needed in graph.items():
        for missing in (other for other in needed if other not in secrets and other != SESSION_CA):
            raise InputError(f"secret {name!r}: names {missing!r}, which is no secret of this session; declare it")
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(repr(name) for name in error.args[1])
        raise InputError(f"secrets: each of these is made of the next, {circle}; break the circle") from None


def made_of(secrets: Mapping[str, Secret], wanted: Collection[str]) -> tuple[str, ...]:
    """`wanted` and all secrets that they are made of, each after those that it is made of. Raises InputError."""
    found: set[str] = set()
    pending = [*wanted]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [other for other in needs(secrets[name], secrets) if other in secrets]
    # Of these alone: an import asks for one secret among many, again and again.
    return tuple(name for name in making_order({name: secrets[name] for name in found}) if name in found)


def from_outside(secrets: Mapping[str, Secret]) -> frozenset[str]:
    """The secrets whose values another session or a key vault holds, and those that are made of them."""
    found = {name for name, secret in secrets.items() if isinstance(secret, ImportedSecret | AkvSecret)}
    for name in making_order(secrets):
        if name in secrets and not found.isdisjoint(needs(secrets[name], secrets)):
            found.add(name)
    return frozenset(found)


def can_be_made(secret: Secret, secrets: Mapping[str, Secret], available: Collection[str]) -> bool:
    """Whether everything is there that the value is made of. Only what comes from outside may be missing."""
    return all(name in available for name in needs(secret, secrets))
