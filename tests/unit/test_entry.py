"""The console script: the launcher for `run`, the command line interface for the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from ostiary.entry import launcher_command

SOURCE = Path(__file__).parents[2] / "src"
LAUNCHER = SOURCE / "ostiary" / "launcher" / "__main__.py"
TIMEOUT_SECONDS = 60
MAIN = "import sys; from ostiary.entry import main; main()"


def test_the_launchers_command_line_is_what_the_quoting_daemon_knows() -> None:
    assert launcher_command(["--cas", "x", "--", "a b", ""]) == [
        *(sys.executable, "-I", "-S", "-B", str(LAUNCHER)),
        *("--cas", "x", "--", "a b", ""),
    ]


def test_run_becomes_the_launcher_with_the_hosts_environment(tmp_path: Path) -> None:
    """Same process, command line as above; looked at while it waits for a CAS that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_SECONDS)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = ["--cas", address, "--service", "a/b", "--no-attestation", "--", "/bin/true"]
        environment = {"PYTHONPATH": str(SOURCE), "A": "1"}
        with subprocess.Popen([sys.executable, "-c", MAIN, "run", *arguments], env=environment) as process:
            server.accept()[0].close()
            command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            actual = Path(f"/proc/{process.pid}/environ").read_bytes()
            process.kill()
    assert command_line.decode().split("\0")[:-1] == launcher_command(arguments)
    assert actual == f"PYTHONPATH={SOURCE}\0A=1\0".encode()


def test_run_help_comes_from_the_launcher() -> None:
    command = [sys.executable, "-c", MAIN, "run", "--help"]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ostiary run --cas HOST[:PORT]")


def test_run_passes_the_launchers_exit_code() -> None:
    command = [sys.executable, "-c", MAIN, "run", "--nosuch"]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        64,
        "ostiary run: unknown option --nosuch; `ostiary run --help` lists them\n",
    )


def test_everything_else_goes_to_the_command_line_interface() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "--help"], env=environment, capture_output=True, text=True, check=True
    )
    assert "serve" in done.stdout


def test_the_launcher_finds_its_package_by_itself() -> None:
    """Nothing but its own path says where; here with the site packages, the other tests go without."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(LAUNCHER), "--cas", "x"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert done.stderr == "ostiary run: --service is missing; give it, or set SCONE_CONFIG_ID\n"
