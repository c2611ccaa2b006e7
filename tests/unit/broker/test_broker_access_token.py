"""A session's access token at the service: who comes in, and what the others are told."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from tests.simulators.authenticator import SECRET_BASE32, password_at

from ostiary.attester.binding import SERVER
from ostiary.broker.access_token import prove_token

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

    from ostiary.board import Caller

TOKEN = "wC2YkzR0pQ7mVbT4xL9e"
OTHER_TOKEN = "wC2YkzR0pQ7mVbT4xL9f"


def text(token: str | None = TOKEN, *, password: str | None = None, more: str = "") -> str:
    members = [] if token is None else [f"service_access_token: {token}"]
    secret = "" if password is None else f", one_time_password_shared_secret: {password}"
    members.append(f"attestation: {{mode: none{secret}}}")
    return (
        f'version: "0.3.12"\nname: a\nsecurity: {{{", ".join(members)}}}\nservices: [{{name: s, command: p}}]\n{more}'
    )


def start(desk: Desk, service_id: str, token: str | None) -> bytes:
    """The service's own proof after a start that must succeed."""
    return asyncio.run(desk.begin(service_id, token=token)).access_token_proof


def test_f199_a_program_with_the_token_is_let_in_and_gets_the_service_s_proof(desk: Desk, alice: Caller) -> None:
    """F199: another one for each start, as each has a nonce of its own."""
    desk.upload(text(), alice)
    first, second = start(desk, "a/s", TOKEN), start(desk, "a/s", TOKEN)
    assert len(first) == len(second) == 32
    assert first != second


def test_f199_the_service_s_proof_is_over_the_nonce_and_both_keys(
    desk: Desk, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F199."""
    desk.upload(text(), alice)
    issue = desk.cas.challenges.issue
    nonces: list[bytes] = []

    def remembering(client: bytes, now: object) -> bytes:
        nonces.append(issue(client, now))  # type: ignore[arg-type]
        return nonces[-1]

    monkeypatch.setattr(desk.cas.challenges, "issue", remembering)
    proof = start(desk, "a/s", TOKEN)
    assert proof == prove_token(TOKEN, SERVER, nonce=nonces[0], client_spki=b"client", server_spki=b"server")


def test_f199_wrong_missing_and_on_one_side_only_are_refused(
    desk: Desk, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    """F199: the message says which, and neither it nor the log has the token."""
    first = desk.upload(text(), alice)
    with caplog.at_level(logging.DEBUG):
        assert "the program has another service access token than the session" in desk.denied("a/s", token=OTHER_TOKEN)
        assert "the session has a service access token and the program has none" in desk.denied("a/s")
        desk.upload(text(None, more=f"predecessor: {first}\n"), alice)
        assert "the program has a service access token and the session has none" in desk.denied("a/s", token=TOKEN)
    assert start(desk, "a/s", None) == b""
    assert TOKEN not in caplog.text
    assert OTHER_TOKEN not in caplog.text


@pytest.mark.parametrize("kind", [f"ascii, value: {TOKEN}", f"config-fragment, value: {TOKEN}"])
def test_f199_the_token_may_be_a_variable(desk: Desk, alice: Caller, kind: str) -> None:
    """F199."""
    desk.upload(text("$$SCONE::t$$", more=f"secrets: [{{name: t, kind: {kind}}}]\n"), alice)
    assert len(start(desk, "a/s", TOKEN)) == 32
    assert "another service access token" in desk.denied("a/s", token=OTHER_TOKEN)
    assert "the program has none" in desk.denied("a/s")


@pytest.mark.parametrize("exported", ["ascii, value: ''", "config-fragment, value: [x]", "binary", None])
def test_f199_a_token_that_does_not_fit_refuses_every_start(desk: Desk, alice: Caller, exported: str | None) -> None:
    """F199: it is never taken for no token."""
    if exported is not None:
        source = f'version: "0.3.12"\nname: b\nsecrets: [{{name: x, kind: {exported}, export: {{session: a}}}}]\n'
        desk.upload(source, alice)
    desk.upload(text("$$SCONE::t$$", more="secrets: [{name: t, import: {session: b, secret: x}}]\n"), alice)
    for token in (None, "", TOKEN):
        assert "security rests on what cannot be resolved" in desk.denied("a/s", token=token)


def test_the_password_comes_before_the_token_and_is_spent_by_a_wrong_one(desk: Desk, alice: Caller) -> None:
    """Section 16 of the language: the order of decisions."""
    desk.upload(text(password=SECRET_BASE32), alice)
    password = password_at(desk.cas.now())
    assert "invalid" in desk.denied("a/s@", token=OTHER_TOKEN)
    assert "another service access token" in desk.denied(f"a/s@{password}", token=OTHER_TOKEN)
    assert "already used" in desk.denied(f"a/s@{password}", token=TOKEN)
    assert len(start(desk, f"a/s@{password_at(desk.cas.now(), steps=-1)}", TOKEN)) == 32
