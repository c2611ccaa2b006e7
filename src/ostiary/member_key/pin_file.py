"""A PIN or passphrase in a file, for programs that have nobody to ask."""

from __future__ import annotations

from pathlib import Path

from ostiary.errors import ConfigurationError

MAX_PIN_FILE_BYTES = 4096


def read_pin(path: Path) -> str:
    """The first line of the file. Raises ConfigurationError, which never says what is in it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PIN_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"PIN file {path}: {error.strerror}") from error
    if len(content) > MAX_PIN_FILE_BYTES:
        raise ConfigurationError(f"PIN file {path} has more than {MAX_PIN_FILE_BYTES} bytes")
    try:
        line = content.decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"PIN file {path} is not UTF-8") from None
    if not line:
        raise ConfigurationError(f"PIN file {path}: its first line is empty")
    return line
