"""The steps of the demo, in order. Each says what happens, does it with the real commands, and shows the outcome."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from ostiary.demo.processes import (
    Children,
    accepts_connections,
    children,
    clean_environment,
    end,
    free_port,
    last_lines,
    ready_line,
    wait_until,
)
from ostiary.errors import OutsideError

Say = Callable[[str], None]

_NEEDED = ("curl", "openssl", "redis-server", "redis-cli")
EXIT_REFUSED = 77


def tell(say: Say) -> None:
    """Run the demo, one line of `say` at a time. Raises OutsideError where something does not go as told."""
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        raise OutsideError(
            f"the demo needs {', '.join(missing)}",
            "install them (on Debian: apt-get install curl openssl redis-server redis-tools) and run it again",
        )
    with tempfile.TemporaryDirectory(prefix="ostiary-demo-") as name, children(Path(name)) as running:
        say(f"Everything below runs on this machine, in {name}, and is gone at the end.")
        stage = _set_up(Path(name), running, say)
        _https_server(stage, say)
        _redis(stage, say)
        _changed_program(stage, say)
        _policy_board(stage, say)
        say("\nStopping all that was started.")
    say("Done: programs were configured by proving what they are, one was refused, and nobody changed a session alone.")


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """What the first steps set up: addresses as HOST:PORT, files, and the running children."""

    directory: Path
    running: Children
    client_api: str
    enclave_api: str
    authority: str
    socket: str
    certificate: Path
    key: Path

    def curl(self, *arguments: str) -> str:
        """What curl prints; as an existing client would call it."""
        return _output(["curl", "--silent", "--show-error", "--insecure", *arguments])

    def upload(self, text: str) -> str:
        """Upload a session with our client certificate; its hash."""
        path = self.directory / "session.yml"
        path.write_text(text)
        answer = self.curl(
            *("--cert", str(self.certificate), "--key", str(self.key), "--data-binary", f"@{path}"),
            *("-X", "POST", f"https://{self.client_api}/session"),
        )
        session_hash = json.loads(answer).get("hash")
        if not session_hash:
            raise OutsideError("the session was not accepted", answer)
        return str(session_hash)

    def public_value(self, session: str, secret: str) -> str:
        """A value that the session exports to everybody."""
        answer = self.curl(f"https://{self.client_api}/v1/values/session={session}")
        return str(json.loads(answer)["values"][secret]["value"])

    def measure(self, *command: str) -> str:
        """The measurement of a program, as a session's `mrenclave` wants it."""
        return _output([*_ostiary(), "measure", "--", *command]).strip()

    def board(self, *words: str, expect: int = 0) -> str:
        """What `ostiary board` prints, for the person of our client certificate; stderr if it must fail."""
        identity = self.directory / "me-identity.pem"
        identity.write_text(self.key.read_text() + self.certificate.read_text())
        known = ["--cas", self.client_api, "--cas-ca", self.authority, "--identity", str(identity)]
        environment = {**clean_environment(), "SCONE_CLI_CONFIG": str(self.directory / "cas" / "config.json")}
        return _output([*_ostiary(), "board", *words, *known], environment, expect=expect)

    def run_command(self, service: str, *command: str) -> list[str]:
        """`ostiary run` for a service of a session."""
        options = ["--cas", self.enclave_api, "--platform-socket", self.socket, "--service", service]
        return [*_ostiary(), "run", *options, "--", *command]


def _set_up(directory: Path, running: Children, say: Say) -> _Stage:
    say("\n1. A platform that signs what runs on it. This one is software: the forms of hardware, and no protection.")
    platform_directory = directory / "platform"
    socket = directory / "platform.sock"
    platform = running.start(
        "platform",
        [*_ostiary(), "platform", "serve", "--dir", str(platform_directory), "--socket", str(socket), "--json"],
    )
    root = ready_line(platform, running.log("platform"))["root"]
    say(f"   $ ostiary platform serve --dir {platform_directory}")

    say("\n2. The service, told by its owner to trust that platform's root. Nothing built in trusts it.")
    listen = ["--client", "127.0.0.1:0", "--enclave", "127.0.0.1:0"]
    service = running.start(
        "service",
        [*_ostiary(), "serve", "--data", str(directory / "data"), *listen, "--trust-software-root", root, "--json"],
    )
    addresses = ready_line(service, running.log("service"))
    say(f"   $ ostiary serve --data {directory}/data --trust-software-root {root}")
    say(f"   client API on {addresses['client']}, enclave API on {addresses['enclave']}")

    say("\n3. Who we are: a self-signed certificate. Its key is our identity; nobody has to sign it.")
    certificate, key = directory / "me.pem", directory / "me-key.pem"
    _output(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=demo", "-days", "1", "-keyout", str(key), "-out", str(certificate)),
        ]
    )
    say("   $ openssl req -x509 -newkey ec … -keyout me-key.pem -out me.pem")
    return _Stage(
        directory=directory,
        running=running,
        client_api=addresses["client"],
        enclave_api=addresses["enclave"],
        authority=addresses["ca"],
        socket=str(socket),
        certificate=certificate,
        key=key,
    )


