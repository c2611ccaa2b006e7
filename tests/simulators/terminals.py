"""A person at a terminal: a program that asks at /dev/tty is answered there, whatever its stdin and stdout are."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HANG_SECONDS = 120
END = "\x04"
"""What ends the input of a terminal, Ctrl-D."""


@dataclass(frozen=True, kw_only=True)
class Talk:
    """screen: all that the terminal showed. out: stdout, which led elsewhere."""

    screen: str
    out: str
    code: int

    def order(self, *texts: str) -> list[int]:
        """Where these stand on the screen."""
        return [self.screen.index(text) for text in texts]


def talk(words: Sequence[str], directory: Path, answers: Sequence[tuple[str, str]]) -> Talk:
    """Run `ostiary WORDS`; once the screen shows the first text of an answer, its second is typed, one by one."""
    person, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, "-m", "ostiary", *words],
            cwd=directory, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)
        screen = _converse(person, process, list(answers))
        assert process.stdout is not None
        with process.stdout:
            out = process.stdout.read().decode()
        return Talk(screen=screen, out=out, code=process.wait(HANG_SECONDS))
    finally:
        os.close(person)


def _converse(person: int, process: subprocess.Popen[bytes], answers: list[tuple[str, str]]) -> str:
    screen, seen, end = "", 0, time.monotonic() + HANG_SECONDS
    while True:
        assert time.monotonic() < end, f"the program hangs: {screen}"
        ready, _, _ = select.select([person], [], [], 1)
        if not ready:
            if process.poll() is not None:
                return screen
            continue
        try:
            data = os.read(person, 65536)
        except OSError:  # Linux says so when nobody has the terminal open any more
            return screen
        screen += data.decode(errors="replace").replace("\r\n", "\n")
        if answers and answers[0][0] in screen[seen:]:
            seen = len(screen)
            os.write(person, f"{answers.pop(0)[1]}\n".encode())
