"""Templates that the program brings: which secrets they may use, and until when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ostiary.board import Caller
from ostiary.broker.configure import MAX_FILE_BYTES
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.release import Start
from ostiary.broker.render_file import render_file
from ostiary.errors import InputError

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk


def text(*, provide: str = "", files: str = "[/etc/app.conf, rel]", more: str = "") -> str:
    return f"""
version: "0.3.12"
name: a
security: {{attestation: {{mode: none}}}}
services: [{{name: s, command: p, image_name: i, pwd: /srv}}]
images:
- name: i
  injection_files: {files}
  {provide}
secrets:
- {{name: one, kind: ascii, value: ONE}}
- {{name: two, kind: ascii, value: TWO}}
- {{name: tls, kind: binary, value: aabb}}
- {{name: tls.hex, kind: ascii, value: NAMED}}
- {{name: away, import: {{session: b, secret: x}}}}
{more}"""


@pytest.fixture
def start(desk: Desk, alice: Caller) -> Start:
    desk.upload(text(), alice)
    return asyncio.run(desk.begin("a/s"))


def provided(desk: Desk, alice: Caller, names: str) -> Start:
    desk.upload(text(provide=f"provide_secrets: {names}"), alice)
    return asyncio.run(desk.begin("a/s"))


def render(desk: Desk, start: Start, template: bytes, path: str = "/etc/app.conf") -> bytes:
    return asyncio.run(render_file(desk.cas, start, path, template))


def refused(desk: Desk, start: Start, template: bytes, *words: str) -> None:
    """Nothing is written but the denial itself."""
    before = desk.cas.store.version("session/a")
    with pytest.raises(DeniedRelease) as denied:
        render(desk, start, template)
    for word in words:
        assert word in str(denied.value.told)
    assert desk.cas.store.version("session/a") == before
    assert desk.cas.denials.of_session("a")[0]["stage"] == "file"


def test_the_configuration_names_the_templates_by_absolute_paths(start: Start) -> None:
    templates = [(template.path, template.permission) for template in start.configuration.templates]
    assert templates == [("/etc/app.conf", 0o700), ("/srv/rel", 0o700)]
    assert start.configuration.files == ()


def test_placeholders_are_replaced_and_every_other_byte_is_kept(desk: Desk, start: Start) -> None:
    head = desk.cas.store.head.log_size
    assert render(desk, start, b"\xff\x00 $$SCONE::one$$ $$SCONE::two$$\r\n") == b"\xff\x00 ONE TWO\r\n"
    assert desk.cas.store.head.log_size == head + 1


def test_a_template_without_placeholders_releases_nothing(desk: Desk, start: Start) -> None:
    head = desk.cas.store.head
    assert render(desk, start, b"plain", "/srv/rel") == b"plain"
    assert desk.cas.store.head == head


def test_only_provided_secrets_stand_in_templates(desk: Desk, alice: Caller) -> None:
    start = provided(desk, alice, "[one, tls]")
    assert render(desk, start, b"$$SCONE::one$$ $$SCONE::tls:hex$$") == b"ONE aabb"


@pytest.mark.parametrize("names", ["[one, tls]", "[]"])
@pytest.mark.parametrize(
    "placeholder", ["$$SCONE::two$$", "$$SCONE::tls.hex$$", "$$SCONE::away$$", "$$SCONE::nonesuch$$"]
)
def test_a_secret_that_is_not_provided_refuses_the_start_and_is_not_even_looked_for(
    desk: Desk, alice: Caller, names: str, placeholder: str
) -> None:
    """Also the one whose name reads like a provided one in dot form."""
    start = provided(desk, alice, names)
    template = f"$$SCONE::tls:hex$$ {placeholder}" if names != "[]" else placeholder
    refused(desk, start, template.encode(), "file '/etc/app.conf'", f"placeholder {placeholder}", "provide_secrets")


CERTIFICATE = """- {name: key, kind: private-key}
- {name: cert, kind: x509-ca, private_key: key, export: {namespace: /}}
"""
KEY_FORMS = ["$$SCONE::cert:privatekey$$", "$$SCONE::cert.key$$"]


@pytest.mark.parametrize("placeholder", KEY_FORMS)
def test_the_key_of_a_certificate_is_provided_by_its_own_name_only(desk: Desk, alice: Caller, placeholder: str) -> None:
    """The host may write the template: a certificate that may stand anywhere must not bring its key."""
    desk.upload(text(provide="provide_secrets: [cert]", more=CERTIFICATE), alice)
    start = asyncio.run(desk.begin("a/s"))
    assert render(desk, start, b"$$SCONE::cert$$", "/srv/rel").startswith(b"-----BEGIN CERTIFICATE")
    refused(desk, start, placeholder.encode(), placeholder, "private key is not known here", "provide the secret")


@pytest.mark.parametrize("placeholder", KEY_FORMS)
@pytest.mark.parametrize("provide", ["", "provide_secrets: [cert, key]"])
def test_the_key_of_a_certificate_that_is_provided(desk: Desk, alice: Caller, provide: str, placeholder: str) -> None:
    desk.upload(text(provide=provide, more=CERTIFICATE), alice)
    start = asyncio.run(desk.begin("a/s"))
    assert render(desk, start, placeholder.encode()).startswith(b"-----BEGIN PRIVATE KEY")


@pytest.mark.parametrize(("names", "has_key"), [("[c]", False), ("[c, k]", True)])
def test_the_key_of_an_imported_certificate_is_provided_by_its_own_name_only(
    desk: Desk, alice: Caller, names: str, has_key: bool
) -> None:
    exported = CERTIFICATE.replace(
        "{name: key, kind: private-key}", "{name: key, kind: private-key, export: {namespace: /}}"
    )
    desk.upload(f"version: '0.3.12'\nname: b\nsecrets:\n{exported}", alice)
    imports = "".join(
        f"- {{name: {n}, import: {{session: b, secret: {s}}}}}\n" for n, s in (("c", "cert"), ("k", "key"))
    )
    desk.upload(text(provide=f"provide_secrets: {names}", more=imports), alice)
    start = asyncio.run(desk.begin("a/s"))
    if has_key:
        assert render(desk, start, b"$$SCONE::c:privatekey$$").startswith(b"-----BEGIN PRIVATE KEY")
    else:
        refused(desk, start, b"$$SCONE::c:privatekey$$", "private key is not known here")


def test_an_unknown_secret_refuses_the_start_naming_file_and_placeholder(desk: Desk, start: Start) -> None:
    refused(desk, start, b"$$SCONE::nonesuch:hex$$", "file '/etc/app.conf'", "$$SCONE::nonesuch:hex$$", "no secret")


def test_an_import_that_cannot_be_had_refuses_the_start_only_where_a_template_uses_it(desk: Desk, start: Start) -> None:
    assert render(desk, start, b"$$SCONE::one$$", "/srv/rel") == b"ONE"
    refused(desk, start, b"$$SCONE::away$$", "secret 'away' cannot be imported")


@pytest.mark.parametrize("path", ["/etc/other", "rel", "/etc/app.conf/", ""])
def test_only_the_files_of_the_service_are_rendered(desk: Desk, start: Start, path: str) -> None:
    with pytest.raises(InputError, match="is no template of this service"):
        render(desk, start, b"$$SCONE::one$$", path)


def test_each_file_is_rendered_once(desk: Desk, start: Start) -> None:
    render(desk, start, b"$$SCONE::one$$")
    with pytest.raises(InputError, match="was rendered on this connection before"):
        render(desk, start, b"$$SCONE::two$$")


def test_after_an_update_the_program_has_to_start_anew(desk: Desk, alice: Caller, start: Start) -> None:
    first = start.stored.parsed.hash.hex()
    desk.upload(text(more=f"predecessor: {first}\n"), alice)
    refused(desk, start, b"$$SCONE::one$$", "session a was updated since", "start the program again")


def test_a_file_over_the_bound_is_refused(desk: Desk, start: Start) -> None:
    refused(desk, start, b"x" * (MAX_FILE_BYTES + 1), "expected at most 1048576")


def test_all_files_together_are_bounded(desk: Desk, alice: Caller) -> None:
    files = ", ".join(f"/f{number}" for number in range(9))
    desk.upload(text(files=f"[{files}, {{path: /small, content: x}}]"), alice)
    start = asyncio.run(desk.begin("a/s"))
    for number in range(7):
        render(desk, start, b"x" * MAX_FILE_BYTES, f"/f{number}")
    with pytest.raises(DeniedRelease) as denied:
        render(desk, start, b"x" * MAX_FILE_BYTES, "/f7")
    assert "all injection files together are over 8388608 bytes" in str(denied.value.told)


def test_a_file_rests_on_the_imports_that_it_uses(desk: Desk, alice: Caller, start: Start) -> None:
    exporter = 'version: "0.3.12"\nname: b\nsecrets: [{name: x, kind: ascii, value: X, export: {session: a}}]\n'
    first = desk.upload(exporter, alice)
    assert render(desk, start, b"$$SCONE::away$$") == b"X"
    desk.upload(exporter.replace("session: a", "session: c") + f"predecessor: {first}\n", alice)
    with pytest.raises(DeniedRelease) as denied:
        render(desk, start, b"$$SCONE::away$$", "/srv/rel")
    assert "secret 'away' cannot be imported" in str(denied.value.told)
