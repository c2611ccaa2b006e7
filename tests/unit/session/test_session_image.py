"""Images and their injection files."""

from __future__ import annotations

import pytest
from tests.unit.session.texts import HEAD, A, mistake, quiet, warning

from ostiary.session import InjectionFile, Placeholder, Template, parse_session


def image(files: str) -> str:
    secrets = "secrets: [{name: pw, kind: ascii}, {name: raw, kind: binary}]"
    return f"{HEAD}{secrets}\nimages: [{{name: i, injection_files: {files}}}]\n"


def only(text: str) -> InjectionFile:
    (found,) = parse_session(text).session.images
    (file,) = found.injection_files
    return file


def test_an_injection_file_has_path_content_and_permission() -> None:
    file = only(quiet(image("[{path: /etc//./app.conf, content: 'pw=$$SCONE::pw$$', permission: 0o440}]")).text)
    assert file.path == "/etc/app.conf"
    assert file.content == Template(parts=("pw=", Placeholder(name="pw")))
    assert file.permission == 0o440
    assert only(image("[{path: /a, content: ''}]")) == InjectionFile(
        path="/a", content=Template(parts=()), permission=0o700
    )


@pytest.mark.parametrize("form", ["", "bin", "hex"])
def test_files_may_hold_raw_bytes(form: str) -> None:
    """In a file bytes stand as they are; a variable of a program may not hold NUL, so there they are warned of."""
    placeholder = f"$$SCONE::raw:{form}$$" if form else "$$SCONE::raw$$"
    file = only(quiet(image(f"[{{path: /a, content: 'head {placeholder}'}}]")).text)
    assert file.content == Template(parts=("head ", Placeholder(name="raw", format=form)))
    variable = f"services: [{{name: s, mrenclaves: [{A}], environment: {{V: '{placeholder}'}}}}]"
    elsewhere = f"{HEAD}secrets: [{{name: raw, kind: binary}}]\n{variable}\n"
    warnings = [] if form == "hex" else [warning(elsewhere, "services[0].environment.V")]
    assert len(parse_session(elsewhere).warnings) == len(warnings)
    assert all("is raw bytes" in text for text in warnings)


@pytest.mark.parametrize("spelling", ["0o400", "0400", "'0o400'", '"0400"', "00400"])
def test_permissions_are_octal_in_every_spelling(spelling: str) -> None:
    assert only(image(f"[{{path: /a, content: x, permission: {spelling}}}]")).permission == 0o400


@pytest.mark.parametrize("spelling", ["400", "256", "0o1000", "0o800", "'rw'", "0", "[0o400]", "-1", "0x100"])
def test_other_permissions_are_refused_with_the_right_form(spelling: str) -> None:
    text = image(f"[{{path: /a, content: x, permission: {spelling}}}]")
    assert "such as 0o400" in mistake(text, "images[0].injection_files[0].permission")


def test_a_permission_without_read_is_a_warning() -> None:
    text = image("[{path: /a, content: x, permission: 0o100}]")
    assert "nobody may read the file" in warning(text, "images[0].injection_files[0].permission")
    assert only(text).permission == 0o100


@pytest.mark.parametrize(
    ("files", "path", "says"),
    [
        ("[/etc/]", "[0]", "which is a directory"),
        ("[{content: x}]", "[0].path", "path is missing"),
        ("[{path: /a, content: x, permision: 0o400}]", "[0].permision", "did you mean permission?"),
        ("[{path: /a, contents: x}]", "[0].contents", "did you mean content?"),
        ("[{path: /a, content: [x]}]", "[0].content", "found a list, expected text"),
        ("[{path: /a/, content: x}]", "[0].path", "which is a directory"),
        ("[{path: /, content: x}]", "[0].path", "which is a directory"),
        ("[{path: '', content: x}]", "[0].path", "expected a path"),
        ("[{path: [a], content: x}]", "[0].path", "found a list, expected text"),
        ("[{path: /a/../b, content: x}]", "[0].path", "without .."),
        ('[{path: "/a\\u202e", content: x}]', "[0].path", "control or invisible"),
        ("[{path: /a, content: x}, {path: /./a, content: y}]", "[1]", "the file /a stands on line 4 already"),
        ("{path: /a, content: x}", "", "expected a list of injection files"),
        ("[~]", "[0]", "found nothing, expected a mapping"),
        ("[{path: /a, content: $$SCONE::nope$$}]", "[0].content", "names a secret that is not in secrets"),
    ],
)
def test_wrong_injection_files_are_refused(files: str, path: str, says: str) -> None:
    assert says in mistake(image(files), f"images[0].injection_files{path}")


def test_a_relative_path_is_a_warning() -> None:
    text = image("[{path: conf/app.yml, content: x}]")
    assert "taken from the service's pwd" in warning(text, "images[0].injection_files[0].path")
    assert only(text).path == "conf/app.yml"


def test_images_have_unique_free_names_and_may_be_empty() -> None:
    quiet(f"{HEAD}images: [{{name: 'registry.example/proxy:1.0'}}]")
    assert "has the same name" in mistake(f"{HEAD}images: [{{name: a}}, {{name: a}}]", "images[1].name")
    assert "name is missing" in mistake(f"{HEAD}images: [{{}}]", "images[0].name")
    assert "expected a list of images" in mistake(f"{HEAD}images: {{name: a}}", "images")
    quiet(f"{HEAD}images: [{{name: a, volumes: ~}}]")
    null = f"{HEAD}images: [{{name: a, provide_secrets: }}]"
    assert "found nothing, expected a list of secret names" in mistake(null, "images[0].provide_secrets")
