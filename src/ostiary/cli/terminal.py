"""What a command of the client side sees of the process around it: its environment, stderr, and the CLI's file."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ostiary.cli.configuration import DEFAULT_PATH, ENVIRONMENT_VARIABLE, Configuration


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """environment: of the process. configuration: the CLI's file."""

    environment: Mapping[str, str] = field(repr=False)
    configuration: Configuration

    def warn(self, sentence: str, *causes: str) -> None:
        """A warning for the person at the terminal."""
        warn(sentence, *causes)


def open_terminal(config: str | None) -> Terminal:
    """The terminal of this process; `config` names the CLI's file, else the environment does, else it is at home."""
    name = config or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH
    # The file is read more than once; what is wrong with it is told once.
    configuration = Configuration(path=Path(name).expanduser(), warn=functools.cache(warn))
    return Terminal(environment=os.environ, configuration=configuration)


def warn(sentence: str, *causes: str) -> None:
    """Print `Warning: …`, then one `  Caused by: …` a cause, to stderr."""
    print(f"Warning: {sentence}", *(f"  Caused by: {cause}" for cause in causes), sep="\n", file=sys.stderr)
