"""stdout, which may be a full disk, closed, or a pipe whose reader has gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from ostiary.errors import OutsideError


def write_out(pieces: Iterable[bytes]) -> None:
    """Write all pieces to stdout, one after the other as they come.

    Raises OutsideError: stdout takes no more; BrokenPipeError: who read it has gone. After both nothing that was left
    over is tried again at exit.
    """
    if sys.stdout is None:
        raise OutsideError("stdout is closed, so that nothing can be written there")
    try:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _give_up()
        raise
    except OSError as error:
        _give_up()
        raise OutsideError(f"stdout cannot be written: {error.strerror}") from error


def _give_up() -> None:
    """Whatever is still on its way to stdout goes nowhere: at exit it would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
