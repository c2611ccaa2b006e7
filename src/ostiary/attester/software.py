"""Asks the software platform's quoting daemon on this machine for evidence. Standard library only."""

from __future__ import annotations

import json
import os
import socket
from binascii import a2b_base64

from ostiary.attester.evidence import Evidence
from ostiary.attester.program import Program
from ostiary.errors import ConfigurationError, OutsideError

TIMEOUT_SECONDS = 30.0
MAX_REQUEST_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 1024 * 1024

_START_ONE = "start one with `ostiary platform serve`, or name its socket with --platform-socket"


class SoftwareAttester:
    """The quoting daemon that listens at `socket_path`. Its evidence protects nothing; it is for development."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    def unavailable(self) -> str | None:
        """Why no quote can be had, in one line; None if one can be asked for. Does not connect."""
        if not os.path.exists(self._socket_path):
            return f"there is no {self._socket_path}; {_START_ONE}"
        return None

    def attest(self, report_data: bytes, program: Program | None) -> Evidence:
        """Evidence over 64 bytes of `report_data`. The daemon measures this very process and the files of `program`.

        program: None covers the launcher alone. The protocol is described in `platform.daemon`.
        Raises OutsideError: nobody answers at the socket, or not in time, or not in the form expected;
        ConfigurationError: too many files, or the daemon refuses to measure this process or these files.
        """
        members = {"report_data": report_data.hex(), "program": _members(program)}
        request = json.dumps(members).encode() + b"\n"
        if len(request) > MAX_REQUEST_BYTES:
            raise ConfigurationError(
                f"the names of the files to measure take {len(request)} bytes, expected at most {MAX_REQUEST_BYTES}; "
                "name fewer files"
            )
        answer = self._parse(self._ask(request))
        if "error" in answer:
            raise ConfigurationError("the quoting daemon refuses to measure this program", *_sentences(answer["error"]))
        return Evidence(
            tee="sgx", evidence=self._binary(answer, "evidence"), endorsements=self._binary(answer, "endorsements")
        )

    def _ask(self, request: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(TIMEOUT_SECONDS)
                connection.connect(self._socket_path)
                connection.sendall(request)
                return _read_line(connection)
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise OutsideError(f"no quoting daemon answers at {self._socket_path}: {reason}; {_START_ONE}") from error

    def _binary(self, answer: dict[str, object], name: str) -> bytes:
        text = answer.get(name)
        if not isinstance(text, str):
            raise self._not_understood()
        try:
            return a2b_base64(text)
        except ValueError as error:
            raise self._not_understood() from error

    def _parse(self, line: bytes) -> dict[str, object]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._not_understood() from error
        if not isinstance(answer, dict):
            raise self._not_understood()
        return answer

    def _not_understood(self) -> OutsideError:
        return OutsideError(f"what answers at {self._socket_path} is no quoting daemon of this version; {_START_ONE}")


def _members(program: Program | None) -> dict[str, object] | None:
    if program is None:
        return None
    return {"executable": program.executable, "interpreter": program.interpreter, "files": list(program.files)}


def _sentences(error: object) -> tuple[str, ...]:
    return tuple(str(part) for part in error) if isinstance(error, list) else (str(error),)


def _read_line(connection: socket.socket) -> bytes:
    """Up to the first newline, or as far as the daemon got before it closed."""
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_ANSWER_BYTES:
        more = connection.recv(64 * 1024)
        if not more:
            break
        line += more
    return line
