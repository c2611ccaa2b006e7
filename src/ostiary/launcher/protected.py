"""Protected files: the session can ask for them, this launcher cannot give them, and never ignores that."""

from __future__ import annotations

from ostiary.errors import ConfigurationError
from ostiary.launcher.configuration import Configuration


def require_no_protected_files(configuration: Configuration, service: str) -> None:
    """Raise ConfigurationError, naming all of them, if the program is to have volumes or a main file system.

    Without their protection, what it writes would lie open on this host's disk, and an older state would pass.
    """
    if configuration.protected_files:
        raise ConfigurationError(
            f"service {service} has files that must be protected, and this launcher cannot protect any; nothing was "
            "started",
            *configuration.protected_files,
            "start it with a runtime that can, or take them out of the session",
        )
