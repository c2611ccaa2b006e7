"""The signed lists of a rules file, read anew for each proposal, so that a newer one counts from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from ostiary.checker.listed import MAX_LIST_BYTES, MAX_SIGNATURE_FILE_BYTES, verify_list
from ostiary.checker.rules import ListSource, Rules
from ostiary.errors import InputError

SIGNATURE_SUFFIX = ".sig"


def read_lists(
    rules: Rules, directory: Path, *, now: Callable[[], datetime]
) -> Mapping[str, tuple[str, ...] | InputError]:
    """Each list by name: its measurements, or why it does not hold. directory: what relative files are beside."""
    return {source.name: _read(source, directory, now()) for source in rules.lists}


def _read(source: ListSource, directory: Path, now: datetime) -> tuple[str, ...] | InputError:
    try:
        data = _bytes(source, directory / source.file, MAX_LIST_BYTES)
        signature = _bytes(source, directory / (source.file + SIGNATURE_SUFFIX), MAX_SIGNATURE_FILE_BYTES)
        return verify_list(source, data, signature, now=now)
    except InputError as error:
        return error


def _bytes(source: ListSource, path: Path, most: int) -> bytes:
    """One byte more than `most` of a longer file, which is then refused."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"list {source.name} ({source.file}): {path.name} cannot be read: {reason}") from None
