"""The configuration of a service, its bounds, and the ones that are kept ready."""

from __future__ import annotations

import pytest

from ostiary.broker import configure as module
from ostiary.broker.configure import (
    MAX_ARGUMENTS_BYTES,
    MAX_FILE_BYTES,
    MAX_FILES_BYTES,
    configure,
)
from ostiary.broker.session_records import StoredSession
from ostiary.errors import ReleaseRefusedError
from ostiary.secret import AsciiValue, BinaryValue, Value
from ostiary.session import parse_session
from ostiary.session.model import Service

TEXT = """
name: configured
version: "0.3.10"
security: {attestation: {mode: none}}
services:
- name: web
  image_name: image
  command: server $$SCONE::big$$
  environment: {BIG: $$SCONE::more$$}
  pwd: /srv
- name: other
  command: other
images:
- name: image
  injection_files:
  - {path: /a, content: $$SCONE::file$$}
  - {path: relative/b, content: $$SCONE::file$$}
secrets:
- {name: big, kind: ascii}
- {name: more, kind: ascii}
- {name: file, kind: binary}
"""


def stored(*, big: int = 1, more: int = 1, file: int = 1, record: int = 1) -> StoredSession:
    """The session with secrets of these sizes."""
    values: dict[str, Value] = {
        "big": AsciiValue(text="b" * big),
        "more": AsciiValue(text="m" * more),
        "file": BinaryValue(data=b"\0" * file),
    }
    return StoredSession(parsed=parse_session(TEXT), creator=None, values=values, record=record)


def service(session: StoredSession, name: str = "web") -> Service:
    return next(found for found in session.parsed.session.services if found.name == name)


def test_placeholders_are_replaced_and_relative_files_lie_in_the_working_directory() -> None:
    session = stored(big=2, more=3, file=4)
    made = configure(session, service(session), session.values)
    assert made.argv == (b"server", b"bb")
    assert made.environment == (("BIG", b"mmm"),)
    assert [(file.path, len(file.content)) for file in made.files] == [("/a", 4), ("/srv/relative/b", 4)]
    assert made.size_bytes == len(b"server") + 2 + len("BIG") + 3 + 8


def test_a_service_without_image_has_no_files_and_starts_in_the_root() -> None:
    session = stored()
    made = configure(session, service(session, "other"), session.values)
    assert made.files == ()
    assert made.pwd == "/"


def test_secrets_are_in_no_repr() -> None:
    session = stored(big=9)
    made = configure(session, service(session), session.values)
    assert "bbb" not in repr(made) + repr(made.files) + repr(session)


def test_bounds_are_inclusive() -> None:
    session = stored(big=MAX_ARGUMENTS_BYTES - len("serverBIG") - 1, file=1)
    assert configure(session, service(session), session.values).arguments_bytes == MAX_ARGUMENTS_BYTES


@pytest.mark.parametrize(("sizes", "message"), [
    ({"big": MAX_ARGUMENTS_BYTES}, "arguments and environment together: 1048586 bytes, at most 1048576"),
    ({"more": MAX_ARGUMENTS_BYTES}, "arguments and environment together"),
])  # fmt: skip
def test_arguments_over_the_bound_are_refused(sizes: dict[str, int], message: str) -> None:
    session = stored(**sizes)
    with pytest.raises(ReleaseRefusedError, match=message):
        configure(session, service(session), session.values)


def test_files_over_their_bounds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    session = stored(file=MAX_FILE_BYTES)
    monkeypatch.setattr(module, "MAX_FILES_BYTES", 2 * MAX_FILE_BYTES - 1)
    with pytest.raises(ReleaseRefusedError, match="all injection files together: 2097152 bytes"):
        configure(session, service(session), session.values)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", MAX_FILE_BYTES - 1)
    with pytest.raises(ReleaseRefusedError, match="injection file /a: 1048576 bytes"):
        configure(session, service(session), session.values)
    assert MAX_FILES_BYTES == 8 * MAX_FILE_BYTES


def test_a_nul_in_an_argument_is_refused() -> None:
    session = stored()
    values = {**session.values, "big": AsciiValue(text="a\0b")}
    with pytest.raises(ReleaseRefusedError, match="an argument would contain a NUL byte"):
        configure(session, service(session), values)


def with_variable(name: str, value: str) -> StoredSession:
    text = TEXT.replace("  command: other", f"  command: other\n  environment: {{{name}: {value}}}")
    return StoredSession(parsed=parse_session(text), creator=None, values=stored().values, record=1)


@pytest.mark.parametrize(("name", "value"), [
    ("SCONE_NETWORK_SHIELD", "protected"),
    ("SCONE_NETWORK_SHIELD", "anything"),
    ("SCONE_NETWORK_SHIELD_UNSUPPORTED_PROTOCOLS", "refuse"),
    ("SCONE_NETWORK_SHIELD_SERVER_web", "protected"),
    ("SCONE_NETWORK_SHIELD_CLIENT_db", "refuse"),
    ("SCONE_NETWORK_SHIELD", "$$SCONE::big$$"),
    ("SCONE_PIPE", "deny"),
    ("SCONE_SOCKETPAIR", "allow-events"),
])  # fmt: skip
def test_a_protection_that_the_runtime_does_not_give_stops_the_start(name: str, value: str) -> None:
    session = with_variable(name, value)
    with pytest.raises(ReleaseRefusedError, match=f"variable {name} asks for a protection"):
        configure(session, service(session, "other"), session.values)


@pytest.mark.parametrize(("name", "value"), [
    ("SCONE_NETWORK_SHIELD", "disabled"),
    ("SCONE_NETWORK_SHIELD", "unprotected"),
    ("SCONE_NETWORK_SHIELD_SERVER_web_PORT", "TCP:443"),
    ("SCONE_PIPE", "allow"),
    ("SCONE_HEAP", "1G"),
])  # fmt: skip
def test_a_runtime_setting_that_asks_for_no_protection_is_passed_on(name: str, value: str) -> None:
    session = with_variable(name, value)
    assert configure(session, service(session, "other"), session.values).environment == ((name, value.encode()),)
