"""The host's environment, as this process was given it."""

from __future__ import annotations

import os

_INITIAL_ENVIRONMENT = "/proc/self/environ"


def host_environment() -> dict[bytes, bytes]:
    """The variables that the kernel handed to this process, the first of equal names.

    Not `os.environb`: in the C locale Python adds LC_CTYPE to its own environment at start, and a program that asks
    for the host's variables would see one that its host never set. Falls back to it where /proc cannot be read.
    """
    try:
        with open(_INITIAL_ENVIRONMENT, "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    variables: dict[bytes, bytes] = {}
    for entry in entries:
        name, equals, value = entry.partition(b"=")
        if name and equals:
            variables.setdefault(name, value)
    return variables
