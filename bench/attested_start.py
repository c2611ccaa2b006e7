"""Attested configurations a second next to bare mTLS handshakes a second of the same server, and what a start costs.

    make bench        or        .venv/bin/python bench/attested_start.py [--seconds 5] [--starts 20]

One server process; one client process with eight threads makes the load, on a fresh connection each time:
  handshake   connect, mutual TLS to its end on both sides, close
  configure   the same, and between: challenge, evidence, configuration with a certificate and its key
The two alternate in short rounds, so that a change of the machine's speed meets both. The rates are of the wall clock;
the server's processor time for each operation is printed too, since it does not depend on the client.

Then `/bin/true` and `ostiary run … -- /bin/true` alternate; the difference of the medians is the added time.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate
from tests.simulators.processes import ostiary, platform_process, start_service, stop
from tests.simulators.service import Client, make_client

from ostiary.attester.binding import report_data
from ostiary.platform import Platform, init_platform
from ostiary.platform.directory import Endorsed

MEASUREMENT = bytes(range(32))
CLIENTS = 8
ROUND_SECONDS = 0.5
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

SESSION = """
name: bench
version: "0.3.10"
security:
  attestation:
    tolerate: [debug-mode]
services:
- name: load
  image_name: image
  attestation: {mrenclave: ["%(load)s"]}
  command: server --port 443
  environment: {GREETING: hello, TOKEN: $$SCONE::token$$}
- name: "true"
  attestation: {mrenclave: ["%(true)s"]}
  command: "true"
images:
- name: image
  injection_files:
  - {path: /app/cert.pem, content: "$$SCONE::cert:crt$$"}
  - {path: /app/key.pem, content: "$$SCONE::cert:privatekey$$"}
secrets:
- {name: token, kind: ascii}
- {name: ca_key, kind: private-key}
- {name: ca, kind: x509-ca, private_key: ca_key}
- {name: key, kind: private-key}
- {name: cert, kind: x509, private_key: key, issuer: ca, dns: localhost, endpoint: server}
"""


def spki(certificate: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of a DER certificate."""
    key = load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Load:
    """Operations against one enclave listener."""

    def __init__(self, port: int, client: Client, platform: Platform) -> None:
        self._port = port
        self._context = client.context()
        if client.certificate is None:
            raise ValueError("the load needs a client certificate")
        certificate = load_pem_x509_certificate(client.certificate.read_bytes())
        self._client_spki = spki(certificate.public_bytes(Encoding.DER))
        self._platform = platform
        self._endorsed: Endorsed = platform.endorse(datetime.now(UTC))
        self._endorsements = base64.b64encode(self._endorsed.collateral).decode()
        self._server_spki = b""

    def handshake(self) -> None:
        """One connection; `unwrap` returns when the server has finished its side and answered our goodbye."""
        connection = self._connect()
        connection.connect()
        sock = connection.sock
        if not isinstance(sock, ssl.SSLSocket):
            raise TypeError("not a TLS connection")
        sock.unwrap()
        sock.close()

    def configure(self) -> None:
        """One attested configuration."""
        connection = self._connect()
        connection.connect()
        sock = connection.sock
        if not isinstance(sock, ssl.SSLSocket):
            raise TypeError("not a TLS connection")
        if not self._server_spki:
            self._server_spki = spki(sock.getpeercert(binary_form=True) or b"")
        nonce = bytes.fromhex(self._post(connection, "/v1/challenge", b"")["nonce"])
        bound = report_data(nonce=nonce, client_spki=self._client_spki, server_spki=self._server_spki)
        quote = self._endorsed.quoter.quote(self._platform.enclave(MEASUREMENT), bound)
        request = {
            "service": "bench/load",
            "nonce": nonce.hex(),
            "tee": "sgx",
            "evidence": base64.b64encode(quote).decode(),
            "endorsements": self._endorsements,
        }
        configuration = self._post(connection, "/v1/configure", json.dumps(request).encode())
        if len(configuration["injection_files"]) != 2:
            raise ValueError("not the configuration expected")
        connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=60)

    @staticmethod
    def _post(connection: http.client.HTTPSConnection, path: str, body: bytes) -> dict[str, str]:
        connection.request("POST", path, body)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise ValueError(f"{path}: {response.status} {text!r}")
        members: dict[str, str] = json.loads(text)
        return members


