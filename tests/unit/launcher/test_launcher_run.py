"""`ostiary run` as a process: what the program sees, what a person is told, and the exit codes."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.cas import PLACEHOLDER, CasSimulator, Json, QuotingDaemonSimulator, configuration, http

from ostiary.entry import launcher_command
from ostiary.launcher import run as run_module
from ostiary.launcher.configuration import MAX_FILE_BYTES
from ostiary.launcher.run import main

SHOW = """#!/bin/sh
printf '%s\\n' "$0" "$@"
/usr/bin/env
pwd
cat
echo error >&2
exit 7
"""


@pytest.fixture
def program(open_directory: Path) -> Path:
    path = open_directory / "show"
    path.write_text(SHOW)
    path.chmod(0o755)
    return path


def arguments(cas: CasSimulator, daemon: QuotingDaemonSimulator, *rest: str) -> list[str]:
    return ["--cas", cas.address, "--service", "shop/web", "--platform-socket", str(daemon.path), *rest]


def anchor(cas: CasSimulator, directory: Path) -> list[str]:
    """Options that make the simulator the right CAS."""
    path = directory / "cas.pem"
    path.write_bytes(cas.ca_pem)
    return ["--cas-ca", str(path)]


def launch(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    options.setdefault("env", {"PATH": "/usr/bin:/bin", "HOST": "only"})
    return subprocess.run(launcher_command(command), capture_output=True, timeout=60, check=False, **options)


def test_the_program_sees_what_the_session_says_and_nothing_of_the_host(
    daemon: QuotingDaemonSimulator, program: Path, open_directory: Path
) -> None:
    """Argv, environment, working directory, standard streams and exit code, as if started directly."""
    released = configuration(
        argv=("name", "a b", 2, ""),
        environment={"LANG": "C", "GREETING": "hello\nworld"},
        host_variables=("HOST", "ABSENT", "LC_CTYPE"),
        pwd=str(open_directory),
    )
    with CasSimulator(released) as cas:
        done = launch(arguments(cas, daemon, "--", str(program), "one", "two", "three"), input=b"input\n")
    lines = done.stdout.decode().splitlines()
    assert lines[:4] == [str(program), "a b", "two", ""]
    # The shell and env(1) add variables of their own.
    environment = [line for line in lines[4:-2] if line.partition("=")[0] not in ("PWD", "_", "OLDPWD", "SHLVL")]
    assert sorted(environment) == ["ABSENT=", "GREETING=hello", "HOST=only", "LANG=C", "LC_CTYPE=", "world"]
    assert lines[-2:] == [str(open_directory), "input"]
    assert (done.stderr, done.returncode) == (b"error\n", 7)
    assert daemon.requests[0]["program"] == {
        "executable": str(program),
        "interpreter": os.path.realpath("/bin/sh"),
        "files": [],
    }


def test_injection_files_come_before_the_program(daemon: QuotingDaemonSimulator, open_directory: Path) -> None:
    path = open_directory / "new" / "key.pem"
    released = configuration(argv=("cat", str(path)), files={str(path): (0o400, b"secret\n")})
    with CasSimulator(released) as cas:
        done = launch(arguments(cas, daemon, "--", "cat"))
    assert (done.stdout, done.stderr, done.returncode) == (b"secret\n", b"", 0)
    assert not path.parent.exists()


def test_a_template_of_this_machine_comes_back_with_its_secrets(
    daemon: QuotingDaemonSimulator, open_directory: Path, tmp_path: Path
) -> None:
    path = open_directory / "app.conf"
    path.write_bytes(b"\xfftoken=" + PLACEHOLDER)
    released = configuration(argv=("cat", str(path)), templates={str(path): 0o440})
    with CasSimulator(released) as cas:
        done = launch(arguments(cas, daemon, *anchor(cas, tmp_path), "--", "cat"))
    assert (done.stdout, done.stderr, done.returncode) == (b"\xfftoken=s3cret", b"", 0)
    assert path.read_bytes() == b"\xfftoken=" + PLACEHOLDER
    assert cas.seen.connections == 1


def test_a_cas_that_proved_to_have_the_token_gets_templates_too(
    daemon: QuotingDaemonSimulator, open_directory: Path
) -> None:
    """Without --cas-ca: the token says which CAS it is."""
    path = open_directory / "app.conf"
    path.write_bytes(b"token=" + PLACEHOLDER)
    released = configuration(argv=("cat", str(path)), templates={str(path): 0o440})
    env = {"PATH": "/usr/bin:/bin", "SCONE_SERVICE_ACCESS_TOKEN": "a token"}
    with CasSimulator(released, token=b"a token") as cas:
        done = launch(arguments(cas, daemon, "--", "cat"), env=env)
    assert (done.stdout, done.stderr, done.returncode) == (b"token=s3cret", b"", 0)


def test_f199_a_cas_without_the_token_starts_nothing(
    daemon: QuotingDaemonSimulator, program: Path, open_directory: Path
) -> None:
    """F199: neither the program nor a file of this machine is touched."""
    path = open_directory / "app.conf"
    path.write_bytes(b"token=" + PLACEHOLDER)
    released = configuration(argv=("show",), templates={str(path): 0o440})
    env = {"PATH": "/usr/bin:/bin", "SCONE_SERVICE_ACCESS_TOKEN": "a token"}
    with CasSimulator(released) as cas:
        done = launch(arguments(cas, daemon, "--", str(program)), env=env)
    assert (done.stdout, done.returncode) == (b"", 69)
    assert b"SCONE_SERVICE_ACCESS_TOKEN is set, and the CAS did not prove that it has the token" in done.stderr
    assert b"a token" not in done.stderr
    assert cas.seen.render == []


def test_an_empty_token_is_none(daemon: QuotingDaemonSimulator, program: Path, open_directory: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "SCONE_SERVICE_ACCESS_TOKEN": ""}
    with CasSimulator(configuration(argv=("show",), pwd=str(open_directory))) as cas:
        done = launch(arguments(cas, daemon, "--", str(program)), env=env, input=b"")
    assert done.returncode == 7, done.stderr
    assert "access_token_proof" not in cas.seen.configure[0]


def test_a_one_time_password_reaches_the_cas_and_nobody_else(
    daemon: QuotingDaemonSimulator, program: Path, open_directory: Path
) -> None:
    """Not the quoting daemon, not the program, no message."""
    env = {"PATH": "/usr/bin:/bin", "SCONE_CONFIG_ID": "shop/web@287082"}
    options = ["--platform-socket", str(daemon.path), "--", str(program)]
    with CasSimulator(configuration(argv=("show",), pwd=str(open_directory))) as cas:
        done = launch(["--cas", cas.address, *options], env=env, input=b"")
    assert done.returncode == 7, done.stderr
    assert cas.seen.configure[0]["service"] == "shop/web@287082"
    assert "287082" not in json.dumps(daemon.requests)
    assert b"287082" not in done.stdout + done.stderr
    refusal = http(403, {"msg": ["no"], "version": "0"})
    with CasSimulator(configuration(), script={"/v1/configure": lambda: refusal}) as cas:
        done = launch(["--cas", cas.address, *options], env=env)
    assert done.returncode == 77
    assert b"CAS refused to configure shop/web\n" in done.stderr


def test_a_template_that_was_measured_must_be_the_one_that_is_sent(
    told: Told, daemon: QuotingDaemonSimulator, program: Path, open_directory: Path, tmp_path: Path
) -> None:
    path = open_directory / "app.conf"
    path.write_text("measured")

    def answer() -> bytes:
        path.write_text("another")
        return http(200, configuration(templates={str(path): 0o440}))

    with CasSimulator({}, script={"/v1/configure": answer}) as cas:
        code, text = told(arguments(cas, daemon, *anchor(cas, tmp_path), "--measure", str(path), "--", str(program)))
    assert code == 78
    assert "app.conf is not the file that was measured" in text


def test_a_script_made_of_a_template_of_this_machine_must_be_measured(
    daemon: QuotingDaemonSimulator, open_directory: Path, tmp_path: Path
) -> None:
    """The CAS gave its secrets, not its text; a script that the CAS gave whole needs no measuring."""
    path = open_directory / "script"
    path.write_text("echo ran")
    (open_directory / "measured").touch()
    released = configuration(argv=("sh", str(path)), templates={str(path): 0o440})
    with CasSimulator(released) as cas:
        done = launch(arguments(cas, daemon, *anchor(cas, tmp_path), "--", "/bin/sh", str(open_directory / "measured")))
        assert done.returncode == 78
        assert b"script, which was not measured" in done.stderr
        assert launch(arguments(cas, daemon, *anchor(cas, tmp_path), "--", "/bin/sh", str(path))).stdout == b"ran\n"


@pytest.mark.parametrize(("make", "reason"), [
    (lambda path: None, "No such file"),
    (lambda path: path.mkdir(), "not a regular file"),
    (os.mkfifo, "not a regular file"),
    (lambda path: path.write_bytes(bytes(MAX_FILE_BYTES + 1)), "a template may have 1048576 bytes"),
])  # fmt: skip
def test_a_template_that_cannot_be_read_stops_the_start(
    told: Told, daemon: QuotingDaemonSimulator, tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(tmp_path / "file")
    with CasSimulator(configuration(templates={str(tmp_path / "file"): 0o400})) as cas:
        code, text = told(arguments(cas, daemon, *anchor(cas, tmp_path), "--", "/bin/true"))
    assert code == 78
    assert f"injection file {tmp_path}/file" in text
    assert reason in text
    assert cas.seen.render == []


@pytest.mark.parametrize(("answer", "code", "reason"), [
    (http(403, {"msg": ["file '/f': placeholder x"], "denial": "d-2"}), 77, "denial id d-2"),
    (http(200, {"content": "*"}), 76, "content: not base64"),
    (http(200, {"contents": ""}), 76, "the rendered file: lacks content"),
    (http(200, {"content": base64.b64encode(bytes(MAX_FILE_BYTES + 1)).decode()}), 76, "1048577 bytes, at most"),
    (None, 69, "closed the connection"),
])  # fmt: skip
def test_a_template_that_the_cas_does_not_render_stops_the_start(
    told: Told, daemon: QuotingDaemonSimulator, tmp_path: Path, answer: bytes | None, code: int, reason: str
) -> None:
    (tmp_path / "file").touch()
    released = configuration(templates={str(tmp_path / "file"): 0o400})
    with CasSimulator(released, script={"/v1/render": lambda: answer}) as cas:
        found, text = told(arguments(cas, daemon, *anchor(cas, tmp_path), "--", "/bin/true"))
    assert (found, reason in text) == (code, True), text


def test_files_and_rendered_files_are_bounded_together(
    told: Told, daemon: QuotingDaemonSimulator, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(MAX_FILE_BYTES))
    files = {f"/f{number}": (0o400, bytes(MAX_FILE_BYTES)) for number in range(8)}
    with CasSimulator(configuration(files=files, templates={str(tmp_path / "file"): 0o400})) as cas:
        code, text = told(arguments(cas, daemon, *anchor(cas, tmp_path), "--", "/bin/true"))
    assert code == 76
    assert "injection_files: 9437184 bytes together, at most 8388608" in text


def test_no_file_of_this_machine_goes_to_a_cas_that_nothing_names(
    told: Told, daemon: QuotingDaemonSimulator, open_directory: Path
) -> None:
    """Whoever answers could ask for any file that the program may read."""
    path = open_directory / "app.conf"
    path.write_text("mine")
    with CasSimulator(configuration(templates={str(path): 0o440})) as cas:
        code, text = told(arguments(cas, daemon, "--", "/bin/true"))
    assert code == 78
    assert "nothing says that it is the right CAS" in text
    assert str(path) in text
    assert "--cas-ca" in text
    assert cas.seen.render == []


def test_same_process_id_and_death_by_signal(daemon: QuotingDaemonSimulator) -> None:
    with CasSimulator(configuration(argv=("sh", "-c", "echo $$; kill -TERM $$"))) as cas:
        command = launcher_command(arguments(cas, daemon, "--", "/bin/sh"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.communicate(timeout=60)[0] == f"{process.pid}\n"
    assert process.returncode == -signal.SIGTERM


def test_a_broken_pipe_ends_the_program_as_it_would_without_us(daemon: QuotingDaemonSimulator) -> None:
    with CasSimulator(configuration(argv=("yes",))) as cas:
        command = launcher_command(arguments(cas, daemon, "--", "/usr/bin/yes"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(2)
            process.stdout.close()
            process.wait(60)
    assert process.returncode == -signal.SIGPIPE


def test_open_files_of_the_host_pass_and_none_of_ours(daemon: QuotingDaemonSimulator, open_directory: Path) -> None:
    files = {str(open_directory / "f"): (0o400, b"x")}
    released = configuration(argv=("ls", "/proc/self/fd"), files=files)
    with CasSimulator(released) as cas, (open_directory / "shared").open("w") as shared:
        done = launch(arguments(cas, daemon, "--", "ls"), pass_fds=[shared.fileno()], stdin=subprocess.DEVNULL)
        expected = {0, 1, 2, shared.fileno()}
    listed = set(map(int, done.stdout.split()))
    assert listed >= expected
    assert len(listed) == len(expected) + 1, "ls itself holds the directory"


def test_interrupting_the_launcher_kills_it_as_it_would_the_program(daemon: QuotingDaemonSimulator) -> None:
    running = threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def interrupt() -> bytes | None:
        running.wait(10)
        started[0].send_signal(signal.SIGINT)
        started[0].wait(60)
        return None

    with CasSimulator(configuration(), script={"/v1/configure": interrupt}) as cas:
        command = launcher_command(arguments(cas, daemon, "--", "/bin/true"))
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE))
        running.set()
        error = started[0].communicate(timeout=60)[1]
    assert (started[0].returncode, error) == (-signal.SIGINT, b"")


def test_without_command_the_session_names_the_program(daemon: QuotingDaemonSimulator, program: Path) -> None:
    released = configuration(argv=("show", "x"), environment={"PATH": f"/nowhere:{program.parent}:/usr/bin:/bin"})
    with CasSimulator(released) as cas:
        done = launch(arguments(cas, daemon), stdin=subprocess.DEVNULL)
    assert done.stdout.decode().splitlines()[:2] == [str(program), "x"]
    assert daemon.requests[0]["program"] is None, "the evidence covers the launcher alone"


def test_no_attestation_asks_no_daemon(tmp_path: Path) -> None:
    with CasSimulator(configuration(argv=("echo", "hi"))) as cas:
        rest = ["--platform-socket", str(tmp_path / "none"), "--no-attestation", "--", "/bin/echo"]
        done = launch(["--cas", cas.address, "--service", "a/b", *rest])
    assert (done.stdout, done.stderr, done.returncode) == (b"hi\n", b"", 0)


# In this process from here on: nothing is executed, so that the answer can be looked at.


@pytest.fixture
def told(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[list[str]], tuple[int, str]]]:
    """Exit code and what is on stderr."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)}
    monkeypatch.chdir("/")

    def call(command: list[str]) -> tuple[int, str]:
        code = main(command)
        return code, capfd.readouterr().err

    yield call
    for number, action in before.items():
        signal.signal(number, action)