def _https_server(stage: _Stage, say: Say) -> None:
    say("\n(a) An HTTPS server of twenty lines of Python, unchanged.")
    program = stage.directory / "server.py"
    program.write_text(_resource("https_server.py"))
    command = _python_command(program)
    say(f"    Its measurement:\n    $ ostiary measure -- {' '.join(command)}")
    measurement = stage.measure(*command)
    say(f"    {measurement}")
    port = free_port()
    text = _session("hello", MEASUREMENT=measurement, COMMAND=" ".join(command), PORT=str(port))
    say("    The session that says who gets what:\n")
    say("\n".join(f"      | {line}" for line in text.splitlines()))
    say("\n    $ curl -k --cert me.pem --key me-key.pem --data-binary @session.yml -X POST https://…/session")
    say(f"    session hash {stage.upload(text)}")
    say(f"    $ ostiary run --service hello/application -- {' '.join(command)}")
    server = stage.running.start("hello", stage.run_command("hello/application", *command))
    wait_until(lambda: accepts_connections(port), server, stage.running.log("hello"))
    authority = stage.directory / "ca.pem"
    authority.write_text(stage.public_value("hello", "api_ca_cert"))
    say("    It was attested, got its key and certificate, and serves. The CA certificate is public, the keys are not:")
    say("    $ curl -k https://…/v1/values/session=hello | jq -r .values.api_ca_cert.value > ca.pem")
    say(f"    $ curl --cacert ca.pem https://localhost:{port}/")
    greeting = _output(["curl", "--silent", "--show-error", "--cacert", str(authority), f"https://localhost:{port}/"])
    say(f"    {greeting.strip()}")
    if Path("/app/key.pem").exists() and Path("/app/key.pem").stat().st_size:
        raise OutsideError("/app/key.pem has content outside the program: the injection leaked")
    say("    On this machine outside that program there is no /app/key.pem with anything in it.")


def _redis(stage: _Stage, say: Say) -> None:
    say("\n(b) Debian's redis-server, unchanged. Its key and password exist only in the service and in these programs.")
    port = free_port()
    text = _session(
        "redis",
        SERVER_MEASUREMENT=stage.measure("redis-server"),
        CLIENT_MEASUREMENT=stage.measure("redis-cli"),
        PORT=str(port),
    )
    say(f"    session hash {stage.upload(text)}")
    say("    $ ostiary run --service redis/server -- redis-server")
    server = stage.running.start("redis", stage.run_command("redis/server", "redis-server"))
    wait_until(lambda: accepts_connections(port), server, stage.running.log("redis"))
    authority = stage.directory / "redis-ca.pem"
    authority.write_text(stage.public_value("redis", "redis_ca"))
    say("    A stranger with the CA certificate gets TLS, but no data:")
    stranger = ["redis-cli", "--tls", "--cacert", str(authority), "-h", "localhost", "-p", str(port), "GET", "visits"]
    say(f"    {_output(stranger).strip()}")
    say("    redis-cli, attested as the session's other service, has the password in its environment:")
    for _ in range(2):
        counted = _output(stage.run_command("redis/client", "redis-cli")).strip()
        say(f"    $ ostiary run --service redis/client -- redis-cli\n    visits: {counted}")
    if counted != "2":
        raise OutsideError(f"redis counted {counted!r}, expected '2'")


def _changed_program(stage: _Stage, say: Say) -> None:
    say("\n(c) The HTTPS server again, with one byte of its program changed.")
    program = stage.directory / "server.py"
    program.write_bytes(program.read_bytes().replace(b"An ordinary", b"an ordinary", 1))
    refused = subprocess.run(
        stage.run_command("hello/application", *_python_command(program)),
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        env=clean_environment(),
    )
    say("\n".join(f"    {line}" for line in refused.stderr.strip().splitlines()))
    if refused.returncode != EXIT_REFUSED:
        raise OutsideError(f"the changed program ended with {refused.returncode}, expected a refusal ({EXIT_REFUSED})")
    say("    Refused, and it never saw a secret. The service's log has the whole reason:")
    reason = [line for line in last_lines(stage.running.log("service"), 20) if "denied" in line]
    say("\n".join(f"    {line}" for line in reason))


