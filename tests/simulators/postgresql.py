"""A PostgreSQL server of its own for tests and benchmarks: on loopback, in a temporary directory, with fsync.

The server refuses to run as root, so as root it runs as `nobody`; it is stopped by its process id.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

START_SECONDS = 60
USER = "cas"
UNPRIVILEGED = "nobody"
INHERITED = ("PATH", "LD_PRELOAD", "FLUSH_MICROSECONDS")
"""Of the environment; the last two are those of bench/slow_flush.c."""


def binaries() -> Path:
    """The directory of the newest server that Debian's packages installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise FileNotFoundError("no PostgreSQL server in /usr/lib/postgresql: run scripts/setup test")
    return found[-1].parent


@dataclass(kw_only=True)
class PostgresqlServer:
    """A running server. conninfo: of the superuser, with its password."""

    directory: Path
    port: int
    password: str = field(repr=False)
    process: subprocess.Popen[bytes]

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres password={self.password}"

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Statements of an administrator; the rows of the first, if it has any."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def drop(self, schema: str) -> None:
        """Forget a test's schema, so that the server need not flush its files at every end."""
        self.execute(
            f"SET lock_timeout = '10s'; SET client_min_messages = error; DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"
        )

    def restart(self, *, fsync: bool = True) -> None:
        """End all connections at once, as a crash does, and come back on the same port."""
        self._signal(signal.SIGQUIT)
        self.process = _start(self.directory, self.port, fsync=fsync)

    def serve_tls(self, certificate: Path, key: Path) -> None:
        """Offer TLS with these, until `ssl` is reset."""
        for source, name, mode in ((certificate, "server.crt", 0o644), (key, "server.key", 0o600)):
            target = self.directory / "data" / name
            target.write_bytes(source.read_bytes())
            target.chmod(mode)
            unprivileged(target)
        self.execute("ALTER SYSTEM SET ssl = on")
        self.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        # setpriv becomes the server, so the process is the postmaster itself.
        self.process.send_signal(number)
        self.process.wait(START_SECONDS)


@contextlib.contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A new, empty server until the block ends. Connections by TCP need the password; TLS is offered."""
    directory = Path(tempfile.mkdtemp(prefix="ostiary-postgresql-"))
    try:
        password = secrets.token_hex(16)
        _make(directory, password)
        port = _free_port()
        server = PostgresqlServer(directory=directory, port=port, password=password, process=_start(directory, port))
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


def unprivileged(path: Path) -> list[str]:
    """What to put before a command of PostgreSQL, so that it ends with us and is not root's.

    Where we are root, `path` is given to the user that the command runs as.
    """
    command = ["setpriv", "--pdeathsig=INT"]
    if os.geteuid() != 0:
        return command
    user = pwd.getpwnam(UNPRIVILEGED)
    os.chown(path, user.pw_uid, user.pw_gid)
    return [*command, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _make(directory: Path, password: str) -> None:
    prefix = unprivileged(directory)
    file = directory / "password"
    file.write_text(password)
    file.chmod(0o644)
    subprocess.run(
        [
            *prefix,
            str(binaries() / "initdb"),
            f"--pgdata={directory / 'data'}",
            f"--username={USER}",
            f"--pwfile={file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
        ],
        check=True,
        capture_output=True,
        cwd=directory,
        timeout=START_SECONDS,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    file.unlink()


def _start(directory: Path, port: int, *, fsync: bool = True) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(directory),
        "fsync": "on" if fsync else "off",
        "logging_collector": "off",
    }
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [
                *unprivileged(directory),
                str(binaries() / "postgres"),
                "-D",
                str(directory / "data"),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={name: os.environ[name] for name in INHERITED if name in os.environ} | {"LC_ALL": "C"},
        )
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(
        [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], check=False
    ).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not start: {(directory / 'log').read_text()}")
        time.sleep(0.05)
    return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
