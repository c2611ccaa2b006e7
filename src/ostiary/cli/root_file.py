"""A root certificate in a file that an option names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ostiary.errors import ConfigurationError

if TYPE_CHECKING:
    from ostiary.evidence.roots import TrustedRoot

MADE_BY_PLATFORM = "name the root.pem that `ostiary platform serve` made"


def read_root(path: Path, option: str, make: Callable[[bytes], TrustedRoot], *, next_step: str) -> TrustedRoot:
    """The root that `make` finds in the file. Raises ConfigurationError, which names the option and the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}", next_step) from error
    try:
        return make(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{option} {path}: no root can be read", *error.chain, next_step) from error
