"""The configuration that the CAS releases: the body of its answer, strictly checked. Pure."""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass, field

from ostiary.errors import InputError

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from typing import NoReturn

MAX_ARGUMENTS = 65536
MAX_VARIABLES = 65536
MAX_ARGUMENT_AND_ENVIRONMENT_BYTES = 1024 * 1024
MAX_FILES = 4096
MAX_FILE_BYTES = 1024 * 1024
MAX_FILES_BYTES = 8 * 1024 * 1024
MAX_VOLUMES = 4096
MAX_PATH_BYTES = 4095
MAX_HOST_ARGUMENT = 65536

_MEMBERS = frozenset({"session_hash", "argv", "environment", "pwd", "injection_files", "file_templates"})
_OPTIONAL_MEMBERS = frozenset({"access_token_proof", "volumes", "main_file_system"})
_VOLUME_MEMBERS = frozenset({"name", "path", "key", "tag", "initialise", "files", "update_policy"})
_MAIN_MEMBERS = frozenset({"path", "key", "tags", "update_policy"})
_FILE_MEMBERS = frozenset({"path", "permission", "content"})
_TEMPLATE_MEMBERS = frozenset({"path", "permission"})


@dataclass(frozen=True, kw_only=True)
class HostArgument:
    """Argument number `position` of the host's command line, from 1, the program's name not counted."""

    position: int


@dataclass(frozen=True, kw_only=True)
class HostVariable:
    """The host's variable of that name, empty if it has none."""

    name: bytes


@dataclass(frozen=True, kw_only=True)
class InjectionFile:
    """A file for the program. path: absolute, without empty, `.` and `..` parts. permission: 0 to 0o777."""

    path: str
    permission: int
    content: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class FileTemplate:
    """A file of this machine that the CAS is to make an injection file of. path, permission: as in InjectionFile."""

    path: str
    permission: int


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What the program is to be started with. No text of it holds NUL.

    session_hash: 32 bytes. argv: empty if the session gives no command. pwd: absolute path.
    access_token_proof: 32 bytes by which the CAS shows that it has the session's access token; None if it sent none.
    protected_files: what the program is to have of volumes and main file system, in words; their keys are not kept, as
    nothing here uses them.
    """

    session_hash: bytes
    argv: tuple[bytes | HostArgument, ...] = field(repr=False)
    environment: tuple[tuple[bytes, bytes | HostVariable], ...] = field(repr=False)
    pwd: str
    injection_files: tuple[InjectionFile, ...]
    file_templates: tuple[FileTemplate, ...] = ()
    access_token_proof: bytes | None = field(default=None, repr=False)
    protected_files: tuple[str, ...] = ()


def parse_json_object(body: bytes) -> dict[str, object]:
    """A JSON object in UTF-8 without repeated members, NaN or infinities. Raises InputError, never showing content."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InputError("the CAS's answer is not a JSON object as its protocol has it") from None
    if not isinstance(value, dict):
        raise InputError("the CAS's answer is JSON, but not an object")
    return value


def parse_configuration(body: bytes) -> Configuration:
    """Check the answer to `POST /v1/configure` member by member.

    Guarantees: every member known and of its type, all within the bounds above, no NUL where the kernel allows none,
    names of variables without `=`, paths absolute, those of files plain, each injection path and host argument once.
    Does not guarantee: that any path exists here, or that the host gives the arguments asked for.
    Raises InputError that names the member, never its value.
    Source: docs/enclave-protocol.md section 3.
    """
    members = parse_json_object(body)
    _exactly(members, _MEMBERS | (_OPTIONAL_MEMBERS & set(members)), "the configuration")
    argv = tuple(
        _parse_word(word, f"argv[{index}]") for index, word in enumerate(_list(members["argv"], "argv", MAX_ARGUMENTS))
    )
    positions = [word.position for word in argv if isinstance(word, HostArgument)]
    if len(positions) != len(set(positions)):
        _refuse("argv", "asks for the same host argument twice")
    environment = _parse_environment(members["environment"])
    size = sum(len(word) for word in argv if isinstance(word, bytes))
    size += sum(len(name) + (len(value) if isinstance(value, bytes) else 0) for name, value in environment)
    if size > MAX_ARGUMENT_AND_ENVIRONMENT_BYTES:
        _refuse("argv and environment", f"{size} bytes together, at most {MAX_ARGUMENT_AND_ENVIRONMENT_BYTES}")
    files, templates = _parse_files(members["injection_files"]), _parse_templates(members["file_templates"])
    _check_paths([file.path for file in files], [template.path for template in templates])
    return Configuration(
        session_hash=_parse_digest(members["session_hash"], "session_hash"),
        argv=argv,
        environment=environment,
        pwd=_parse_path(members["pwd"], "pwd").decode(),
        injection_files=files,
        file_templates=templates,
        access_token_proof=_parse_digest(members["access_token_proof"], "access_token_proof")
        if "access_token_proof" in members
        else None,
        protected_files=(*_parse_volumes(members.get("volumes", [])), *_parse_main(members.get("main_file_system"))),
    )


