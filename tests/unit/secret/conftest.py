"""Values made once for all tests of the package: making RSA keys is slow."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

import pytest

from ostiary.secret.generate import generate
from ostiary.secret.private_key import KEY_TYPES
from ostiary.secret.value import Value
from ostiary.session.model import PrivateKeySecret, Secret, Session, X509CaSecret, X509Secret

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


class Generate(Protocol):
    """`generate` for the secrets given, with repeatable randomness."""

    def __call__(
        self, *secrets: Secret, old: tuple[Secret, ...] = (), previous: Mapping[str, Value] | None = None
    ) -> dict[str, Value]: ...


@pytest.fixture
def randbytes() -> Callable[[int], bytes]:
    return random.Random(20300101).randbytes


@pytest.fixture(scope="session")
def generated() -> Generate:
    source = random.Random(7)

    def run(
        *secrets: Secret, old: tuple[Secret, ...] = (), previous: Mapping[str, Value] | None = None
    ) -> dict[str, Value]:
        before = None if previous is None else Session(version="0.3.12", name="s", secrets=old)
        return generate(
            Session(version="0.3.12", name="s", secrets=secrets),
            previous=previous or {},
            previous_session=before,
            random=source.randbytes,
            now=NOW,
        )

    return run


@pytest.fixture(scope="session")
def keys(generated: Generate) -> dict[str, Value]:
    """A private key of each type, by the type's name."""
    return generated(*(PrivateKeySecret(name=key_type, key_type=key_type) for key_type in KEY_TYPES))


@pytest.fixture(scope="session")
def chain(generated: Generate) -> dict[str, Value]:
    """root <- middle <- leaf, and their keys."""
    return generated(
        X509Secret(name="leaf", private_key="leaf_key", issuer="middle", endpoint="server", dns=("db.example.com",)),
        X509CaSecret(name="middle", private_key="middle_key", issuer="root"),
        X509CaSecret(name="root", private_key="root_key", common_name="Root"),
        PrivateKeySecret(name="leaf_key"),
        PrivateKeySecret(name="middle_key"),
        PrivateKeySecret(name="root_key"),
    )