def _policy_board(stage: _Stage, say: Say) -> None:
    say("\n(d) A session that nobody changes alone: alice, bob, carol and a program decide, two of them together.")
    if find_spec("cel_expr_python") is None:
        say("    Left out: the program that decides needs a library; pip install 'ostiary[checker]'.")
        return
    keys, public = {}, {}
    for name in ("alice", "bob", "carol"):
        keys[name] = str(stage.directory / f"{name}.pem")
        _output(["openssl", "genpkey", "-algorithm", "ed25519", "-out", keys[name]])
        public[name.upper()] = json.dumps(_output(["openssl", "pkey", "-in", keys[name], "-pubout"]))
    checker = _start_checker(stage, say)

    first = _propose(stage, say, _session("board", TOLERATED="", WORDS="", **public), "the first version")
    _tell_decision(stage, say, checker, first, "approve")
    _decide(stage, say, first, "alice", keys, "applied")

    harmless = _propose(stage, say, _session("board", TOLERATED="", WORDS=" --verbose", **public), "tell me more")
    _tell_decision(stage, say, checker, harmless, "approve")
    _decide(stage, say, harmless, "bob", keys, "applied")

    bad = _propose(stage, say, _session("board", TOLERATED="debug-mode", WORDS="", **public), "just for a day")
    _tell_decision(stage, say, checker, bad, "reject")
    say("    Its veto is final. The people may approve as much as they like:")
    refused = stage.board("approve", bad, "--yes", "--key", keys["alice"], expect=1)
    say(f"    $ ostiary board approve {bad[:16]}… --key alice.pem\n    {refused.strip().splitlines()[-1].strip()}")

    say("    Now the program is away, and somebody has carol's key:")
    end(checker)
    evil = _propose(stage, say, _session("board", TOLERATED="debug-mode", WORDS=" --evil", **public), "")
    for _ in range(2):
        _decide(stage, say, evil, "carol", keys, "open")
    say(
        "    One of the two that are needed, however often she decides. Every step is in the audit log, which verifies:"
    )
    say("    $ ostiary store log --session board")
    logged = _output([*_ostiary(), "store", "log", "--data", str(stage.directory / "data"), "--session", "board"])
    say("\n".join(f"    {line}" for line in logged.strip().splitlines()))


def _start_checker(stage: _Stage, say: Say) -> subprocess.Popen[bytes]:
    """`ostiary checker` under `ostiary run`; only there it has its key."""
    script = Path(sys.executable).with_name("ostiary")
    command = [str(script), "checker"] if script.exists() else [*_ostiary(), "checker"]
    text = _session(
        "checker",
        MEASUREMENT=stage.measure(*command),
        COMMAND=" ".join(command),
        ADDRESS=stage.client_api,
        AUTHORITY=json.dumps(Path(stage.authority).read_text()),
    )
    say("    The program is `ostiary checker`. It has its rules and its key from a session of its own.")
    say(f"    session hash {stage.upload(text)}")
    say("    $ ostiary run --service checker/watch -- ostiary checker")
    return stage.running.start("checker", stage.run_command("checker/watch", *command))


def _propose(stage: _Stage, say: Say, text: str, note: str) -> str:
    """The id of a proposal."""
    path = stage.directory / "board.yml"
    path.write_text(text)
    proposal = stage.board("propose", str(path), "--note", note).split()[0]
    say(f"    $ ostiary board propose board.yml --note '{note}'\n    {proposal}")
    return proposal


def _tell_decision(stage: _Stage, say: Say, checker: subprocess.Popen[bytes], proposal: str, expected: str) -> None:
    told = ready_line(checker, stage.running.log("checker"))
    if (told["proposal"], told["decision"]) != (proposal, expected):
        raise OutsideError(f"the checker decided {told['decision']}, expected {expected}", told["reason"])
    say(f"    The program decides: {told['decision']}, {told['reason']}.")


def _decide(stage: _Stage, say: Say, proposal: str, person: str, keys: Mapping[str, str], expected: str) -> None:
    stage.board("approve", proposal, "--yes", "--key", keys[person])
    state = stage.board("status", proposal).strip()
    say(f"    $ ostiary board approve {proposal[:16]}… --key {person}.pem\n    the proposal is {state}")
    if state != expected:
        raise OutsideError(f"the proposal is {state}, expected {expected}")


def _ostiary() -> list[str]:
    return [sys.executable, "-m", "ostiary"]


def _python_command(program: Path) -> list[str]:
    # The interpreter that the virtual environment stands on: the server needs nothing but the standard library.
    return [os.path.realpath(sys.executable), str(program)]


def _resource(name: str) -> str:
    return resources.files("ostiary.demo").joinpath(name).read_text()


def _session(name: str, **replacements: str) -> str:
    text = _resource(f"{name}.session.yml")
    for variable, value in replacements.items():
        text = text.replace(f"${variable}", value)
    return text


def _output(command: Sequence[str], env: Mapping[str, str] | None = None, *, expect: int = 0) -> str:
    """stdout of a command that must end with status `expect`; stderr if that is a failure."""
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=clean_environment() if env is None else {**env},
    )
    if done.returncode != expect:
        raise OutsideError(
            f"{command[0]} ended with status {done.returncode}", *(done.stderr or done.stdout).splitlines()
        )
    return done.stderr if expect else done.stdout
