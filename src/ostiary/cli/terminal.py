"""What a command of the client side sees of the process around it: its environment, stderr, and the CLI's file."""

from __future__ import annotations

import contextlib
import functools
import getpass
import io
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from ostiary.cli.configuration import DEFAULT_PATH, ENVIRONMENT_VARIABLE, Configuration
from ostiary.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """environment: of the process. configuration: the CLI's file."""

    environment: Mapping[str, str] = field(repr=False)
    configuration: Configuration

    def warn(self, sentence: str, *causes: str) -> None:
        """A warning for the person at the terminal."""
        warn(sentence, *causes)

    def confirm(self, question: str, word: str = "yes") -> None:
        """Ask a person, who must answer with that very word. Raises ConfigurationError: nobody is there, or no."""
        with _person("--yes confirms without asking") as stream:
            print(f"{question} Type {word} to go on: ", end="", file=stream, flush=True)
            answer = stream.readline().strip()
        if answer != word:
            raise ConfigurationError("not confirmed, so nothing was done")

    def secret(self, what: str) -> str:
        """What a person types without it being shown. Raises ConfigurationError: nobody is there."""
        # It asks at the same terminal, but would fall back to stdin and show what is typed.
        with _person("--pin-file FILE names a file that has it"):
            try:
                return getpass.getpass(f"{what}: ")
            except EOFError:
                return ""


def printable(text: str) -> str:
    """What other people and machines say, for a terminal: nothing of it can steer one, or turn its writing around."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextlib.contextmanager
def _person(otherwise: str) -> Iterator[TextIO]:
    """The terminal that this process belongs to, wherever stdin and stdout lead."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise ConfigurationError("there is no terminal to ask anybody at", otherwise) from None
    with open(descriptor, "rb+", buffering=0) as raw, io.TextIOWrapper(raw) as stream:
        yield stream


def open_terminal(config: str | None) -> Terminal:
    """The terminal of this process; `config` names the CLI's file, else the environment does, else it is at home."""
    name = config or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH
    # The file is read more than once; what is wrong with it is told once.
    configuration = Configuration(path=Path(name).expanduser(), warn=functools.cache(warn))
    return Terminal(environment=os.environ, configuration=configuration)


def warn(sentence: str, *causes: str) -> None:
    """Print `Warning: …`, then one `  Caused by: …` a cause, to stderr."""
    print(f"Warning: {sentence}", *(f"  Caused by: {cause}" for cause in causes), sep="\n", file=sys.stderr)
