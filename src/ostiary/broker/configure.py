"""The configuration of one service: what its session says, with the secrets in place. Decides nothing about who may."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ostiary.broker.session_records import StoredSession
from ostiary.errors import ReleaseRefusedError
from ostiary.secret import Released, render
from ostiary.session import Template
from ostiary.session.model import HostArgument, HostVariable, Image, Service, Session

MAX_FILE_BYTES = 1024 * 1024
"""One injection file."""
MAX_FILES_BYTES = 8 * 1024 * 1024
"""All injection files of a service."""
MAX_ARGUMENTS_BYTES = 1024 * 1024
"""Arguments and environment together."""

_NETWORK_SHIELD = "SCONE_NETWORK_SHIELD"
_NO_SHIELD = (b"disabled", b"unprotected")
# What goes with a rule, and asks for nothing by itself.
_SHIELD_DETAILS = ("_PORT", "_IDENTITY", "_AUTH", "_DESTINATION", "_DESTINATION_IP", "_SERVER_DNS_NAME")
_CHANNELS = ("SCONE_PIPE", "SCONE_SOCKETPAIR")


@dataclass(frozen=True, kw_only=True)
class RenderedFile:
    """An injection file with its placeholders replaced. permission: mode bits."""

    path: str
    permission: int
    content: bytes

    def __repr__(self) -> str:
        return f"RenderedFile(path={self.path!r}, {len(self.content)} bytes)"


@dataclass(frozen=True, kw_only=True)
class FileTemplate:
    """An injection file without content: the file at `path` is its template. permission: mode bits."""

    path: str
    permission: int


@dataclass(frozen=True, kw_only=True)
class MountedVolume:
    """A volume for the program. name: in its session. path: absolute, where it is mounted. key: 32 bytes.

    tag: 16 bytes, of the only state that the runtime may mount; None: any state under the key, or, where `initialise`,
    the volume has none yet and the runtime makes it in an empty directory. files, update_policy: as in the language.
    """

    name: str
    path: str
    key: bytes = field(repr=False)
    tag: bytes | None
    initialise: bool
    files: str
    update_policy: str


@dataclass(frozen=True, kw_only=True)
class MainFileSystem:
    """The main file system of the program. path: of its protection file, absolute. key: 32 bytes.

    tags: of the states that the runtime may start with, 16 bytes each; None: any state under the key.
    """

    path: str
    key: bytes = field(repr=False)
    tags: tuple[bytes, ...] | None
    update_policy: str


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Configuration:
    """What one attested program receives. Holds secrets: never logged, no repr of its content.

    Two are equal only if they are the same object, so that whoever makes something of one can keep it as long.
    """

    session_hash: bytes
    argv: tuple[bytes | HostArgument, ...]
    environment: tuple[tuple[str, bytes | HostVariable], ...]
    pwd: str
    files: tuple[RenderedFile, ...]
    templates: tuple[FileTemplate, ...]
    volumes: tuple[MountedVolume, ...] = ()
    main_file_system: MainFileSystem | None = None

    @property
    def size_bytes(self) -> int:
        """Of arguments, environment and files together."""
        return self.arguments_bytes + sum(len(file.content) for file in self.files)

    @property
    def arguments_bytes(self) -> int:
        """Of arguments and environment, names included."""
        words = sum(len(word) for word in self.argv if isinstance(word, bytes))
        return words + sum(len(name) + len(value) for name, value in self.environment if isinstance(value, bytes))


def templates_of(session: Session, service: Service) -> Iterator[Template]:
    """All texts of a service's configuration in which secrets may stand."""
    yield from (word for word in service.command if isinstance(word, Template))
    yield from (value for _, value in service.environment if isinstance(value, Template))
    yield from (file.content for file in _image(session, service).injection_files if file.content is not None)


def _image(session: Session, service: Service) -> Image:
    return next((image for image in session.images if image.name == service.image_name), Image(name=""))


def configure(stored: StoredSession, service: Service, values: Mapping[str, Released]) -> Configuration:
    """The configuration of `service` with these values, which are those of the secrets in `templates_of` it.

    Raises ReleaseRefusedError: a placeholder that cannot be replaced, a NUL in an argument or variable, over a bound.
    """
    session = stored.parsed.session
    pwd = service.pwd or "/"
    image = _image(session, service)
    configuration = Configuration(
        session_hash=stored.parsed.hash,
        argv=tuple(
            word if isinstance(word, HostArgument) else _text(word, values, "an argument") for word in service.command
        ),
        environment=tuple(
            (name, value if isinstance(value, HostVariable) else _text(value, values, f"variable {name}"))
            for name, value in service.environment
        ),
        pwd=pwd,
        # A relative path is taken from the service's working directory.
        files=tuple(
            RenderedFile(
                path=posixpath.join(pwd, file.path), permission=file.permission, content=render(file.content, values)
            )
            for file in image.injection_files
            if file.content is not None
        ),
        templates=tuple(
            FileTemplate(path=posixpath.join(pwd, file.path), permission=file.permission)
            for file in image.injection_files
            if file.content is None
        ),
    )
    _check_sizes(configuration)
    _check_runtime_settings(configuration)
    return configuration


def _text(template: Template, values: Mapping[str, Released], where: str) -> bytes:
    rendered = render(template, values)
    if b"\0" in rendered:
        raise ReleaseRefusedError(
            f"{where} would contain a NUL byte, which no program can receive",
            "use a text format of the binary secret, such as `:hex` or `:base64`",
        )
    return rendered


def _check_runtime_settings(configuration: Configuration) -> None:
    """Refuse variables by which a session asks the runtime for a protection that this one does not give.

    Source: session language, "Network shield and other runtime variables". Never to ignore one is the rule.
    """
    for name, value in configuration.environment:
        protects = (
            name.startswith(_NETWORK_SHIELD) and value not in _NO_SHIELD and not name.endswith(_SHIELD_DETAILS)
        ) or (name in _CHANNELS and value != b"allow")
        if protects and isinstance(value, bytes):
            raise ReleaseRefusedError(
                f"variable {name} asks for a protection that this runtime does not give",
                "take it out of the service's environment, or start the service where it is enforced",
            )


def _check_sizes(configuration: Configuration) -> None:
    for file in configuration.files:
        _bound(len(file.content), MAX_FILE_BYTES, f"injection file {file.path}")
    _bound(sum(len(file.content) for file in configuration.files), MAX_FILES_BYTES, "all injection files together")
    _bound(configuration.arguments_bytes, MAX_ARGUMENTS_BYTES, "arguments and environment together")


def _bound(size: int, most: int, what: str) -> None:
    if size > most:
        raise ReleaseRefusedError(f"{what}: {size} bytes, at most {most} are allowed")