def parse_rendered(body: bytes) -> bytes:
    """The file in the answer to `POST /v1/render`. Raises InputError, never showing content."""
    members = parse_json_object(body)
    _exactly(members, frozenset({"content"}), "the rendered file")
    return _parse_content(members["content"], "content")


def _parse_word(value: object, where: str) -> bytes | HostArgument:
    kind, content = _only_member(value, where, ("value", "host_argument"))
    if kind == "value":
        return _without_nul(_base64(content, f"{where}.value"), f"{where}.value")
    if type(content) is not int or not 1 <= content <= MAX_HOST_ARGUMENT:
        _refuse(f"{where}.host_argument", f"expected a number from 1 to {MAX_HOST_ARGUMENT}")
    return HostArgument(position=content)


def _parse_environment(value: object) -> tuple[tuple[bytes, bytes | HostVariable], ...]:
    if not isinstance(value, dict) or len(value) > MAX_VARIABLES:
        _refuse("environment", f"expected an object of at most {MAX_VARIABLES} variables")
    return tuple((_parse_name(name, "environment"), _parse_variable(name, entry)) for name, entry in value.items())


def _parse_variable(name: str, value: object) -> bytes | HostVariable:
    where = f"environment[{name!r}]"
    kind, content = _only_member(value, where, ("value", "host_variable"))
    if kind == "value":
        return _without_nul(_base64(content, f"{where}.value"), f"{where}.value")
    return HostVariable(name=_parse_name(content, f"{where}.host_variable"))


def _parse_name(value: object, where: str) -> bytes:
    name = _without_nul(_text(value, where), where)
    if not name or b"=" in name:
        _refuse(where, "the name of a variable is empty or holds `=`")
    return name


def _parse_files(value: object) -> tuple[InjectionFile, ...]:
    files = tuple(
        _parse_file(entry, f"injection_files[{index}]")
        for index, entry in enumerate(_list(value, "injection_files", MAX_FILES))
    )
    require_room(sum(len(file.content) for file in files))
    return files


def _parse_templates(value: object) -> tuple[FileTemplate, ...]:
    return tuple(
        _parse_template(entry, f"file_templates[{index}]")
        for index, entry in enumerate(_list(value, "file_templates", MAX_FILES))
    )


def _parse_volumes(value: object) -> tuple[str, ...]:
    return tuple(
        _parse_volume(entry, f"volumes[{index}]") for index, entry in enumerate(_list(value, "volumes", MAX_VOLUMES))
    )


def _parse_volume(value: object, where: str) -> str:
    if not isinstance(value, dict):
        _refuse(where, "expected an object")
    _exactly(value, _VOLUME_MEMBERS, where)
    name, path = _text(value["name"], f"{where}.name"), _parse_path(value["path"], f"{where}.path")
    return f"volume {name.decode()!r} at {path.decode()!r}"


