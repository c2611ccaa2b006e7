"""The attester's end of the quoting daemon's protocol; the other end is tested in platform."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ostiary.attester import Evidence, Program, SoftwareAttester
from ostiary.errors import ConfigurationError, OutsideError

REPORT_DATA = bytes(range(64))


@contextmanager
def _answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A peer that reads one line, sends `answer` and closes; yields the lines that it read."""
    lines: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as reader:
                lines.append(reader.readline())
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield lines
        thread.join()


def _attest(path: Path, program: Program | None = None) -> Evidence:
    return SoftwareAttester(str(path)).attest(REPORT_DATA, program)


def test_request_and_answer_have_the_documented_form(tmp_path: Path) -> None:
    program = Program(executable="/bin/a", interpreter=None, files=("/b", "/c"))
    with _answering(tmp_path / "s", b'{"evidence": "cXVvdGU=", "endorsements": "e30="}\n') as lines:
        made = _attest(tmp_path / "s", program)
    assert made == Evidence(tee="sgx", evidence=b"quote", endorsements=b"{}")
    assert json.loads(lines[0]) == {
        "report_data": REPORT_DATA.hex(),
        "program": {"executable": "/bin/a", "interpreter": None, "files": ["/b", "/c"]},
    }


def test_without_daemon_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=r"no quoting daemon answers at .*: No such file or directory; start one wi"):
        _attest(tmp_path / "s")
    (tmp_path / "file").touch()
    with pytest.raises(OutsideError, match=r"Connection refused; start one with `ostiary platform serve`"):
        _attest(tmp_path / "file")
    with pytest.raises(OutsideError, match="AF_UNIX path too long"):
        _attest(tmp_path / ("x" * 200))


def test_refusal_of_the_daemon_is_handed_on(tmp_path: Path) -> None:
    with (
        _answering(tmp_path / "s", b'{"error": ["what failed", "cause"]}\n'),
        pytest.raises(ConfigurationError) as refusal,
    ):
        _attest(tmp_path / "s")
    assert refusal.value.chain == ("the quoting daemon refuses to measure this program", "what failed", "cause")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 100_000,
        b'{"evidence": "cXVvdGU="}\n',
        b'{"evidence": "cXVvdGU=", "endorsements": 1}\n',
        b'{"evidence": "cXVvdGU=", "endorsements": "e"}\n',
        b'{"evidence": "\xc3\xa9", "endorsements": ""}\n',
    ],
)
def test_answer_of_another_form_is_refused(tmp_path: Path, answer: bytes) -> None:
    with (
        _answering(tmp_path / "s", answer),
        pytest.raises(OutsideError, match="is no quoting daemon of this version; start one with"),
    ):
        _attest(tmp_path / "s")


def test_error_that_is_no_list_is_shown_as_it_is(tmp_path: Path) -> None:
    with _answering(tmp_path / "s", b'{"error": "plain"}\n'), pytest.raises(ConfigurationError, match="program: plain"):
        _attest(tmp_path / "s")


def test_more_file_names_than_the_protocol_carries_are_refused(tmp_path: Path) -> None:
    program = Program(executable="/bin/a", interpreter=None, files=tuple(f"/{'x' * 100}{n}" for n in range(1000)))
    with pytest.raises(ConfigurationError, match="expected at most 65536; name fewer files"):
        _attest(tmp_path / "s", program)
