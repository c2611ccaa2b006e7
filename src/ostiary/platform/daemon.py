"""The quoting daemon of the software platform: measures whoever asks over its unix socket, and signs a quote.

Protocol: one request and one answer a connection, each a JSON object in one line, ended by a newline.

Request, at most 64 KiB, within REQUEST_SECONDS::

    {"report_data": "<128 hex>",
     "program": null | {"executable": PATH, "interpreter": PATH | null, "files": [PATH, …]}}

PATH is absolute, as the asking process sees it. Answer::

    {"evidence": "<base64: DCAP quote>", "endorsements": "<base64: collateral, JSON text>"}    or
    {"error": ["what failed", "cause", …]}

Every process on the machine may ask: a quote says only what the asking process is. Bad input gets an `error` answer;
nothing that a peer sends ends the daemon.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ostiary.attester import Evidence, Program
from ostiary.attester.binding import REPORT_DATA_BYTES
from ostiary.attester.software import MAX_REQUEST_BYTES
from ostiary.errors import ConfigurationError, InputError, OstiaryError
from ostiary.platform.caller import measure_caller, peer_pid
from ostiary.platform.directory import Platform, init_platform

REQUEST_SECONDS = 10.0
MAX_CONNECTIONS = 64
MAX_SOCKET_PATH_BYTES = 107

_MEMBERS = {"report_data", "program"}
_PROGRAM_MEMBERS = {"executable", "interpreter", "files"}

log = logging.getLogger("ostiary.platform")


@dataclass(frozen=True, kw_only=True)
class Request:
    """`report_data`: 64 bytes. `program` None: measure the launcher alone."""

    report_data: bytes
    program: Program | None


def parse_request(line: bytes) -> Request:
    """Read a request line of the protocol above. Raises InputError, and nothing else for any bytes."""
    try:
        members = json.loads(line)
        if set(members) != _MEMBERS:
            raise _malformed(f"members {sorted(_MEMBERS)}")
        report_data = bytes.fromhex(members["report_data"])
    except (ValueError, TypeError, RecursionError) as error:
        raise _malformed("a JSON object with hex report_data") from error
    if len(report_data) != REPORT_DATA_BYTES:
        raise _malformed(f"{REPORT_DATA_BYTES} bytes of report_data")
    return Request(report_data=report_data, program=_parse_program(members["program"]))


def _parse_program(members: object) -> Program | None:
    if members is None:
        return None
    if not isinstance(members, dict) or set(members) != _PROGRAM_MEMBERS:
        raise _malformed(f"a program with members {sorted(_PROGRAM_MEMBERS)}")
    files = members["files"]
    if not isinstance(files, list):
        raise _malformed("a list of files")
    interpreter = members["interpreter"]
    return Program(
        executable=_path(members["executable"]),
        interpreter=None if interpreter is None else _path(interpreter),
        files=tuple(_path(file) for file in files),
    )


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise _malformed("absolute paths")
    return value


def _malformed(expected: str) -> InputError:
    return InputError(f"the request to the quoting daemon is malformed: expected {expected}")


class QuotingDaemon:
    """Answers requests for one platform. The first quote after `renew_at` renews the endorsements."""

    def __init__(self, platform: Platform, *, clock: Callable[[], datetime]) -> None:
        self.platform = platform
        self._clock = clock
        self._endorsed = platform.endorse(clock())
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from request to answer; the streams' limit bounds the request."""
        try:
            async with self._places:
                answer = await self._answer(reader, writer)
                writer.write(json.dumps(answer).encode() + b"\n")
                await asyncio.wait_for(writer.drain(), REQUEST_SECONDS)
        except (OSError, TimeoutError) as error:
            log.info("a caller went away: %s", error)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, object]:
        try:
            request = parse_request(await self._read(reader))
            connection = writer.get_extra_info("socket").fileno()
            evidence = await asyncio.to_thread(self._attest, connection, request)
        except OstiaryError as error:
            log.info("no quote: %s", error)
            return {"error": list(error.chain)}
        return {
            "evidence": b64encode(evidence.evidence).decode(),
            "endorsements": b64encode(evidence.endorsements).decode(),
        }

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await asyncio.wait_for(reader.readuntil(b"\n"), REQUEST_SECONDS)
        except asyncio.LimitOverrunError as error:
            raise _malformed(f"at most {MAX_REQUEST_BYTES} bytes") from error
        except asyncio.IncompleteReadError as error:
            raise _malformed("one line, ended by a newline") from error
        except TimeoutError as error:
            raise _malformed(f"a line within {REQUEST_SECONDS:.0f} s") from error

    def _attest(self, connection: int, request: Request) -> Evidence:
        pid = peer_pid(connection)
        measurement = measure_caller(pid, request.program)
        now = self._clock()
        if now >= self._endorsed.renew_at:
            self._endorsed = self.platform.endorse(now)
        endorsed = self._endorsed
        quote = endorsed.quoter.quote(self.platform.enclave(measurement.mr_enclave), request.report_data)
        log.info("quoted process %d: mrenclave %s", pid, measurement.mr_enclave.hex())
        return Evidence(tee="sgx", evidence=quote, endorsements=endorsed.collateral)


@asynccontextmanager
async def serve_platform(
    directory: Path, socket_path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncIterator[Platform]:
    """Run the quoting daemon of `directory` at `socket_path` inside this event loop, as long as the context lasts.

    The socket is removed at the end; connections that are being answered are cut off.
    Raises ConfigurationError: see `init_platform`; or another daemon listens at the socket, the path is too long, taken
    by another file, or cannot be made.
    """
    daemon = QuotingDaemon(init_platform(directory, clock()), clock=clock)
    listening = _listen(socket_path)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(daemon.converse(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_unix_server(connected, sock=listening, limit=MAX_REQUEST_BYTES)
    try:
        yield daemon.platform
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        with suppress(FileNotFoundError):
            os.unlink(socket_path)


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigurationError(f"socket path {str(path)!r} is over {MAX_SOCKET_PATH_BYTES} bytes; name a shorter one")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _remove_stale(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        listening.bind(os.fspath(path))
        os.chmod(path, 0o666)  # noqa: S103 - every process may ask, as the module docstring says
        listening.listen(MAX_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise ConfigurationError(f"cannot listen at {str(path)!r}: {error.strerror}; name another --socket") from error
    except ConfigurationError:
        listening.close()
        raise
    return listening


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens at. Raises ConfigurationError if somebody does, or it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{str(path)!r} is there already and no socket; name another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigurationError(f"another quoting daemon listens at {str(path)!r}; stop it or name another --socket")
