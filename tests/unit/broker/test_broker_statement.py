"""Signed denials: what holds, and every way in which one does not."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.broker.conftest import NOW, Desk

from ostiary.audit import Frontier
from ostiary.broker.identity import DEFAULT_NAMES, open_denial_signer, open_identity
from ostiary.broker.open import make_cas
from ostiary.broker.statement import MAX_STATEMENT_BYTES, StatementKey, sign_denial, verify_denial
from ostiary.errors import InputError, RefusedError
from ostiary.store import open_store

DENIAL = {"form": 1, "id": "0123456789abcdef", "reasons": ["größer", "\u2028"], "report": None, "times": 3}


@pytest.fixture
def root(desk: Desk) -> str:
    return open_identity(desk.cas, DEFAULT_NAMES).root.public_bytes(Encoding.PEM).decode()


@pytest.fixture
def signed(desk: Desk) -> dict[str, Any]:
    return sign_denial(DENIAL, open_denial_signer(desk.cas))


def test_a_signed_denial_verifies_under_the_certificate_of_the_service(signed: dict[str, Any], root: str) -> None:
    assert verify_denial(json.dumps(signed), root, now=NOW) == DENIAL
    assert verify_denial(json.dumps(signed, indent=3, sort_keys=True).encode(), root, now=NOW) == DENIAL


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda statement: statement["denial"].update(times=4), "changed after it was signed"),
    (lambda statement: statement["denial"].update(more=None), "changed after it was signed"),
    (lambda statement: statement["signature"].update(value=b64encode(b"x").decode()), "changed after it was signed"),
    (lambda statement: statement["signature"]["chain"].pop(), "not signed by the CAS with this certificate"),
    (lambda statement: statement["signature"]["chain"].reverse(), "not signed by the CAS with this certificate"),
    (lambda statement: statement["signature"].update(chain=[]), "not signed by the CAS with this certificate"),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_a_changed_one_does_not(signed: dict[str, Any], root: str, change: Callable[..., object], says: str) -> None:
    statement = json.loads(json.dumps(signed))
    change(statement)
    with pytest.raises(RefusedError, match=says):
        verify_denial(json.dumps(statement), root, now=NOW)


def test_another_service_does_not_vouch_for_it(signed: dict[str, Any], tmp_path: Path) -> None:
    directory = tmp_path / "other"
    with open_store(directory, random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        other = open_identity(make_cas(store, roots=(), now=lambda: NOW, random=os.urandom), DEFAULT_NAMES).root
    with pytest.raises(RefusedError, match="not signed by the CAS with this certificate"):
        verify_denial(json.dumps(signed), other.public_bytes(Encoding.PEM).decode(), now=NOW)


def test_the_tls_key_of_the_service_signs_no_denials(desk: Desk, root: str) -> None:
    identity = open_identity(desk.cas, DEFAULT_NAMES)
    statement = sign_denial(DENIAL, StatementKey(key=identity.key, chain=identity.chain))
    with pytest.raises(RefusedError, match="not for denials"):
        verify_denial(json.dumps(statement), identity.root.public_bytes(Encoding.PEM).decode(), now=NOW)
    assert root


def test_before_its_certificate_it_does_not_hold(signed: dict[str, Any], root: str) -> None:
    with pytest.raises(RefusedError, match="from the future"):
        verify_denial(json.dumps(signed), root, now=NOW - timedelta(days=2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"denial": {}, "signature": null}',
        '{"denial": [], "signature": {"algorithm": "ES256", "value": "", "chain": []}}',
        '{"denial": {}, "signature": {"algorithm": "none", "value": "", "chain": []}}',
        '{"denial": {}, "signature": {"algorithm": "ES256", "value": "*", "chain": []}}',
        '{"denial": {}, "signature": {"algorithm": "ES256", "value": "", "chain": ["x"]}}',
        "[" * 100_000,
        " " * (MAX_STATEMENT_BYTES + 1),
    ],
)
def test_what_is_no_signed_denial_is_refused(root: str, text: str) -> None:
    with pytest.raises(InputError):
        verify_denial(text, root, now=NOW)


def test_the_private_key_shows_nowhere(desk: Desk) -> None:
    assert "key=" not in repr(open_denial_signer(desk.cas))