Told = Callable[[list[str]], tuple[int, str]]


def test_a_refusal_names_service_reasons_and_denial(told: Told, daemon: QuotingDaemonSimulator) -> None:
    refusal = http(403, {"msg": ["evidence is not what the session admits", "mrenclave"], "denial": "7f-1"})
    with CasSimulator(configuration(), script={"/v1/configure": lambda: refusal}) as cas:
        assert told(arguments(cas, daemon, "--", "/bin/true")) == (
            77,
            """ostiary run: CAS refused to configure shop/web
  evidence is not what the session admits
  mrenclave
  denial id 7f-1: ask those who may read the session
""",
        )


def test_a_refusal_without_denial_id(told: Told, daemon: QuotingDaemonSimulator) -> None:
    with CasSimulator(
        configuration(), script={"/v1/configure": lambda: http(404, {"msg": ["no such session"]})}
    ) as cas:
        code, text = told(arguments(cas, daemon, "--", "/bin/true"))
    assert (code, text) == (77, "ostiary run: CAS refused to configure shop/web\n  no such session\n")


VOLUME = {
    "name": "data", "path": "/var/lib/db", "key": "5e" * 32, "tag": None, "initialise": True, "files": "encrypted",
    "update_policy": "rollback_protected",
}  # fmt: skip
MAIN = {"path": "/fspf/main", "key": "5e" * 32, "tags": ["ab" * 16], "update_policy": "no_rollback_protection"}


