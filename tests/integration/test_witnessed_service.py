"""`ostiary serve` watched by three witnesses, all of them processes: what is refused, and what is survived."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.processes import OSTIARY, TIMEOUT_SECONDS, serve_process
from tests.simulators.witnesses import LOG, ORIGIN, WitnessProcess

from ostiary.audit.note import parse_verifier_key

EXIT_FAILED, EXIT_TAMPERED, EXIT_REFUSED = 1, 65, 77


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[list[WitnessProcess]]:
    made = [WitnessProcess(tmp_path, name, LOG) for name in ("w1", "w2", "w3")]
    yield made
    for witness in made:
        witness.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data directory."""
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    return directory


def options(witnesses: list[WitnessProcess], *, quorum: int = 2, origin: str = ORIGIN) -> tuple[str, ...]:
    trust = witnesses[0].directory / "trust.pem"
    trust.write_text("".join(one.certificate for one in witnesses))
    named = [word for one in witnesses for word in ("--witness", f"{one.url} {one.key}")]
    settings = ("--freshness", "witness", "--log-origin", origin, "--witness-quorum", str(quorum))
    return (*settings, "--witness-ca", str(trust), *named)


def refused(data: Path, *settings: str) -> tuple[int, str]:
    listen = ("--client", "127.0.0.1:0", "--enclave", "127.0.0.1:0")
    done = subprocess.run(
        [*OSTIARY, "serve", "--data", str(data), *listen, *settings],
        capture_output=True, check=False, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    return done.returncode, done.stderr.decode()


def test_a_service_is_told_its_logs_key_then_watched(data: Path, witnesses: list[WitnessProcess]) -> None:
    """The first start names the key to give to witnesses; then one may be down, two may not, and no copy passes."""
    settings = options(witnesses)
    code, said = refused(data, *settings)
    assert code == EXIT_FAILED
    assert f"which must know the log as {ORIGIN}+" in said
    key = next(word.rstrip(":") for word in said.split() if word.startswith(f"{ORIGIN}+"))
    for witness in witnesses:
        witness.retell(parse_verifier_key(key))
    with serve_process(data, *settings):
        pass
    shutil.copy(data / "records.sqlite", data.parent / "old")
    witnesses[0].kill()
    with serve_process(data, *settings):
        pass
    witnesses[1].kill()
    code, said = refused(data, *settings)
    assert (code, "1 cosigned" in said and "does not answer" in said) == (EXIT_FAILED, True)
    for witness in witnesses[:2]:
        witness.start()
    with serve_process(data, *settings):
        pass
    shutil.copy(data.parent / "old", data / "records.sqlite")
    code, said = refused(data, *settings)
    assert (code, "remembers a longer log" in said) == (EXIT_TAMPERED, True)
    code, said = refused(data)
    assert (code, "found no anchor" in said) == (EXIT_REFUSED, True)


def test_a_quorum_that_is_none_is_refused_before_anything_is_touched(
    data: Path, witnesses: list[WitnessProcess]
) -> None:
    code, said = refused(data, *options(witnesses, quorum=1))
    assert (code, "two quorums must have a witness in common" in said) == (64, True)
    assert not list(data.iterdir())