def _parse_main(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        _refuse("main_file_system", "expected an object")
    _exactly(value, _MAIN_MEMBERS, "main_file_system")
    return (f"main file system {_parse_path(value['path'], 'main_file_system.path').decode()!r}",)


def _check_paths(files: list[str], templates: list[str]) -> None:
    seen: set[str] = set()
    for name, paths in (("injection_files", files), ("file_templates", templates)):
        for index, path in enumerate(paths):
            if path in seen:
                _refuse(f"{name}[{index}].path", f"{path!r} is there twice")
            seen.add(path)


def require_room(size: int) -> None:
    """Check the size in bytes of all injection files together. Raises InputError."""
    if size > MAX_FILES_BYTES:
        _refuse("injection_files", f"{size} bytes together, at most {MAX_FILES_BYTES}")


def _parse_file(value: object, where: str) -> InjectionFile:
    if not isinstance(value, dict):
        _refuse(where, "expected an object")
    _exactly(value, _FILE_MEMBERS, where)
    return InjectionFile(
        path=_parse_file_path(value["path"], f"{where}.path"),
        permission=_parse_permission(value["permission"], f"{where}.permission"),
        content=_parse_content(value["content"], f"{where}.content"),
    )


def _parse_template(value: object, where: str) -> FileTemplate:
    if not isinstance(value, dict):
        _refuse(where, "expected an object")
    _exactly(value, _TEMPLATE_MEMBERS, where)
    return FileTemplate(
        path=_parse_file_path(value["path"], f"{where}.path"),
        permission=_parse_permission(value["permission"], f"{where}.permission"),
    )


def _parse_permission(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value <= 0o777:
        _refuse(where, "expected a number from 0 to 511 (0o777)")
    return value


def _parse_content(value: object, where: str) -> bytes:
    content = _base64(value, where)
    if len(content) > MAX_FILE_BYTES:
        _refuse(where, f"{len(content)} bytes, at most {MAX_FILE_BYTES}")
    return content


def _parse_file_path(value: object, where: str) -> str:
    path = _parse_path(value, where)
    if any(part in (b"", b".", b"..") for part in path.split(b"/")[1:]):
        _refuse(where, f"{path.decode()!r} has empty, `.` or `..` parts, or names a directory")
    return path.decode()


def _parse_path(value: object, where: str) -> bytes:
    path = _without_nul(_text(value, where), where)
    if len(path) > MAX_PATH_BYTES:
        _refuse(where, f"a path of {len(path)} bytes, at most {MAX_PATH_BYTES}")
    if not path.startswith(b"/"):
        _refuse(where, f"{path.decode()!r} is not an absolute path")
    return path


def _parse_digest(value: object, where: str) -> bytes:
    text = _text(value, where)
    if len(text) != 64 or any(digit not in b"0123456789abcdef" for digit in text):
        _refuse(where, "expected 64 lower-case hex digits")
    return bytes.fromhex(text.decode())


def _text(value: object, where: str) -> bytes:
    """UTF-8 of a JSON string; a lone surrogate has none."""
    if not isinstance(value, str):
        _refuse(where, "expected text")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(where, "text with half a character (a lone surrogate)")


def _base64(value: object, where: str) -> bytes:
    try:
        return binascii.a2b_base64(_text(value, where), strict_mode=True)
    except binascii.Error:
        _refuse(where, "not base64")


def _without_nul(value: bytes, where: str) -> bytes:
    if b"\0" in value:
        _refuse(where, "holds a NUL byte, which no argument, variable or path can")
    return value


def _list(value: object, where: str, most: int) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        _refuse(where, f"expected a list of at most {most}")
    return value


def _only_member(value: object, where: str, kinds: tuple[str, str]) -> tuple[str, object]:
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in kinds:
        _refuse(where, f"expected an object with one member, {kinds[0]} or {kinds[1]}")
    kind, content = next(iter(value.items()))
    return str(kind), content


def _exactly(members: dict[str, object], names: frozenset[str], where: str) -> None:
    missing, unknown = sorted(names - set(members)), sorted(set(members) - names)
    if missing:
        _refuse(where, f"lacks {', '.join(missing)}")
    if unknown:
        _refuse(where, f"has the unknown member {unknown[0]!r}; is this launcher older than the CAS?")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated member")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _refuse(where: str, why: str) -> NoReturn:
    raise InputError(f"the CAS's answer, {where}: {why}")
