"""`ostiary evidence`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostiary.cli.root_file import MADE_BY_PLATFORM, read_root
from ostiary.errors import ConfigurationError, EvidenceFormatError, EvidenceRefusedError

if TYPE_CHECKING:
    from ostiary.evidence.claims import Claims

app = typer.Typer(no_args_is_help=True, help="Look at evidence in files, and verify it, without a service.")

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_FILES = 64
EXIT_INVALID = 1

_File = Annotated[Path, typer.Argument(metavar="FILE", help="A quote, report, document or token.")]


@app.command()
def show(
    file: _File,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object: `tee` and `fields`.")] = False,
) -> None:
    """Print every field of evidence of any TEE. Verifies nothing: anybody can write such a file.

    Examples:

      ostiary evidence show quote.bin

      ostiary evidence show --json attestation.cbor | jq -r .fields.pcr0
    """
    from ostiary.evidence.offline import show as fields_of

    kind, fields = fields_of(_read(file))
    if as_json:
        print(json.dumps({"tee": kind, "fields": fields}))
        return
    print(f"tee  {kind}")
    _print_fields(fields)
    print("nothing of this is verified: use `ostiary evidence verify`", file=sys.stderr)


@app.command()
def verify(
    file: _File,
    endorsements: Annotated[
        Path | None,
        typer.Option(
            "--endorsements",
            metavar="DIR",
            help="Where certificates, collateral.json, a key set, or the parts of a TPM's evidence lie.",
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Judge as of this instant, RFC 3339; else now.")
    ] = None,
    trust_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust-software-root", metavar="FILE", help="Accept also what is made under this root; may be repeated."
        ),
    ] = None,
    trust_ak_root: Annotated[
        list[Path] | None,
        typer.Option("--trust-root", metavar="FILE", help="A root of certificates of TPMs' keys; may be repeated."),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="URL", help="Of a token: who must have issued it.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object: `verdict`, `claims`, `reason` and more.")
    ] = False,
) -> None:
    """Say whether evidence is authentic: signed by its vendor's hardware, with certificates in force and not revoked.

    Authentic is not acceptable: a session decides about measurements, debug mode and TCB status. The vendors' roots are
    built in; certificates in DIR are used, never trusted for themselves. The keys of an attestation service in DIR are
    trusted: take them from that service. So is a TPM's key in DIR/ak_pub.pem: take it from that machine.

    Exit codes: 0 valid, 1 invalid, 64 wrong usage or a file that cannot be read.

    Examples:

      ostiary evidence verify quote.bin --endorsements collateral/

      ostiary evidence verify report.bin --endorsements . --at 2026-07-17T01:05:04Z --json

      ostiary evidence verify quote.msg --endorsements . --trust-root tpm-maker.pem
    """
    from ostiary.evidence.offline import verify_files
    from ostiary.evidence.roots import ak_root, amd_roots, google_tpm_roots, intel_root, nitro_root, software_root

    data, files, now = _read(file), _read_all(endorsements, file), _instant(at)
    own = [
        read_root(path, "--trust-software-root", software_root, next_step=MADE_BY_PLATFORM) for path in trust_root or ()
    ]
    roots = [intel_root(), *amd_roots(), nitro_root(), *own]
    step = "give the certificate of whoever certifies the TPMs' keys"
    named = [read_root(path, "--trust-root", ak_root, next_step=step) for path in trust_ak_root or ()]
    ak_roots = [*google_tpm_roots(), *named, *own]
    try:
        finding = verify_files(data, files, roots=roots, issuer=issuer, now=now, name=file.name, ak_roots=ak_roots)
    except (EvidenceFormatError, EvidenceRefusedError) as error:
        if as_json:
            print(json.dumps({"verdict": "invalid", "claims": {}, "reason": str(error)}))
        else:
            print("invalid")
            print(error, file=sys.stderr)
            if endorsements is None and (missing := _needs(data)):
                print(f"no --endorsements DIR was given; expected one with {missing}", file=sys.stderr)
        raise typer.Exit(EXIT_INVALID) from None
    judged = {} if finding.claims is None else _judged(finding.claims)
    if as_json:
        told = {"verdict": "valid", "tee": finding.kind, **judged, "claims": finding.fields, "reason": None}
        print(json.dumps(told))
        return
    print("valid")
    print(f"tee  {finding.kind}")
    _print_fields({**judged, **finding.fields})


@app.command("tpm-ak")
def tpm_ak(
    device: Annotated[
        Path | None, typer.Option("--tpm", metavar="DEVICE", help="The TPM; default: /dev/tpmrm0.")
    ] = None,
) -> None:
    """Print the attestation key of this machine's TPM, in PEM, for `ostiary serve --trust-tpm-ak`.

    Whoever prints it has to be sure that it is this machine's: nothing in the key says so. It takes the right to use
    the TPM. Exit codes: 0, 69 if no TPM answers.

    Examples:

      ostiary evidence tpm-ak > web-1.ak.pem
    """
    from binascii import a2b_base64

    from ostiary.attester.tpm import DEVICE, TpmAttester
    from ostiary.evidence.tpm.layout import parse_public_area, pem_of_key

    made = TpmAttester(str(device or DEVICE), pcrs=(0,)).attest(bytes(64), None)
    area = a2b_base64(json.loads(made.evidence)["ak_public"])
    print(pem_of_key(parse_public_area(area)), end="")


def _needs(data: bytes) -> str:
    """What evidence of this kind is verified with, beside the vendor's root; empty if nothing or if nobody knows."""
    from ostiary.evidence.offline import detect

    collateral = "Intel's collateral for this platform in one JSON file"
    try:
        return {
            "sgx": collateral,
            "tdx": collateral,
            "snp": "the VCEK or VLEK certificate and AMD's chain, PEM or DER",
            "maa": "the key set of the attestation service, JSON",
        }.get(detect(data), "")
    except EvidenceFormatError:
        return ""


def _judged(claims: Claims) -> dict[str, object]:
    return {
        "tcb_status": claims.tcb_status,
        "advisories": sorted(claims.advisories),
        "tcb_date": None if claims.tcb_date is None else claims.tcb_date.astimezone(UTC).isoformat(),
        "debug": claims.debug,
        "conditions": sorted(claims.conditions),
        "software": claims.software,
    }


def _print_fields(fields: Mapping[str, object]) -> None:
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        print(f"{name:{width}}  {printable(text)}")


def printable(text: str) -> str:
    """What a file says, for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def read_file(path: Path, most: int, otherwise: str) -> bytes:
    """A file of at most `most` bytes. Raises ConfigurationError; `otherwise`: what a larger one must be."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    if len(content) > most:
        raise ConfigurationError(f"{path} has more than {most} bytes; {otherwise}")
    return content


def _read(path: Path) -> bytes:
    return read_file(path, MAX_FILE_BYTES, "this cannot be evidence")


def _read_all(directory: Path | None, evidence: Path) -> dict[str, bytes]:
    """The files of a directory, but for the evidence, by name."""
    if directory is None:
        return {}
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file() and not path.samefile(evidence))
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}; give a directory with endorsements") from error
    if len(paths) > MAX_FILES:
        raise ConfigurationError(f"{directory} has {len(paths)} files, expected at most {MAX_FILES} endorsements")
    return {path.name: _read(path) for path in paths}


def _instant(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--at {text!r} is no instant; write it as 2026-07-17T01:05:04Z") from None
    if instant.tzinfo is None:
        raise ConfigurationError(f"--at {text!r} has no time zone; add Z for UTC")
    return instant
