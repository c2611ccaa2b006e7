"""`ostiary` commands as processes of their own, ended by their pid when a test is done."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TIMEOUT_SECONDS = 60

OSTIARY = (sys.executable, "-m", "ostiary")


def start(*arguments: str, log: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """Start a serving command with --json; the process, and what it printed when it was ready."""
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [*OSTIARY, *arguments, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(TIMEOUT_SECONDS)
        raise AssertionError(f"{arguments} did not get ready: {log.read_text()}")
    return process, json.loads(line)


def stop(process: subprocess.Popen[bytes]) -> int:
    """End a process in order; its exit status."""
    process.terminate()
    try:
        return process.wait(TIMEOUT_SECONDS)
    finally:
        if process.stdout is not None:
            process.stdout.close()


def start_service(data: Path, *options: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """`ostiary serve` on free ports of 127.0.0.1."""
    listen = ("--client", "127.0.0.1:0", "--enclave", "127.0.0.1:0")
    return start("serve", "--data", str(data), *listen, *options, log=data.with_suffix(".log"))


@contextlib.contextmanager
def serve_process(data: Path, *options: str) -> Iterator[dict[str, str]]:
    """A service that runs until the block ends, and ends in order."""
    process, served = start_service(data, *options)
    try:
        yield served
    finally:
        status = stop(process)
    assert status == 0


@contextlib.contextmanager
def platform_process(directory: Path) -> Iterator[dict[str, str]]:
    """A quoting daemon that runs until the block ends, and ends in order."""
    process, ready = start("platform", "serve", "--dir", str(directory), log=directory.with_suffix(".log"))
    try:
        yield ready
    finally:
        status = stop(process)
    assert status == 0


def ostiary(*arguments: str, expect: int = 0, stdin: bytes = b"", env: dict[str, str] | None = None) -> str:
    """Run a command to its end; stdout. It must end with status `expect`; for a refusal, stderr is what it said."""
    done = subprocess.run(
        [*OSTIARY, *arguments], input=stdin, capture_output=True, check=False, timeout=TIMEOUT_SECONDS, env=env
    )
    assert done.returncode == expect, (arguments, done.returncode, done.stdout, done.stderr)
    return (done.stdout if expect == 0 else done.stderr).decode()
