"""Secrets that cross from one session to another: both sides must agree, at each release anew."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from ostiary.board import Caller
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.public_values import read_public_value
from ostiary.errors import NotFoundError
from ostiary.secret import CertificateValue

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk


def session(name: str, *secrets: str, command: str = "p", more: str = "") -> str:
    """A session with a service `s`, whoever asks for it, and these secrets."""
    listed = "".join(f"- {{{secret}}}\n" for secret in secrets)
    return (
        f'version: "0.3.12"\nname: {name}\nsecurity: {{attestation: {{mode: none}}}}\n{more}'
        f'services: [{{name: s, command: "{command}"}}]\n' + (f"secrets:\n{listed}" if secrets else "")
    )


def exporter(name: str = "a", export: str = "{session: b}", more: str = "", **other: str) -> str:
    return session(name, f"name: x, kind: ascii, export: {export}{more}", **other)


def importer(name: str = "b", source: str = "session: a, secret: x", more: str = "", **other: str) -> str:
    return session(name, f"name: y, import: {{{source}}}{more}", command="p $$SCONE::y$$", **other)


@pytest.fixture
def people(alice: Caller, eve: Caller) -> tuple[Caller, Caller]:
    """Of the exporter and of the importer."""
    return alice, eve


def value(desk: Desk, name: str, secret: str = "x") -> bytes:
    held = desk.cas.sessions.require(name).values[secret]
    return held.text.encode()  # type: ignore[union-attr]


def refused(desk: Desk, caplog: pytest.LogCaptureFixture, *logged: str, secret: str = "y", start: str = "b/s") -> None:
    """The start is denied, the program learns the secret's name and nothing else, and the log has the reason."""
    caplog.clear()
    before = [desk.cas.store.version(f"session/{name}") for name in "abc"]
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"), pytest.raises(DeniedRelease) as denied:
        desk.start(start)
    assert denied.value.told.chain == (
        f"secret {secret!r} cannot be imported",
        "ask those who may read the session; the service's log has the reason",
    )
    for words in logged:
        assert words in caplog.text
    assert [desk.cas.store.version(f"session/{name}") for name in "abc"] == before


@pytest.mark.parametrize("export", [
    "{session: b}", "[{session: c}, {session: b}]", "{namespace: b}", "{namespace: /}", "/session=b",
])  # fmt: skip
def test_a_secret_that_both_sides_agree_on_is_released(desk: Desk, people: tuple[Caller, Caller], export: str) -> None:
    desk.upload(exporter(export=export), people[0])
    desk.upload(importer(), people[1])
    assert desk.argv("b/s") == [b"p", value(desk, "a")]


@pytest.mark.parametrize("export", ["{session: c}", "{session: b/c}", "{namespace: b/c}", "{namespace: c}"])
def test_what_is_exported_to_others_is_refused(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture, export: str
) -> None:
    desk.upload(exporter(export=export), people[0])
    desk.upload(importer(), people[1])
    refused(desk, caplog, "session a does not export secret 'x' to session b", "add {session: b}")


