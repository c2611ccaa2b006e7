"""`ostiary witness` as a process: the protocol over HTTPS, and SIGKILL while it works."""

from __future__ import annotations

import hashlib
import http.client
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.processes import ostiary, start, stop
from tests.simulators.witnesses import LOG, ORIGIN, Log, WitnessProcess

from ostiary.audit.checkpoint import verify_cosignature
from ostiary.audit.note import UnverifiedNote, parse_note, parse_signatures, verify_note
from ostiary.audit.submission import MAX_SUBMISSION_BYTES
from ostiary.errors import OutsideError
from ostiary.https import Answer, trusting
from ostiary.witness.directory import MEMORY_FILE

KILLS = 5
KILL_AFTER_SECONDS = 0.15


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessProcess]:
    process = WitnessProcess(tmp_path, "witness.example", LOG)
    yield process
    process.close()


def last(witness: WitnessProcess) -> bytes:
    return witness.get(f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint").body


def cosigned(witness: WitnessProcess, log: Log, answer: Answer) -> bool:
    note = UnverifiedNote(text=log.submission(0).note.text, signatures=parse_signatures(answer.body.decode()))
    return verify_cosignature(note, witness.key) > 0


def test_the_protocol(witness: WitnessProcess) -> None:
    """Every status that the standard names, and what comes with it."""
    log = Log(leaves=[b"entry 0"])
    answer = witness.post(log.submission(0).encode())
    assert (answer.status, cosigned(witness, log, answer)) == (200, True)
    log.leaves += [b"entry 1", b"entry 2"]
    assert witness.post(log.submission(1).encode()).status == 200
    stale = witness.post(log.submission(0).encode())
    assert (stale.status, stale.body, stale.headers["content-type"]) == (409, b"3\n", "text/x.tlog.size")
    assert witness.post(Log(leaves=[b"x", b"y", b"z"]).submission(3).encode()).status == 422
    assert witness.post(Log(origin="other").submission(0).encode()).status == 404
    forged = log.submission(3).encode().replace(b"\n3\n", b"\n4\n")
    assert witness.post(forged).status == 403
    assert witness.post(b"old 3\n").status == 400
    assert witness.post(log.submission(5).encode()).status == 400
    assert witness.post(b"x" * (MAX_SUBMISSION_BYTES + 1)).status == 413
    note = parse_note(last(witness))
    assert verify_note(note, [LOG])
    assert verify_cosignature(note, witness.key)
    assert note.text.split("\n")[1] == "3"
    assert witness.get("/00/checkpoint").status == 404
    assert witness.get("/add-checkpoint").status == 405
    assert witness.post(b"", path="/elsewhere").status == 404


def test_nothing_cosigned_is_forgotten_when_it_is_killed(witness: WitnessProcess) -> None:
    """It is killed under load, again and again: after each start it knows every size that anyone was told of."""
    log = Log(leaves=[b"entry 0"])
    told = 0
    for _ in range(KILLS):
        timer = threading.Timer(KILL_AFTER_SECONDS, witness.kill)
        timer.start()
        told = grow_until_silent(witness, log, told)
        timer.join()
        witness.start()
        stale = witness.post(log.submission(0, 1).encode())
        assert stale.status == 409
        known = int(stale.body)
        assert told <= known <= len(log.leaves)
        fork = Log(leaves=[*log.leaves[: known - 1], b"other"])
        assert witness.post(fork.submission(known).encode()).status == 422
        told = known
    assert told > KILLS


def grow_until_silent(witness: WitnessProcess, log: Log, old: int) -> int:
    """Add leaves and have each size cosigned until the witness is gone; the last size it cosigned."""
    while True:
        try:
            answer = witness.post(log.submission(old).encode())
        except OutsideError:
            return old
        assert answer.status == 200
        old = len(log.leaves)
        log.leaves.append(b"entry %d" % old)


def test_a_memory_that_fails_is_told_to_the_log_only(witness: WitnessProcess) -> None:
    with sqlite3.connect(witness.directory / witness.name / MEMORY_FILE) as other:
        other.execute("DROP TABLE checkpoints")
    answer = witness.post(Log(leaves=[b"a"]).submission(0).encode())
    assert (answer.status, answer.body) == (500, b"the witness cannot answer now; its log says why\n")
    assert "no such table" in (witness.directory / f"{witness.name}.log").read_text()


def test_a_request_that_ends_early_leaves_the_witness_well(witness: WitnessProcess) -> None:
    host, _, port = witness.url.removeprefix("https://").partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        trusting(witness.certificate).wrap_socket(plain, server_hostname=host) as stream,
    ):
        stream.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 9999\r\n\r\nold 0\n")
    assert witness.post(Log(leaves=[b"a"]).submission(0).encode()).status == 200


def test_behind_a_proxy_it_speaks_plain_http_on_loopback_only(tmp_path: Path) -> None:
    home = tmp_path / "w"
    ostiary("witness", "init", "--name", "w", "--dir", str(home))
    options = ("--dir", str(home), "--log", str(LOG), "--behind-proxy")
    refused = ostiary("witness", "serve", *options, "--listen", "0.0.0.0:0", expect=64)
    assert "--behind-proxy on 0.0.0.0, expected a loopback address" in refused
    process, ready = start("witness", "serve", *options, "--listen", "127.0.0.1:0", log=tmp_path / "w.log")
    connection = http.client.HTTPConnection(ready["address"], timeout=60)
    connection.request("POST", "/add-checkpoint", Log(leaves=[b"a"]).submission(0).encode())
    with connection.getresponse() as response:
        assert (response.status, response.read().startswith("— w ".encode())) == (200, True)
    connection.close()
    assert stop(process) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "expected --tls-certificate and --tls-key, or --behind-proxy"),
        (("--tls-key", "k"), "expected --tls-certificate and --tls-key"),
        (("--tls-key", "k", "--tls-certificate", "c"), "c: No such file or directory"),
        (("--behind-proxy", "--tls-key", "k"), "--behind-proxy and a TLS certificate exclude each other"),
        (("--log", "x"), "--log x"),
        (("--listen", "127.0.0.1:0", "--behind-proxy", "--dir", "nowhere", "--log", str(LOG)), "nowhere"),
        (("--listen", "x"), "--listen"),
    ],
)
def test_options_that_cannot_work_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in ostiary("witness", "serve", *options, expect=64)


def test_a_certificate_needs_its_own_key(tmp_path: Path, witness: WitnessProcess) -> None:
    certificate, key = tmp_path / "witness.example.pem", tmp_path / "k.pem"
    ostiary("witness", "init", "--name", "x", "--dir", str(tmp_path / "x"))
    for content, says in (
        ((tmp_path / "x" / "witness.pem").read_text(), "expected a P-256 or RSA key"),
        ("nothing", "expected certificates, and a private key without a password, in PEM"),
        (other_key(), "is not the key of"),
    ):
        key.write_text(content)
        assert says in ostiary(
            "witness", "serve", "--tls-key", str(key), "--tls-certificate", str(certificate), expect=64
        )


def other_key() -> str:
    from tests.simulators.outside import make_certificate

    return make_certificate()[0]