@pytest.mark.parametrize(("protected", "named"), [
    ({"volumes": [VOLUME]}, ["volume 'data' at '/var/lib/db'"]),
    ({"main_file_system": MAIN}, ["main file system '/fspf/main'"]),
    ({"volumes": [VOLUME, {**VOLUME, "path": "/b"}], "main_file_system": MAIN},
     ["volume 'data' at '/var/lib/db'", "volume 'data' at '/b'", "main file system '/fspf/main'"]),
])  # fmt: skip
def test_files_that_must_be_protected_stop_the_start(
    told: Told, daemon: QuotingDaemonSimulator, program: Path, protected: Json, named: list[str]
) -> None:
    """Nothing of a protection is ever ignored: no template is sent, nothing is injected, nothing starts."""
    released = configuration(argv=("x",), templates={"/etc/passwd": 0o400})
    with CasSimulator({**released, **protected}) as cas:
        code, text = told(arguments(cas, daemon, "--", str(program)))
    assert code == 78
    first, *others = text.splitlines()
    assert first.startswith("ostiary run: service shop/web has files that must be protected, and this launcher cannot")
    assert others == [
        *(f"  {name}" for name in named),
        "  start it with a runtime that can, or take them out of the session",
    ]
    assert "5e5e" not in text
    assert cas.seen.render == []


