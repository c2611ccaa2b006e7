"""Injection files without content: their templates are files of this machine, and the CAS puts the secrets in."""

from __future__ import annotations

import binascii
import errno
import json
import os
import stat

from ostiary.errors import ConfigurationError
from ostiary.launcher.attest import require_success
from ostiary.launcher.configuration import (
    MAX_FILE_BYTES,
    Configuration,
    FileTemplate,
    InjectionFile,
    parse_rendered,
    require_room,
)
from ostiary.launcher.connection import Connection


def render_templates(connection: Connection, service: str, configuration: Configuration) -> tuple[InjectionFile, ...]:
    """All injection files of a configuration that came over this connection, those made of templates included.

    Does not guarantee anything about the templates: they are what this process sees at their paths, which the host
    may have written.
    Raises ConfigurationError for a template that cannot be read, DeniedError if the CAS refuses one, and InputError
    and OutsideError as `attest`. Source: docs/enclave-protocol.md section 4.
    """
    files = list(configuration.injection_files)
    for template in configuration.file_templates:
        files.append(_render(connection, service, template))
        require_room(sum(len(file.content) for file in files))
    return tuple(files)


def _render(connection: Connection, service: str, template: FileTemplate) -> InjectionFile:
    content = binascii.b2a_base64(_read(template.path), newline=False).decode("ascii")
    answer = connection.post("/v1/render", json.dumps({"path": template.path, "content": content}).encode())
    require_success(answer, service)
    return InjectionFile(path=template.path, permission=template.permission, content=parse_rendered(answer.body))


def _read(path: str) -> bytes:
    """A regular file of at most MAX_FILE_BYTES. Raises ConfigurationError."""
    try:
        content = _read_beginning(path, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"injection file {path}: the session gives it no content, so it is a template here, and cannot be read",
            error.strerror or str(error),
            "put the template there, or give the file content in the session",
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError(f"injection file {path}: a template may have {MAX_FILE_BYTES} bytes, this has more")
    return content


def _read_beginning(path: str, most: int) -> bytes:
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as stream:
            return stream.read(most)
    finally:
        os.close(fd)
