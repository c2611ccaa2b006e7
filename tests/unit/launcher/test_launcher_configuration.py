"""The released configuration, strictly checked."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from ostiary.errors import InputError
from ostiary.launcher.configuration import (
    MAX_ARGUMENT_AND_ENVIRONMENT_BYTES,
    MAX_FILE_BYTES,
    Configuration,
    FileTemplate,
    HostArgument,
    HostVariable,
    InjectionFile,
    parse_configuration,
    parse_json_object,
)


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


GOOD: dict[str, Any] = {
    "session_hash": "0f" * 32,
    "argv": [{"value": b64(b"prog")}, {"host_argument": 3}, {"value": ""}],
    "environment": {"A": {"value": b64(b"\xff1")}, "ä b": {"host_variable": "HOME"}},
    "pwd": "/srv/",
    "injection_files": [{"path": "/etc/k.pem", "permission": 0o400, "content": b64(b"\0k")}],
    "file_templates": [{"path": "/etc/app.conf", "permission": 0o440}],
}


def parse(value: object) -> Configuration:
    return parse_configuration(json.dumps(value).encode())


def altered(path: str, value: object) -> dict[str, Any]:
    """GOOD with the member at the dotted path replaced."""
    result = copy.deepcopy(GOOD)
    target: Any = result
    *parents, last = path.split(".")
    for name in parents:
        target = target[int(name) if isinstance(target, list) else name]
    target[int(last) if isinstance(target, list) else last] = value
    return result


def test_a_good_configuration() -> None:
    assert parse(GOOD) == Configuration(
        session_hash=b"\x0f" * 32,
        argv=(b"prog", HostArgument(position=3), b""),
        environment=((b"A", b"\xff1"), ("ä b".encode(), HostVariable(name=b"HOME"))),
        pwd="/srv/",
        injection_files=(InjectionFile(path="/etc/k.pem", permission=0o400, content=b"\0k"),),
        file_templates=(FileTemplate(path="/etc/app.conf", permission=0o440),),
    )


def test_everything_may_be_empty() -> None:
    empty = {"session_hash": "00" * 32, "argv": [], "environment": {}, "pwd": "/", "injection_files": []}
    empty["file_templates"] = []
    assert parse(empty).argv == ()


def test_repr_shows_no_value() -> None:
    configuration = parse(altered("argv.0.value", b64(b"hunter2")))
    assert "hunter2" not in repr(configuration)
    assert "content" not in repr(configuration)


@pytest.mark.parametrize("member", sorted(GOOD))
def test_a_missing_member_is_named(member: str) -> None:
    value = {name: content for name, content in GOOD.items() if name != member}
    with pytest.raises(InputError, match=f"the configuration: lacks {member}"):
        parse(value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nosuch", [], "the configuration: has the unknown member 'nosuch'; is this launcher older"),
        ("session_hash", "0F" * 32, "session_hash: expected 64 lower-case hex"),
        ("session_hash", "0f" * 31, "session_hash: expected 64"),
        ("session_hash", 7, "session_hash: expected text"),
        ("argv", {}, "argv: expected a list"),
        ("argv.0", "prog", r"argv\[0\]: expected an object with one member"),
        ("argv.0", {}, r"argv\[0\]: expected an object with one member"),
        ("argv.0", {"value": "", "host_argument": 1}, r"argv\[0\]: expected an object with one member"),
        ("argv.0", {"host_variable": "A"}, r"argv\[0\]: expected an object with one member"),
        ("argv.0.value", 1, r"argv\[0\].value: expected text"),
        ("argv.0.value", "YQ", r"argv\[0\].value: not base64"),
        ("argv.0.value", "YQ==\n", r"argv\[0\].value: not base64"),
        ("argv.0.value", "Y Q==", r"argv\[0\].value: not base64"),
        ("argv.0.value", "ä", r"argv\[0\].value: not base64"),
        ("argv.0.value", "AA==", r"argv\[0\].value: holds a NUL"),
        ("argv.0.value", "\ud800", r"argv\[0\].value: text with half a character"),
        ("argv.1.host_argument", 0, r"argv\[1\].host_argument: expected a number from 1"),
        ("argv.1.host_argument", True, r"argv\[1\].host_argument: expected a number from 1"),
        ("argv.1.host_argument", 1.0, r"argv\[1\].host_argument: expected a number from 1"),
        ("argv.1.host_argument", 65537, r"argv\[1\].host_argument: expected a number from 1"),
        ("argv.0", {"host_argument": 3}, "argv: asks for the same host argument twice"),
        ("environment", [], "environment: expected an object"),
        ("environment.A", None, r"environment\['A'\]: expected an object with one member"),
        ("environment.A", {"host_argument": 1}, r"environment\['A'\]: expected an object with one member"),
        ("environment.A", {"value": b64(b"a\0")}, r"environment\['A'\].value: holds a NUL"),
        ("environment.A", {"host_variable": ""}, r"host_variable: the name of a variable is empty"),
        ("environment.A", {"host_variable": "A=B"}, r"host_variable: the name of a variable .* holds `=`"),
        ("environment.", {"value": ""}, "environment: the name of a variable is empty"),
        ("environment.A=B", {"value": ""}, "environment: the name of a variable is empty or holds `=`"),
        ("environment.A\0", {"value": ""}, "environment: holds a NUL"),
        ("environment.\udc80", {"value": ""}, "environment: text with half a character"),
        ("pwd", "srv", "pwd: 'srv' is not an absolute path"),
        ("pwd", "", "pwd: '' is not an absolute path"),
        ("pwd", "/a\0", "pwd: holds a NUL"),
        ("pwd", "/" * 4096, "pwd: a path of 4096 bytes"),
        ("injection_files", None, "injection_files: expected a list"),
        (
            "injection_files",
            [GOOD["injection_files"][0]] * 2,
            r"injection_files\[1\].path: '/etc/k.pem' is there twice",
        ),
        ("injection_files.0", [], r"injection_files\[0\]: expected an object"),
        ("injection_files.0.owner", 0, r"injection_files\[0\]: has the unknown member 'owner'"),
        ("injection_files.0.path", "etc/k", r"injection_files\[0\].path: 'etc/k' is not an absolute path"),
        ("injection_files.0.path", "/etc/../k", r"has empty, `.` or `..` parts"),
        ("injection_files.0.path", "/etc/./k", r"has empty, `.` or `..` parts"),
        ("injection_files.0.path", "//k", r"has empty, `.` or `..` parts"),
        ("injection_files.0.path", "/etc/", r"has empty, `.` or `..` parts"),
        ("injection_files.0.path", "/", r"names a directory"),
        ("injection_files.0.path", "/k\0", r"injection_files\[0\].path: holds a NUL"),
        ("injection_files.0.permission", 0o1000, r"permission: expected a number from 0 to 511"),
        ("injection_files.0.permission", -1, r"permission: expected a number from 0 to 511"),
        ("injection_files.0.permission", True, r"permission: expected a number from 0 to 511"),
        ("injection_files.0.permission", "0o400", r"permission: expected a number from 0 to 511"),
        ("file_templates", {}, "file_templates: expected a list"),
        ("file_templates.0", "", r"file_templates\[0\]: expected an object"),
        ("file_templates.0.content", "", r"file_templates\[0\]: has the unknown member 'content'"),
        ("file_templates.0.path", "k", r"file_templates\[0\].path: 'k' is not an absolute path"),
        ("file_templates.0.path", "/etc/k.pem", r"file_templates\[0\].path: '/etc/k.pem' is there twice"),
        ("file_templates.0.permission", 0o1000, r"file_templates\[0\].permission: expected a number from 0 to 511"),
        ("injection_files.0.content", None, r"content: expected text"),
        ("injection_files.0.content", b64(bytes(MAX_FILE_BYTES + 1)), r"content: 1048577 bytes, at most 1048576"),
    ],
)
def test_what_is_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(altered(path, value))


def test_arguments_and_environment_together_are_bounded() -> None:
    half = b64(b"x" * (MAX_ARGUMENT_AND_ENVIRONMENT_BYTES // 2 + 1))
    value = altered("argv.0.value", half)
    parse(value)
    value["environment"]["A"]["value"] = half
    with pytest.raises(InputError, match=r"argv and environment: .* at most 1048576"):
        parse(value)


def test_files_together_are_bounded() -> None:
    file = {"permission": 0, "content": b64(bytes(MAX_FILE_BYTES))}
    files = [{"path": f"/f{number}", **file} for number in range(9)]
    parse(altered("injection_files", files[:8]))
    with pytest.raises(InputError, match="injection_files: 9437184 bytes together, at most 8388608"):
        parse(altered("injection_files", files))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        "{}".encode("utf-16"),
    ],
    ids=["empty", "not-utf-8", "cut", "nan", "infinity", "repeated", "long-number", "deep", "utf-16"],
)
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="is not a JSON object as its protocol has it"):
        parse_json_object(body)


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"7"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="is JSON, but not an object"):
        parse_json_object(body)


VOLUME: dict[str, Any] = {
    "name": "data", "path": "/data", "key": "5e" * 32, "tag": "ab" * 16, "initialise": False, "files": "encrypted",
    "update_policy": "ephemeral",
}  # fmt: skip
MAIN: dict[str, Any] = {"path": "/fspf", "key": "5e" * 32, "tags": None, "update_policy": "no_rollback_protection"}


def test_protected_files_are_named_and_their_keys_are_not_kept() -> None:
    configuration = parse({**GOOD, "volumes": [VOLUME], "main_file_system": MAIN})
    assert configuration.protected_files == ("volume 'data' at '/data'", "main file system '/fspf'")
    assert "5e5e" not in repr(configuration)
    assert parse(GOOD).protected_files == ()


@pytest.mark.parametrize(("members", "says"), [
    ({"volumes": {}}, "volumes: expected a list"),
    ({"volumes": ["data"]}, "volumes[0]: expected an object"),
    ({"volumes": [{**VOLUME, "more": 1}]}, "volumes[0]: has the unknown member 'more'"),
    ({"volumes": [{"name": "data"}]}, "volumes[0]: lacks files, initialise, key"),
    ({"volumes": [{**VOLUME, "name": 1}]}, "volumes[0].name: expected text"),
    ({"volumes": [{**VOLUME, "path": "data"}]}, "volumes[0].path: 'data' is not an absolute path"),
    ({"volumes": [VOLUME] * 4097}, "volumes: expected a list of at most 4096"),
    ({"main_file_system": []}, "main_file_system: expected an object"),
    ({"main_file_system": {**MAIN, "more": 1}}, "main_file_system: has the unknown member 'more'"),
    ({"main_file_system": {**MAIN, "path": None}}, "main_file_system.path: expected text"),
])  # fmt: skip
def test_malformed_protected_files_are_refused(members: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse({**GOOD, **members})
    assert says in str(caught.value)
    assert "5e5e" not in str(caught.value)
