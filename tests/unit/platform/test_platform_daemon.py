"""The quoting daemon with real callers: it measures what they are, and nothing they send ends it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop
from tests.simulators.launcher import Answer, TestLauncher, ask, make_launcher, real_python

from ostiary.appraisal import appraise
from ostiary.attester import resolve_program
from ostiary.errors import AppraisalRefusedError, ConfigurationError, InputError
from ostiary.evidence import Claims, software_root
from ostiary.evidence.sgx.verify import verify
from ostiary.platform import Platform, measure_program, serve_platform
from ostiary.platform import daemon as daemon_module
from ostiary.platform.daemon import parse_request
from ostiary.session.model import SecurityAttestation, Service, Variant

REPORT_DATA = bytes(range(64))
TOLERANT = SecurityAttestation(tolerate=frozenset({"software-platform"}))


@dataclass(frozen=True, kw_only=True)
class Running:
    platform: Platform
    socket: Path
    launcher: TestLauncher

    async def attest(self, *program: str) -> Answer:
        return await self.launcher.attest(self.socket, REPORT_DATA, program)

    async def claims(self, *program: str) -> Claims:
        answer = await self.attest(*program)
        assert answer.error == ()
        root = software_root(self.platform.root_pem)
        return verify(answer.evidence, answer.endorsements, roots=[root], now=datetime.now(UTC))

    async def say(self, data: bytes, *, end: bool = True) -> dict[str, list[str]]:
        reader, writer = await asyncio.open_unix_connection(self.socket)
        writer.write(data)
        if end:
            writer.write_eof()
        try:
            answer: dict[str, list[str]] = json.loads(await reader.readline())
        finally:
            writer.close()
        return answer


@asynccontextmanager
async def _running(directory: Path) -> AsyncIterator[Running]:
    launcher = make_launcher(directory / "package")
    path = directory / "platform.sock"
    async with serve_platform(directory / "platform", path) as platform:
        yield Running(platform=platform, socket=path, launcher=launcher)


def _run(coroutine: Coroutine[None, None, None]) -> None:
    asyncio.run(coroutine)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "server.py"
    file.write_text("print('hello')\n")
    return file


class TestMeasuring:
    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
    def test_quote_says_what_measuring_from_outside_says(self, tmp_path: Path, program: Path, run: object) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                command = [sys.executable, str(program)]
                claims = await running.claims(*command)
                resolved = resolve_program(command, extra_files=[], path="", cwd="/")
                expected = measure_program(resolved, python=real_python(), package=running.launcher.package)
                assert claims.identity == expected.mr_enclave
                assert claims.signer == running.platform.mr_signer
                assert (claims.product_id, claims.svn, claims.report_data) == (1, 1, REPORT_DATA)
                assert claims.debug
                assert claims.software

        assert callable(run)
        run(story())

    def test_launcher_without_a_program_is_measured_alone(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                expected = measure_program(None, python=real_python(), package=running.launcher.package)
                assert (await running.claims()).identity == expected.mr_enclave

        _run(story())

    def test_program_with_one_byte_changed_is_refused_by_its_session(self, tmp_path: Path, program: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                genuine = await running.claims(sys.executable, str(program))
                service = Service(name="web", attestation=(Variant(mrenclave=(genuine.identity,)),))
                appraise(genuine, service, TOLERANT, binding=REPORT_DATA, now=datetime.now(UTC))
                program.write_text("print('hellp')\n")
                changed = await running.claims(sys.executable, str(program))
                with pytest.raises(AppraisalRefusedError) as refusal:
                    appraise(changed, service, TOLERANT, binding=REPORT_DATA, now=datetime.now(UTC))
                (mismatch,) = refusal.value.mismatches
                assert mismatch.factor == "mrenclave"
                assert mismatch.expected == genuine.identity.hex()
                program.write_text("print('hello')\n")
                assert await running.claims(sys.executable, str(program)) == genuine

        _run(story())

    def test_changed_launcher_has_another_measurement(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                before = await running.claims()
                with (running.launcher.package / "launcher" / "extra.py").open("w") as file:
                    file.write("# one more source file\n")
                assert (await running.claims()).identity != before.identity

        _run(story())

    def test_missing_file_of_the_program_is_refused_by_name(self, tmp_path: Path, program: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                program.chmod(0o755)
                program.write_text(f"#!{sys.executable}\n")
                code = (running.launcher.package / "launcher" / "__main__.py").read_text()
                removing = code.replace("    made =", f"    os.unlink({str(program)!r})\n    made =")
                (running.launcher.package / "launcher" / "__main__.py").write_text(removing)
                answer = await running.attest(str(program))
                assert answer.error[0] == "the quoting daemon refuses to measure this program"
                assert f"file {str(program)!r} cannot be read, so it cannot be measured" in answer.error[1]

        _run(story())


class TestCallers:
    @pytest.mark.parametrize(
        "options", [["-I", "-S"], ["-S", "-I", "-B"], ["-I", "-S", "-B", "-O"], ["-B"]], ids=" ".join
    )
    def test_process_of_another_form_is_refused(self, tmp_path: Path, options: list[str]) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                main = running.launcher.command[-1]
                answer = await ask([sys.executable, *options, main, str(running.socket), REPORT_DATA.hex()])
                assert answer.error[0] == "the quoting daemon refuses to measure this program"
                assert "only `ostiary run` is measured" in answer.error[1]

        _run(story())

    def test_process_that_is_no_launcher_is_refused(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                request = json.dumps({"report_data": REPORT_DATA.hex(), "program": None}).encode() + b"\n"
                (sentence,) = (await running.say(request))["error"]
                assert sentence.startswith("the caller is `")
                assert "only `ostiary run` is measured" in sentence

        _run(story())


class TestBadInput:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"", "a JSON object with hex report_data"),
            (b"[]", "members ['program', 'report_data']"),
            (b"1", "a JSON object with hex report_data"),
            (b"[" * 60_000, "a JSON object with hex report_data"),
            (b'{"report_data": "00", "program": null}', "64 bytes of report_data"),
            (b'{"report_data": "zz", "program": null}', "a JSON object with hex report_data"),
            (b'{"report_data": null, "program": null}', "a JSON object with hex report_data"),
            (b'{"report_data": "00", "program": null, "more": 1}', "members ['program', 'report_data']"),
        ],
    )
    def test_malformed_request_is_refused(self, line: bytes, expected: str) -> None:
        with pytest.raises(InputError) as refusal:
            parse_request(line)
        assert refusal.value.message == f"the request to the quoting daemon is malformed: expected {expected}"

    @pytest.mark.parametrize(
        ("program", "expected"),
        [
            ({}, "a program with members ['executable', 'files', 'interpreter']"),
            ([], "a program with members"),
            ({"executable": "/a", "interpreter": None, "files": "/b"}, "a list of files"),
            ({"executable": "a", "interpreter": None, "files": []}, "absolute paths"),
            ({"executable": "/a\0b", "interpreter": None, "files": []}, "absolute paths"),
            ({"executable": "/a", "interpreter": 1, "files": []}, "absolute paths"),
            ({"executable": "/a", "interpreter": None, "files": [None]}, "absolute paths"),
        ],
    )
    def test_malformed_program_is_refused(self, program: object, expected: str) -> None:
        with pytest.raises(InputError) as refusal:
            parse_request(json.dumps({"report_data": "00" * 64, "program": program}).encode())
        assert expected in refusal.value.message

    def test_daemon_answers_bad_requests_and_goes_on(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                for data, expected in (
                    (b"{}\n", "expected members"),
                    (b"\xff\xfe\n", "expected a JSON object"),
                    (b"no newline", "expected one line, ended by a newline"),
                    (b"x" * 70_000 + b"\n", "expected at most 65536 bytes"),
                ):
                    assert expected in (await running.say(data))["error"][0]
                assert (await running.claims()).software

        _run(story())

    def test_caller_that_says_nothing_is_told_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(daemon_module, "REQUEST_SECONDS", 0.05)

        async def story() -> None:
            async with _running(tmp_path) as running:
                assert "expected a line within 0 s" in (await running.say(b"{", end=False))["error"][0]

        _run(story())

    def test_caller_that_goes_away_does_no_harm(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                for _ in range(20):
                    with socket.socket(socket.AF_UNIX) as connection:
                        connection.connect(str(running.socket))
                        connection.send(b"{}\n")
                assert (await running.claims()).software

        _run(story())


class TestServing:
    def test_stopping_ends_open_connections_and_removes_the_socket(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                reader, writer = await asyncio.open_unix_connection(running.socket)
                await running.say(b"{}\n")
            assert await reader.read() == b""
            writer.close()
            assert not running.socket.exists()

        _run(story())

    def test_every_user_may_ask(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                assert stat.S_IMODE(running.socket.stat().st_mode) == 0o666

        _run(story())

    def test_second_daemon_at_the_same_socket_is_refused(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with _running(tmp_path) as running:
                with pytest.raises(ConfigurationError, match="another quoting daemon listens at"):
                    async with serve_platform(tmp_path / "platform", running.socket):
                        pass
                assert running.socket.exists()

        _run(story())

    def test_socket_left_by_a_killed_daemon_is_replaced(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "platform.sock"))

        async def story() -> None:
            async with _running(tmp_path) as running:
                assert (await running.claims()).software

        _run(story())

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("file", "is there already and no socket"),
            ("x" * 108, "is over 107 bytes; name a shorter one"),
            ("file/below.sock", "name another --socket"),
        ],
    )
    def test_socket_that_cannot_be_made_is_refused(self, tmp_path: Path, name: str, message: str) -> None:
        (tmp_path / "file").write_text("")

        async def story() -> None:
            with pytest.raises(ConfigurationError, match=message):
                async with serve_platform(tmp_path / "platform", tmp_path / name):
                    pass

        _run(story())
        assert (tmp_path / "file").read_text() == ""

    def test_endorsements_are_renewed_before_they_run_out(self, tmp_path: Path) -> None:
        times = [datetime(2030, 1, 1, tzinfo=UTC)]

        async def story() -> None:
            launcher, path = make_launcher(tmp_path / "package"), tmp_path / "platform.sock"
            async with serve_platform(tmp_path / "platform", path, clock=lambda: times[-1]) as platform:
                first = await launcher.attest(path, REPORT_DATA, [])
                times.append(times[0] + timedelta(days=20))
                assert (await launcher.attest(path, REPORT_DATA, [])).endorsements == first.endorsements
                times.append(times[0] + timedelta(days=29))
                renewed = await launcher.attest(path, REPORT_DATA, [])
                assert renewed.endorsements != first.endorsements
                much_later = times[0] + timedelta(days=50)
                verify(
                    renewed.evidence,
                    renewed.endorsements,
                    roots=[software_root(platform.root_pem)],
                    now=much_later,
                )

        _run(story())


def test_process_in_a_namespace_we_cannot_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel then gives process id 0; a test cannot leave its own namespace without rights, so the id is given."""
    from ostiary.errors import NotAuthorizedError
    from ostiary.platform import caller

    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert caller.peer_pid(ours.fileno()) == os.getpid()
        monkeypatch.setattr("struct.unpack", lambda *_: (0, 0, 0))
        with pytest.raises(NotAuthorizedError, match="a process namespace that the quoting daemon cannot see"):
            caller.peer_pid(ours.fileno())
