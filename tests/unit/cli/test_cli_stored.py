"""What a CAS answers to a read is checked before it is believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.simulators.canned import SERVER, Server, answer, certificate, serving
from tests.simulators.commands import Scone, Shown

from ostiary.session import parse_session

TEXT = "version: '0.3'\nname: x\naccess_policy: {read: [ANY], update: [NONE]}\n"
DIGEST = parse_session(TEXT).hash.hex()
OTHER = "00" * 32


def ask(scone: Scone, tmp_path: Path, told: object, *words: str) -> Shown:
    """One command against a server that answers `told`."""
    with serving(tmp_path, [answer(200, told)]) as server:
        return scone("session", *words, *_options(scone, server))


def _options(scone: Scone, server: Server) -> tuple[str, ...]:
    ca = scone.write("ca.pem", certificate(SERVER))
    return ("--cas", f"127.0.0.1:{server.port}", "--cas-ca", ca, "--retries", "0")


@pytest.mark.parametrize("told", [{"session": TEXT, "hash": DIGEST}, {"session": TEXT}])
def test_a_text_with_its_hash_is_printed_in_normal_form(scone: Scone, tmp_path: Path, told: object) -> None:
    """An older CAS does not say the hash."""
    shown = ask(scone, tmp_path, told, "read", "x")
    assert (shown.code, shown.out, shown.err) == (0, parse_session(TEXT).text, "")


def test_a_text_of_another_hash_is_printed_with_a_warning(scone: Scone, tmp_path: Path) -> None:
    shown = ask(scone, tmp_path, {"session": TEXT, "hash": OTHER}, "read", "x")
    assert (shown.code, shown.out) == (0, TEXT)
    assert shown.err == (
        "Warning: the session is printed as the CAS gives it, unchecked\n"
        "  Caused by: the CAS's text of session 'x' does not have the hash that the CAS says\n"
        f"  Caused by: text {DIGEST}, CAS {OTHER}\n"
    )


def test_a_text_of_a_newer_language_is_printed_with_a_warning(scone: Scone, tmp_path: Path) -> None:
    shown = ask(scone, tmp_path, {"session": "name: x\nnewer: 1"}, "read", "x")
    assert (shown.code, shown.out) == (0, "name: x\nnewer: 1\n")
    assert "is not a session this version knows" in shown.err


@pytest.mark.parametrize("told", [{"session": TEXT, "hash": DIGEST}, {"session": "name: x\nnewer: 1", "hash": OTHER}])
def test_who_asks_for_a_version_gets_that_one_or_an_error(scone: Scone, tmp_path: Path, told: object) -> None:
    shown = ask(scone, tmp_path, told, "read", "x", "--session-hash", OTHER)
    assert (shown.code, shown.out) == (1, "")
    assert ask(scone, tmp_path, {"session": TEXT}, "read", "x", "--session-hash", DIGEST).code == 0


@pytest.mark.parametrize("command", ["verify", "update"])
def test_a_lying_answer_is_never_built_upon(scone: Scone, tmp_path: Path, command: str) -> None:
    shown = ask(scone, tmp_path, {"session": TEXT, "hash": OTHER}, command, scone.write("s.yml", TEXT))
    assert (shown.code, shown.out) == (1, "")
    assert "does not have the hash that the CAS says" in shown.err


def test_verify_compares_the_text_and_not_the_word_of_the_cas(scone: Scone, tmp_path: Path) -> None:
    told = {"session": TEXT.replace("[ANY]", "[NONE]")}
    shown = ask(scone, tmp_path, told, "verify", scone.write("s.yml", TEXT))
    assert (shown.code, shown.out) == (1, "")
    assert "Caused by: narrower: narrows read from ANY to NONE\n" in shown.err