def test_what_is_not_exported_is_refused(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    """F146: both sides must name each other."""
    desk.upload(session("a", "name: x, kind: ascii"), people[0])
    desk.upload(importer(), people[1])
    refused(desk, caplog, "does not export")


def test_an_export_to_another_cas_exports_to_nobody_here(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    key = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"
    desk.upload(exporter(export=f"{{session: b, cas_url: other.example, cas_key: {key}}}"), people[0])
    desk.upload(importer(), people[1])
    refused(desk, caplog, "does not export")


def test_an_import_from_another_cas_is_refused_by_name(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    key = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"
    desk.upload(exporter(), people[0])
    desk.upload(importer(source=f"session: a, secret: x, cas_url: other.example, cas_key: {key}"), people[1])
    refused(desk, caplog, "it is of another CAS, other.example:8081")


def test_an_export_to_a_session_does_not_reach_those_below_it_and_one_to_a_namespace_does(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    """F149: an export to a session does not reach those nested in it."""
    first = desk.upload(exporter(), people[0])
    desk.upload(session("b"), people[1])
    desk.upload(importer("b/c"), people[1])
    refused(desk, caplog, "to session b/c", start="b/c/s")
    desk.upload(exporter(export="{namespace: b}", more="") + f"predecessor: {first}\n", people[0])
    assert desk.argv("b/c/s") == [b"p", value(desk, "a")]


def test_relative_references_are_those_of_the_session_that_has_them(desk: Desk, people: tuple[Caller, Caller]) -> None:
    desk.upload(session("n"), people[0])
    desk.upload(exporter("n/a", export="{session: ../b}"), people[0])
    desk.upload(importer("n/b", source="session: ../a, secret: x"), people[0])
    assert desk.argv("n/b/s") == [b"p", value(desk, "n/a")]


def test_sessions_come_in_any_order(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    desk.upload(importer(), people[1])
    refused(desk, caplog, "there is no session a; create it")
    desk.upload(session("a"), people[0])
    refused(desk, caplog, "session a has no secret 'x'")
    first = desk.cas.sessions.require("a").parsed.hash.hex()
    desk.upload(exporter() + f"predecessor: {first}\n", people[0])
    assert desk.argv("b/s") == [b"p", value(desk, "a")]


def test_a_withdrawn_export_is_withdrawn_at_the_next_start(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    first = desk.upload(exporter(), people[0])
    desk.upload(importer(), people[1])
    desk.start("b/s")
    desk.upload(exporter(export="{session: c}") + f"predecessor: {first}\n", people[0])
    refused(desk, caplog, "does not export")


def test_a_value_that_changes_is_released_as_it_is_now(desk: Desk, people: tuple[Caller, Caller]) -> None:
    first = desk.upload(session("a", "name: x, kind: ascii, value: one, export: {session: b}"), people[0])
    desk.upload(importer(), people[1])
    assert desk.argv("b/s") == desk.argv("b/s") == [b"p", b"one"]
    text = session("a", "name: x, kind: ascii, value: two, export: {session: b}")
    desk.upload(text + f"predecessor: {first}\n", people[0])
    assert desk.argv("b/s") == [b"p", b"two"]


def test_with_a_hash_an_import_is_of_that_version_only(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    first = desk.upload(exporter(), people[0])
    desk.upload(importer(source=f'session: a, secret: x, session_hash: "{first}"'), people[1])
    assert desk.argv("b/s") == [b"p", value(desk, "a")]
    desk.upload(exporter(command="other") + f"predecessor: {first}\n", people[0])
    refused(desk, caplog, f"session a is no longer the version with session_hash {first}")


def test_with_a_hash_an_export_is_to_that_version_only(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    imports = desk.upload(importer(), people[1])
    desk.upload(exporter(export=f'{{session: b, session_hash: "{imports}"}}'), people[0])
    assert desk.argv("b/s") == [b"p", value(desk, "a")]
    desk.upload(importer(more=", kind: ascii") + f"predecessor: {imports}\n", people[1])
    refused(desk, caplog, "to session b in its current version")


@pytest.mark.parametrize(("more", "logged"), [
    (", kind: binary", "is of kind ascii, expected binary"), (", kind: ascii, size: 9", "has size 20, expected 9"),
])  # fmt: skip
def test_kind_and_size_are_checked(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture, more: str, logged: str
) -> None:
    desk.upload(exporter(), people[0])
    desk.upload(importer(more=more), people[1])
    refused(desk, caplog, logged)


def test_an_import_that_the_service_does_not_use_stops_it_not(desk: Desk, people: tuple[Caller, Caller]) -> None:
    desk.upload(session("b", "name: y, import: {session: a, secret: x}", "name: z, kind: ascii, value: z",
                        command="p $$SCONE::z$$"), people[1])  # fmt: skip
    assert desk.argv("b/s") == [b"p", b"z"]


# --- chains


def test_a_secret_travels_over_sessions_that_each_pass_it_on(
    desk: Desk, people: tuple[Caller, Caller], caplog: pytest.LogCaptureFixture
) -> None:
    first = desk.upload(exporter(), people[0])
    middle = desk.upload(importer(more=", export: {session: c}"), people[1])
    desk.upload(importer("c", source="session: b, secret: y", more=", kind: ascii"), people[1])
    assert desk.argv("c/s") == [b"p", value(desk, "a")]
    # The first exporter withdraws it from the session in the middle: it is gone for the last one as well.
    desk.upload(exporter(export="{session: c}") + f"predecessor: {first}\n", people[0])
    refused(desk, caplog, "session a does not export secret 'x' to session b", start="c/s")
    desk.upload(importer() + f"predecessor: {middle}\n", people[1])
    refused(desk, caplog, "session b does not export secret 'y' to session c", start="c/s")


@pytest.mark.parametrize(("first", "second"), [("b", "a"), ("a", "a")])
def test_a_circle_of_imports_is_refused(
    desk: Desk, alice: Caller, caplog: pytest.LogCaptureFixture, first: str, second: str
) -> None:
    desk.upload(session("a", f"name: y, import: {{session: {first}, secret: y}}, export: [{{namespace: /}}]",
                        command="p $$SCONE::y$$"), alice)  # fmt: skip
    desk.upload(importer("b", source=f"session: {second}, secret: y", more=", export: {namespace: /}"), alice)
    refused(desk, caplog, "the import goes in a circle, ", "a:y", start="b/s")


def test_a_chain_over_too_many_sessions_is_refused(desk: Desk, alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    desk.upload(session("s0", "name: y, kind: ascii, export: {namespace: /}"), alice)
    for number in range(1, 10):
        source = f"session: s{number - 1}, secret: y"
        desk.upload(importer(f"s{number}", source=source, more=", export: {namespace: /}"), alice)
    assert desk.argv("s8/s")[1] == value(desk, "s0", "y")
    refused(desk, caplog, "travels over more than 8 sessions", start="s9/s")


def test_two_secrets_may_travel_the_same_way_in_opposite_directions(desk: Desk, alice: Caller) -> None:
    desk.upload(session("a", "name: x, kind: ascii, value: there, export: {session: b}",
                        "name: z, import: {session: b, secret: w}", command="p $$SCONE::z$$"), alice)  # fmt: skip
    desk.upload(session("b", "name: w, kind: ascii, value: back, export: {session: a}",
                        "name: y, import: {session: a, secret: x}", command="p $$SCONE::y$$"), alice)  # fmt: skip
    assert desk.argv("a/s") == [b"p", b"back"]
    assert desk.argv("b/s") == [b"p", b"there"]


# --- certificates

CERTIFICATE = (
    "name: key, kind: private-key{key}",
    "name: cert, kind: x509-ca, private_key: key, valid_for: 30 days, export: {{namespace: /}}",
)


def authority(name: str = "a", *, key: str = "", **other: str) -> str:
    return session(name, *(text.format(key=key).replace("{{", "{").replace("}}", "}") for text in CERTIFICATE), **other)


def holder(name: str = "b", source: str = "a", form: str = "", *secrets: str, more: str = "") -> str:
    imported = f"name: cert, import: {{session: {source}, secret: cert}}, export: {{namespace: /}}{more}"
    return session(name, imported, *secrets, command=f"p $$SCONE::cert{form}$$")


def test_a_certificate_is_imported_without_its_key(desk: Desk, alice: Caller) -> None:
    desk.upload(authority(), alice)
    desk.upload(holder(more=", kind: x509-ca"), alice)
    assert desk.argv("b/s")[1].startswith(b"-----BEGIN CERTIFICATE")  # type: ignore[union-attr]


def denied(desk: Desk, service_id: str) -> str:
    with pytest.raises(DeniedRelease) as found:
        desk.start(service_id)
    return str(found.value.told)


def test_the_key_of_a_certificate_comes_only_if_it_is_exported_to_the_same_session(desk: Desk, alice: Caller) -> None:
    desk.upload(authority(key=", export: {session: c}"), alice)
    desk.upload(holder("b", "a", ":privatekey"), alice)
    desk.upload(holder("c", "a", ":privatekey"), alice)
    assert "private key is not known here" in denied(desk, "b/s")
    assert desk.argv("c/s")[1].startswith(b"-----BEGIN PRIVATE KEY")  # type: ignore[union-attr]


def test_of_language_0_2_a_certificate_has_its_key_in_itself(desk: Desk, alice: Caller) -> None:
    text = 'version: "0.2"\nname: a\nsecrets:\n- {name: cert, kind: x509, export: b}\n'
    desk.upload(text, alice)
    desk.upload(holder("b", "a", ":privatekey"), alice)
    assert desk.argv("b/s")[1].startswith(b"-----BEGIN PRIVATE KEY")  # type: ignore[union-attr]


def test_the_key_travels_on_only_with_an_export_of_its_own(desk: Desk, alice: Caller) -> None:
    desk.upload(authority(key=", export: {namespace: /}"), alice)
    desk.upload(holder("b"), alice)
    desk.upload(holder("c", "a", "", "name: k, import: {session: a, secret: key}, export: {session: d}"), alice)
    desk.upload(holder("d", "b", ":privatekey"), alice)
    assert "private key is not known here" in denied(desk, "d/s")
    first = desk.cas.sessions.require("d").parsed.hash.hex()
    desk.upload(holder("d", "c", ":privatekey") + f"predecessor: {first}\n", alice)
    assert desk.argv("d/s")[1].startswith(b"-----BEGIN PRIVATE KEY")  # type: ignore[union-attr]


def expires(pem: object) -> object:
    assert isinstance(pem, bytes)
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def test_an_imported_certificate_that_is_due_is_renewed_where_it_is_made(desk: Desk, alice: Caller) -> None:
    desk.upload(authority(), alice)
    desk.upload(holder(), alice)
    first = desk.argv("b/s")[1]
    assert desk.argv("b/s")[1] == first
    desk.pass_time(timedelta(days=21))
    second = desk.argv("b/s")[1]
    assert expires(second) != expires(first)
    assert desk.argv("b/s")[1] == second
    kept = desk.cas.sessions.require("a").values["cert"]
    assert isinstance(second, bytes)
    assert isinstance(kept, CertificateValue)
    assert x509.load_pem_x509_certificate(second) == x509.load_der_x509_certificate(kept.certificate_der)


def test_what_is_made_of_an_import_follows_it(desk: Desk, alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """An imported authority signs a certificate here: made at the first release, made anew with the authority."""
    first = desk.upload(authority(key=", export: {namespace: /}"), alice)
    desk.upload(
        session(
            "b",
            "name: ca, import: {session: a, secret: cert}",
            "name: k, kind: private-key",
            "name: leaf, kind: x509, private_key: k, issuer: ca, dns: b.example",
            command="p $$SCONE::leaf$$ $$SCONE::leaf:chain$$",
        ),
        alice,
    )

    def leaf() -> x509.Certificate:
        _, own, chain = desk.argv("b/s")
        assert isinstance(own, bytes)
        assert isinstance(chain, bytes)
        certificate = x509.load_pem_x509_certificate(own)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(chain))
        return certificate

    made = leaf()
    assert leaf() == made
    desk.pass_time(timedelta(days=21))
    renewed = leaf()
    assert renewed.serial_number != made.serial_number
    assert leaf() == renewed
    desk.upload(session("a") + f"predecessor: {first}\n", alice)
    refused(desk, caplog, "session a has no secret 'cert'", secret="ca")


# --- public values


def test_an_import_may_be_made_public(desk: Desk, alice: Caller) -> None:
    first = desk.upload(exporter(), alice)
    desk.upload(importer(more=", export_public: true"), alice)
    public = asyncio.run(read_public_value(desk.cas, "b", "y", session_hash=None))
    assert (public["kind"], public["value"]) == ("string", value(desk, "a").decode())
    desk.upload(exporter(export="{session: c}") + f"predecessor: {first}\n", alice)
    with pytest.raises(NotFoundError, match="Failed to read value 'y' of '/session=b'"):
        asyncio.run(read_public_value(desk.cas, "b", "y", session_hash=None))
