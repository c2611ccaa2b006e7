"""`ostiary tpm`: the four steps as commands, the files between them, and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.chains import Holder, issue
from tests.simulators.quoting_tpm import define, running_tpm
from tests.simulators.tpm_maker import certify, ek_spki, pem
from typer.testing import CliRunner

from ostiary.attester.tpm_enrolment import EK_KINDS
from ostiary.cli.tpm import MAX_FILE_BYTES, app
from ostiary.errors import ConfigurationError, EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.tpm.verify import pinned_ak

NOW = datetime.now(UTC)
FROM, TO = NOW - timedelta(days=1), NOW + timedelta(days=1)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A TPM at `path`, which its maker certified, and `directory`, where the owner has the maker's root.pem."""

    path: str
    directory: Path
    maker: Holder
    sha256: str

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def offer(self) -> Path:
        return self.file("offer.json", run("offer", "--tpm", self.path)[1])

    def challenge(self, keep: str = "kept.json") -> tuple[Path, Path]:
        kept = self.directory / keep
        out = run("challenge", self.offer(), "--ek-root", self.directory / "root.pem", "--keep", kept)[1]
        return self.file("challenge.json", out), kept

    def answer(self, challenge: Path) -> Path:
        return self.file("answer.json", run("answer", challenge, "--tpm", self.path)[1])


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Holder, str]]:
    maker = issue("TPM maker", start=FROM, end=TO)
    with running_tpm(tmp_path_factory.mktemp("tpm")) as path:
        certificate = certify(ek_spki(path, "rsa"), maker, start=FROM, end=TO)
        define(path, EK_KINDS["rsa"].certificate_index, certificate.public_bytes(Encoding.DER))
        yield path, maker, certificate.fingerprint(hashes.SHA256()).hex()


@pytest.fixture
def machine(tpm: tuple[str, Holder, str], tmp_path: Path) -> Machine:
    path, maker, sha256 = tpm
    (tmp_path / "root.pem").write_bytes(maker.pem)
    return Machine(path=path, directory=tmp_path, maker=maker, sha256=sha256)


def test_four_steps_lead_to_a_key_that_can_be_pinned(machine: Machine) -> None:
    challenge, kept = machine.challenge()
    assert kept.stat().st_mode & 0o777 == 0o600
    code, out, err = run("accept", machine.answer(challenge), "--kept", kept)
    assert code == 0
    assert pinned_ak(out.encode())
    assert f"accepted        a key in the TPM of EK certificate {machine.sha256}" in err
    assert not kept.exists()


def test_both_sides_see_which_tpm_it_is(machine: Machine) -> None:
    """What the maker wrote into the certificate does not reach the terminal as it is."""
    code, out, err = run("offer", "--tpm", machine.path)
    shown = (
        f"EK certificate  {machine.sha256}\n"
        "serial number   abcdef\n"
        "issuer          CN=TPM maker\n"
        "manufacturer    id:4F535459\n"
        "model           gate\\x1b[2J\n"
        "version         id:00010002\n"
    )
    assert (code, err) == (0, shown)
    offer = machine.file("offer.json", out)
    root, kept = machine.directory / "root.pem", machine.directory / "kept.json"
    assert run("challenge", offer, "--ek-root", root, "--keep", kept)[2] == shown


def test_a_challenge_is_accepted_once(machine: Machine) -> None:
    challenge, kept = machine.challenge()
    answer = machine.answer(challenge)
    run("accept", answer, "--kept", kept)
    with pytest.raises(ConfigurationError, match=r"kept\.json: No such file or directory"):
        run("accept", answer, "--kept", kept)


def test_a_challenge_that_is_under_way_is_not_overwritten(machine: Machine) -> None:
    _, kept = machine.challenge()
    before = kept.read_bytes()
    with pytest.raises(ConfigurationError, match=r"kept\.json is there already, expected a new file: name another one"):
        machine.challenge()
    assert kept.read_bytes() == before


