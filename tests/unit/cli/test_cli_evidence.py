"""`ostiary evidence`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.simulators.genuine import VECTORS
from typer.testing import CliRunner

from ostiary.cli.evidence import app
from ostiary.errors import ConfigurationError

SAMPLE = VECTORS / "sgx" / "sgx-dcapqvl-sample"
AT = ["--at", "2025-07-04T10:28:44Z"]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_valid_evidence_as_json() -> None:
    code, out, _ = run("verify", SAMPLE / "quote.bin", "--endorsements", SAMPLE, *AT, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["verdict"], told["tee"], told["reason"]) == ("valid", "sgx", None)
    assert told["tcb_status"] == "ConfigurationAndSWHardeningNeeded"
    assert told["advisories"] == ["INTEL-SA-00289", "INTEL-SA-00615"]
    assert told["claims"]["mrenclave"] == "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"


def test_valid_evidence_for_people() -> None:
    code, out, err = run("verify", SAMPLE / "quote.bin", "--endorsements", SAMPLE, *AT)
    assert code == 0
    assert out.startswith("valid\ntee  sgx\n")
    assert "mrenclave      33d8736db756ed" in out
    assert err == ""


def test_invalid_evidence() -> None:
    late = ["--at", "2030-01-01T00:00:00Z"]
    code, out, _ = run("verify", SAMPLE / "quote.bin", "--endorsements", SAMPLE, *late, "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["verdict"], told["claims"]) == ("invalid", {})
    assert "has run out" in told["reason"]
    code, out, err = run("verify", SAMPLE / "quote.bin", "--endorsements", SAMPLE, *late)
    assert (code, out) == (1, "invalid\n")
    assert "has run out" in err


def test_now_is_the_default_and_a_document_needs_no_endorsements() -> None:
    """Leaf certificates of Nitro live three hours: none of the genuine documents is valid any more."""
    document = VECTORS / "nitro" / "nitro-dstack-2025" / "attestation.cbor"
    code, out, _ = run("verify", document, "--json")
    assert code == 1
    assert "has run out" in json.loads(out)["reason"]
    assert run("verify", document, "--at", "2025-12-25T16:05:19Z")[0] == 0


def test_what_is_shown_is_not_verified() -> None:
    code, out, err = run("show", SAMPLE / "quote.bin")
    assert code == 0
    assert out.startswith("tee  sgx\nquote_version  3\n")
    assert err == "nothing of this is verified: use `ostiary evidence verify`\n"
    code, out, _ = run("show", SAMPLE / "quote.bin", "--json")
    assert (json.loads(out)["tee"], json.loads(out)["fields"]["isvsvn"]) == ("sgx", 0)


def test_a_software_root_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    from tests.simulators.chains import NOW
    from tests.simulators.snp_chip import make_chip

    chip = make_chip()
    (tmp_path / "report.bin").write_bytes(chip.report())
    (tmp_path / "all.pem").write_bytes(chip.endorsements)
    (tmp_path / "root.der").write_bytes(chip.root.der)
    command: list[str | Path] = [
        "verify",
        tmp_path / "report.bin",
        "--endorsements",
        tmp_path,
        "--at",
        NOW.isoformat(),
        "--json",
    ]
    code, out, _ = run(*command)
    assert (code, json.loads(out)["verdict"]) == (1, "invalid")
    assert "does not trust" in json.loads(out)["reason"]
    code, out, _ = run(*command, "--trust-software-root", tmp_path / "root.der")
    assert (code, json.loads(out)["software"], json.loads(out)["debug"]) == (0, True, True)


TPM = VECTORS / "tpm"


def test_a_tpm_quote_is_verified_with_what_lies_beside_it() -> None:
    case = TPM / "tpm-azure-snp-milan"
    at = ["--at", "2025-02-27T16:26:55Z"]
    code, out, _ = run("verify", case / "quote.msg", "--endorsements", case, *at, "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["tee"]) == (0, "valid", "tpm")
    assert told["claims"]["nonce"] == b"challenge".hex()
    assert told["claims"]["hcl_claims_bind_to_report"] is True
    code, out, _ = run("show", case / "quote.msg", "--json")
    assert json.loads(out)["fields"]["pcr_bank"] == "sha256"


def test_a_root_of_tpms_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    case = TPM / "tpm-fraunhofer-akcert"
    for name in ("quote.sig", "ak_cert.der", "ca.der"):
        (tmp_path / name).write_bytes((case / name).read_bytes())
    command: list[str | Path] = ["verify", case / "quote.msg", "--endorsements", tmp_path]
    command += ["--at", "2023-01-01T00:00:00Z", "--json"]
    code, out, _ = run(*command)
    assert (code, json.loads(out)["verdict"]) == (1, "invalid")
    assert "does not trust" in json.loads(out)["reason"]
    code, out, _ = run(*command, "--trust-root", case / "ca.der")
    assert (code, json.loads(out)["claims"]["ak_trust"]) == (0, "certificate")
    assert json.loads(out)["software"] is False


def test_the_signature_belongs_to_the_quote_by_its_name() -> None:
    case = TPM / "tpm-gcp-cos-nonce"
    at = ["--at", "2021-12-22T21:00:00Z"]
    code, out, _ = run("verify", case / "quote_sha384.msg", "--endorsements", case, *at, "--json")
    assert (code, json.loads(out)["claims"]["pcr_bank"]) == (0, "sha384")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify", "nonesuch"], "nonesuch: No such file or directory"),
        (["verify", SAMPLE / "quote.bin", "--endorsements", "nonesuch"], "nonesuch: No such file or directory; give"),
        (["verify", SAMPLE / "quote.bin", "--at", "soon"], "--at 'soon' is no instant; write it as 2026"),
        (["verify", SAMPLE / "quote.bin", "--at", "2026-01-01T00:00:00"], "has no time zone; add Z for UTC"),
        (
            ["verify", SAMPLE / "quote.bin", "--trust-software-root", SAMPLE / "quote.bin"],
            "--trust-software-root .*quote.bin: no root can be read: the root is not a certificate",
        ),
    ],
)
def test_wrong_usage_is_said(arguments: list[str | Path], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        run(*arguments)


@pytest.mark.parametrize(
    ("evidence", "says"),
    [
        ("sgx/sgx-signal-svr2-2026/quote.bin", "expected one with Intel's collateral for this platform"),
        ("tdx/tdx-dcapqvl-sample/quote.bin", "expected one with Intel's collateral for this platform"),
        ("snp/snp-dstack-2026/report.bin", "expected one with the VCEK or VLEK certificate"),
        ("maa/maa-sgx-sharedeus/token.jwt", "expected one with the key set of the attestation service"),
    ],
)
def test_who_gives_no_endorsements_is_told_which_are_needed(evidence: str, says: str) -> None:
    code, out, err = run("verify", VECTORS / evidence)
    assert (code, out) == (1, "invalid\n")
    assert says in err


@pytest.mark.parametrize("evidence", ["nitro/nitro-dstack-2025/attestation.cbor", "sgx/MANIFEST.json"])
def test_what_needs_no_endorsements_or_is_no_evidence_asks_for_none(evidence: str) -> None:
    code, out, err = run("verify", VECTORS / evidence)
    assert (code, out) == (1, "invalid\n")
    assert "--endorsements" not in err


def test_files_that_are_too_large_or_too_many_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.cli.evidence.MAX_FILE_BYTES", 10)
    with pytest.raises(ConfigurationError, match="has more than 10 bytes; this cannot be evidence"):
        run("show", SAMPLE / "quote.bin")
    monkeypatch.undo()
    monkeypatch.setattr("ostiary.cli.evidence.MAX_FILES", 1)
    for name in "abc":
        (tmp_path / name).write_text(name)
    with pytest.raises(ConfigurationError, match="has 2 files, expected at most 1"):
        run("verify", tmp_path / "a", "--endorsements", tmp_path)