@pytest.mark.parametrize(
    ("released", "rest", "code", "message"),
    [
        (configuration(), ["--", "/nowhere"], 127, "program '/nowhere' was not found"),
        (configuration(), ["--", "no-such-program"], 127, "was not found in PATH"),
        (configuration(), ["--", "/etc"], 126, "/etc is not a file that this user may execute"),
        (configuration(argv=("no-such-program",)), [], 127, "was not found in PATH"),
        (configuration(argv=("/etc/passwd",)), [], 126, "may execute"),
        (configuration(argv=("x", "y" * 200_000)), ["--", "/bin/true"], 126, "does not take"),
        (configuration(), [], 78, "the session gives no command"),
        (configuration(argv=("true", 1)), ["--", "/bin/true"], 78, "host argument 1, and only 0"),
        (configuration(argv=("true",), pwd="/nowhere"), ["--", "/bin/true"], 78, "pwd /nowhere cannot be entered"),
        (configuration(), ["--measure", "/nowhere", "--", "/bin/true"], 78, "'/nowhere' is not a regular file"),
        (configuration(), ["--measure", "/etc/passwd"], 64, "--measure needs a program"),
        (configuration(), ["--nosuch"], 64, "unknown option --nosuch"),
        ({**configuration(), "nosuch": []}, ["--", "/bin/true"], 76, "unknown member 'nosuch'"),
        (configuration(), ["--cas-ca", "/nowhere", "--", "/bin/true"], 78, "--cas-ca /nowhere"),
    ],
)
def test_exit_codes(
    released: Json, rest: list[str], code: int, message: str, told: Told, daemon: QuotingDaemonSimulator
) -> None:
    with CasSimulator(released) as cas:
        actual, text = told(arguments(cas, daemon, *rest))
    assert message in text
    assert text.startswith("ostiary run: ")
    assert actual == code