@dataclass
class Tally:
    """What one kind of operation did. seconds: wall clock. server: processor seconds of the server."""

    rates: list[float] = field(default_factory=list)
    count: int = 0
    server: float = 0.0


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def run_round(pool: ThreadPoolExecutor, operation: Callable[[], None], pid: int, tally: Tally) -> None:
    """Repeat the operation for a round, CLIENTS at a time, and add to the tally."""
    before, started = processor_seconds(pid), time.perf_counter()

    def repeat(_: int) -> int:
        count = 0
        while time.perf_counter() - started < ROUND_SECONDS:
            operation()
            count += 1
        return count

    count = sum(pool.map(repeat, range(CLIENTS)))
    tally.rates.append(count / (time.perf_counter() - started))
    tally.count += count
    tally.server += processor_seconds(pid) - before


def rates(load: Load, pid: int, seconds: float) -> None:
    """Measure and print the two rates and their ratios."""
    handshakes, configurations = Tally(), Tally()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for operation in (load.handshake, load.configure):
            run_round(pool, operation, pid, Tally())
        for _ in range(max(1, int(seconds / ROUND_SECONDS))):
            run_round(pool, load.handshake, pid, handshakes)
            run_round(pool, load.configure, pid, configurations)
    ratios = [b / a for a, b in zip(handshakes.rates, configurations.rates, strict=True)]
    bare, whole = (1000 * tally.server / tally.count for tally in (handshakes, configurations))
    print(f"bare mTLS handshakes      {statistics.median(handshakes.rates):8.0f} /s   server {bare:.2f} ms each")
    print(f"attested configurations   {statistics.median(configurations.rates):8.0f} /s   server {whole:.2f} ms each")
    print(
        f"ratio configurations / handshakes: {statistics.median(ratios):.2f} of the wall clock "
        f"({min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} rounds), {bare / whole:.2f} of the server's time"
    )


def milliseconds(command: list[str]) -> float:
    """Wall time of one process from start to end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return 1000 * (time.perf_counter() - started)


def added_time(run: list[str], starts: int) -> None:
    """Measure and print what the launcher adds to /bin/true."""
    milliseconds(run)
    pairs = [(milliseconds(["/bin/true"]), milliseconds(run)) for _ in range(starts)]
    bare, attested = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"/bin/true                 {bare:8.1f} ms")
    print(f"ostiary run /bin/true     {attested:8.1f} ms")
    print(f"added: {attested - bare:.0f} ms (median of {starts} pairs), {attested / bare:.0f} times")


def main() -> None:
    """Start what is measured, measure, stop."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--seconds", type=float, default=5.0, help="for each of the two rates")
    arguments.add_argument("--starts", type=int, default=20, help="pairs of starts")
    options = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ostiary-bench-") as name,
        platform_process(Path(name) / "platform") as signer,
    ):
        directory = Path(name)
        service, served = start_service(directory / "data", "--trust-software-root", signer["root"])
        try:
            client = make_client(directory, "me")
            true = ostiary("measure", "--", "/bin/true").strip()
            session = SESSION % {"load": MEASUREMENT.hex(), "true": true}
            port = int(served["client"].rpartition(":")[2])
            answer = client.request(port, "POST", "/session", session.encode())
            if answer.status != 201:
                raise SystemExit(f"the session was refused: {answer.body}")
            platform = init_platform(directory / "platform", datetime.now(UTC))
            rates(Load(int(served["enclave"].rpartition(":")[2]), client, platform), service.pid, options.seconds)
            run = ("run", "--cas", served["enclave"], "--service", "bench/true", "--platform-socket", signer["socket"])
            added_time(
                [os.path.join(os.path.dirname(sys.executable), "ostiary"), *run, "--", "/bin/true"], options.starts
            )
        finally:
            stop(service)


if __name__ == "__main__":
    main()