def test_the_answer_to_another_challenge_changes_nothing(machine: Machine) -> None:
    answer = machine.answer(machine.challenge("first.json")[0])
    _, kept = machine.challenge("second.json")
    with pytest.raises(EvidenceRefusedError, match="this is the answer to another challenge"):
        run("accept", answer, "--kept", kept)
    assert kept.exists()


def test_a_note_that_cannot_be_removed_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge, kept = machine.challenge()
    answer = machine.answer(challenge)

    def keep(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    # Root may remove any file; everybody else is told so by the kernel.
    monkeypatch.setattr(Path, "unlink", keep)
    code, out, err = run("accept", answer, "--kept", kept)
    assert code == 0
    assert pinned_ak(out.encode())
    assert "kept.json, which nobody needs any more: Permission denied" in err


def test_a_maker_whom_the_owner_did_not_name_is_refused(machine: Machine) -> None:
    stranger = machine.file("stranger.pem", issue("Another maker", start=FROM, end=TO).pem)
    kept = machine.directory / "kept.json"
    with pytest.raises(EvidenceRefusedError, match="does not hold under the roots that were named"):
        run("challenge", machine.offer(), "--ek-root", stranger, "--keep", kept)
    assert not kept.exists()


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER], ids=["PEM", "DER"])
def test_certificates_in_files(machine: Machine, encoding: Encoding) -> None:
    """The EK's own at the machine, those between it and the root at the owner's."""
    middle = issue("TPM maker, 2026", machine.maker, start=FROM, end=TO)
    certificate = certify(ek_spki(machine.path, "ecc"), middle, start=FROM, end=TO)
    ek = machine.file("ek", certificate.public_bytes(encoding))
    offer = machine.file("offer.json", run("offer", "--tpm", machine.path, "--ek-certificate", ek, "--ek", "ecc")[1])
    root = machine.file("root", machine.maker.certificate.public_bytes(encoding))
    issuers = machine.file("middle", middle.certificate.public_bytes(encoding))
    kept = machine.directory / "kept.json"
    code, out, _ = run("challenge", offer, "--ek-root", root, "--certificates", issuers, "--keep", kept)
    assert code == 0
    assert json.loads(out)["ek"] == "ecc"


@pytest.mark.parametrize("content", [b"", b"text", pem(issue("CA").certificate)], ids=["empty", "text", "a CA's"])
def test_a_file_without_the_certificate_of_a_key_is_told_before_the_tpm_is_asked(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "ek.pem").write_bytes(content)
    with pytest.raises(EvidenceFormatError, match="0 certificates that are no CA"):
        run("offer", "--tpm", tmp_path / "none", "--ek-certificate", tmp_path / "ek.pem")


def test_what_is_no_offer_or_too_large_for_one_is_told(machine: Machine) -> None:
    root, kept = machine.directory / "root.pem", machine.directory / "kept.json"
    with pytest.raises(EvidenceFormatError, match="offer: not JSON"):
        run("challenge", root, "--ek-root", root, "--keep", kept)
    large = machine.file("large", bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigurationError, match=f"large has more than {MAX_FILE_BYTES} bytes; this is another file"):
        run("challenge", large, "--ek-root", root, "--keep", kept)
    assert not kept.exists()


def test_a_note_goes_nowhere_where_none_can_be_written(machine: Machine) -> None:
    root, nowhere = machine.directory / "root.pem", machine.directory / "none" / "kept.json"
    with pytest.raises(ConfigurationError, match=r"kept\.json: No such file or directory; choose a place"):
        run("challenge", machine.offer(), "--ek-root", root, "--keep", nowhere)


def test_the_library_that_is_not_installed_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ostiary.evidence.tpm.credential", raising=False)
    monkeypatch.setitem(sys.modules, "tpm2_pytss", None)
    with pytest.raises(ConfigurationError, match=r"needs a library that cannot be loaded.*install ostiary\[tpm\]"):
        machine.challenge()


def test_a_root_is_needed(machine: Machine) -> None:
    code, _, err = run("challenge", machine.offer(), "--keep", machine.directory / "kept.json")
    assert code == 2
    assert "--ek-root" in err