def test_nothing_is_asked_for_a_program_that_is_not_there(told: Told, daemon: QuotingDaemonSimulator) -> None:
    with CasSimulator(configuration()) as cas:
        told(arguments(cas, daemon, "--", "/nowhere"))
        assert cas.seen.connections == 0


def test_no_cas_and_no_daemon(told: Told, tmp_path: Path) -> None:
    rest = ["--service", "a/b", "--platform-socket", str(tmp_path / "none"), "--retries", "0", "--", "/bin/true"]
    code, text = told(["--cas", "127.0.0.1:1", *rest])
    assert (code, text.splitlines()[0]) == (69, "ostiary run: cannot connect to the CAS at 127.0.0.1:1")
    with CasSimulator(configuration()) as cas:
        code, text = told(["--cas", cas.address, *rest])
    assert code == 69
    assert "no quoting daemon answers at" in text


def test_a_daemon_that_will_not_measure(told: Told, tmp_path: Path) -> None:
    daemon = QuotingDaemonSimulator(tmp_path / "s", error=["file is too large"])
    with daemon, CasSimulator(configuration()) as cas:
        code, text = told(arguments(cas, daemon, "--", "/bin/true"))
    assert code == 78
    assert "refuses to measure this program\n  file is too large\n" in text


def test_a_program_changed_while_it_was_attested(told: Told, daemon: QuotingDaemonSimulator, program: Path) -> None:
    released = http(200, configuration(argv=("show",)))

    def change() -> bytes:
        program.write_text(SHOW + "# one more line\n")
        return released

    with CasSimulator(configuration(), script={"/v1/configure": change}) as cas:
        code, text = told(arguments(cas, daemon, "--", str(program)))
    assert code == 78
    assert "show is not the file that was measured" in text


