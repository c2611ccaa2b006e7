"""Protected files as a runtime keeps them, reduced to what the protocol is about: states, their tags, and the order.

`Disk` is what the host has: it can copy it, put an older copy back, empty it. `mount` judges it by what was released,
as docs/enclave-protocol.md section 5 has it; nothing is encrypted here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from tests.simulators.program import AttestingProgram
from tests.simulators.service import Answer


class MountRefusedError(Exception):
    """The runtime would not start the program on these files."""


class WriteFailedError(Exception):
    """The program's write failed, as its change was not recorded. answer: of the service."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass
class Disk:
    """files: name to content; None: an empty directory, without even a protection file."""

    files: dict[str, str] | None = None

    def copy(self) -> Disk:
        """What a host could put back later."""
        return Disk(files=None if self.files is None else dict(self.files))

    def put_back(self, copy: Disk) -> None:
        """As a host does it, unseen."""
        self.files = copy.copy().files


def tag_of(key: str, files: dict[str, str]) -> str:
    """The tag of one exact state; it depends on the key (64 hex)."""
    return hashlib.blake2b(
        json.dumps(files, sort_keys=True).encode(), digest_size=16, key=bytes.fromhex(key)
    ).hexdigest()


@dataclass
class Mounted:
    """A protected file system in a running program. tag: the last state that the service knows of, None: none."""

    program: AttestingProgram
    target: str
    key: str = field(repr=False)
    disk: Disk
    tag: str | None

    def write(self, name: str, content: str) -> Answer:
        """Change a file and report it. Raises WriteFailedError; the disk has the change all the same."""
        self.disk.files = {**(self.disk.files or {}), name: content}
        new = tag_of(self.key, self.disk.files)
        answer = self.program.report(self.target, self.tag, new)
        if answer.status != 200:
            raise WriteFailedError(answer)
        self.tag = new
        return answer


def mount_volume(program: AttestingProgram, released: dict[str, Any], disk: Disk) -> Mounted:
    """A volume of a configuration. Raises MountRefusedError, WriteFailedError (of the initialisation)."""
    mounted = Mounted(
        program=program, target=f"volume:{released['name']}", key=released["key"], disk=disk, tag=released["tag"]
    )
    if released["initialise"]:
        if disk.files is not None:
            raise MountRefusedError("the directory is not empty")
        mounted.write("", "")
        return mounted
    if disk.files is None:
        raise MountRefusedError("there is no volume")
    found = tag_of(released["key"], disk.files)
    if released["tag"] not in (None, found):
        raise MountRefusedError(f"the volume is in state {found}, expected {released['tag']}")
    mounted.tag = found
    return mounted


def mount_main(program: AttestingProgram, released: dict[str, Any], disk: Disk) -> Mounted:
    """The main file system of a configuration. Raises MountRefusedError."""
    found = tag_of(released["key"], disk.files or {})
    if released["tags"] is not None and found not in released["tags"]:
        raise MountRefusedError(f"the main file system is in state {found}, expected one of {released['tags']}")
    return Mounted(program=program, target="main", key=released["key"], disk=disk, tag=found)