def test_a_script_that_was_not_measured(told: Told, daemon: QuotingDaemonSimulator, program: Path) -> None:
    with CasSimulator(configuration(argv=("sh", "/etc/passwd"))) as cas:
        code, text = told(arguments(cas, daemon, "--", "/bin/sh", str(program)))
    assert code == 78
    assert "the session's command runs /etc/passwd, which was not measured" in text


def test_a_directory_that_is_gone(told: Told, daemon: QuotingDaemonSimulator, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with CasSimulator(configuration()) as cas:
        code, text = told(arguments(cas, daemon, "--", "/bin/true"))
    assert code == 78
    assert "the working directory cannot be read" in text


def test_an_internal_error_shows_its_place_and_not_its_text(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("secret")

    monkeypatch.setattr(run_module, "host_environment", fail)
    code, text = told([])
    assert code == 70
    assert text.startswith("ostiary run: internal error, KeyError at test_launcher_run.py:")
    assert "secret" not in text


def test_help(told: Told, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capfd.readouterr().out.startswith("Usage: ostiary run --cas HOST[:PORT] --service SESSION/SERVICE")


def test_stderr_may_be_closed() -> None:
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *launcher_command(["--nosuch"])]
    assert subprocess.run(command, check=False).returncode == 64


def test_the_launcher_needs_the_standard_library_only(source: str) -> None:
    """And of Ostiary nothing but errors, attester and launcher."""
    code = """
import sys
sys.path.append(sys.argv[1])
import ostiary.launcher.run
import json
print(json.dumps([[name, getattr(module, "__file__", None) or ""] for name, module in sys.modules.items()]))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, source], capture_output=True, text=True, check=True)
    foreign = set()
    for name, file in json.loads(done.stdout):
        if name.split(".")[0] == "ostiary":
            assert name == "ostiary" or name.split(".")[1] in ("errors", "attester", "launcher"), name
        elif name.split(".")[0] not in sys.stdlib_module_names and name != "__main__":
            foreign.add((name, file))
    assert foreign == set()
    names = {name for name, _ in json.loads(done.stdout)}
    assert not names & {"typing", "argparse", "pathlib", "subprocess", "encodings.idna"}
