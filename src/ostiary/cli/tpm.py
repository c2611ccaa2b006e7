"""`ostiary tpm`: four steps, by turns on the machine and at the owner's, to an attestation key that may be pinned."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ostiary.cli.evidence import printable, read_file
from ostiary.cli.store.progress import patience
from ostiary.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography import x509

app = typer.Typer(
    no_args_is_help=True,
    help="""Enrol the attestation key of a machine's TPM: prove that it is in a TPM that a maker certified.

    Four steps, each a file: offer (machine), challenge (owner), answer (machine), accept (owner).""",
)

MAX_FILE_BYTES = 1024 * 1024
_MAKES_KEYS = "waiting for the TPM; some take half a minute to make an endorsement key"
_LIBRARY = (
    "ostiary[tpm], and of the system libtss2-esys, libtss2-mu, libtss2-tctildr and libtss2-tcti-device (Debian's names)"
)

_Device = Annotated[
    Path | None, typer.Option("--tpm", metavar="DEVICE", help="The TPM; default: /dev/tpmrm0.", show_default=False)
]


@app.command()
def offer(
    device: _Device = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--ek-certificate",
            metavar="FILE",
            help="The certificate of the endorsement key, PEM or DER, if the TPM does not hold it.",
        ),
    ] = None,
    kind: Annotated[
        Literal["rsa", "ecc"] | None,
        typer.Option("--ek", help="Which endorsement key; default: that with a certificate in the TPM, or rsa."),
    ] = None,
) -> None:
    """On the machine: print what the owner starts from, JSON. Nothing in it is secret, or believed.

    Shows on stderr the SHA-256 of the certificate, by which the owner can tell this machine from others. It takes the
    right to use the TPM. Exit codes: 0; 64 wrong usage or a file that cannot be read; 69 no TPM answers, or it
    holds no certificate.

    Examples:

      ostiary tpm offer > web-1.offer.json

      ostiary tpm offer --ek-certificate web-1.ek.pem > web-1.offer.json
    """
    from ostiary.attester.tpm import DEVICE
    from ostiary.attester.tpm_enrolment import make_offer
    from ostiary.evidence.tpm.endorsement_key import ek_certificate
    from ostiary.evidence.tpm.enrolment import parse_offer

    pem = None if certificate is None else _pem([certificate]).decode("ascii")
    if pem is not None:
        ek_certificate(pem.encode("ascii"))
    with patience(_MAKES_KEYS):
        made = make_offer(str(device or DEVICE), kind=kind, certificate=pem)
    _show_certificate(ek_certificate(parse_offer(made).ek_certificates))
    print(made.decode("ascii"))


@app.command()
def challenge(
    offered: Annotated[Path, typer.Argument(metavar="OFFER", help="What `offer` printed on the machine.")],
    ek_roots: Annotated[
        list[Path],
        typer.Option(
            "--ek-root",
            metavar="FILE",
            help="Root certificate of a maker of TPMs whom you believe, PEM or DER; may be repeated.",
        ),
    ],
    keep: Annotated[
        Path, typer.Option("--keep", metavar="FILE", help="Where to note what `accept` needs; must not exist yet.")
    ],
    certificates: Annotated[
        list[Path] | None,
        typer.Option(
            "--certificates",
            metavar="FILE",
            help="Certificates between the root and the endorsement key's, and revocation lists (PEM; DER, lists "
            "named *.crl); used, not trusted; may be repeated.",
        ),
    ] = None,
) -> None:
    """At the owner's: print a challenge that only the TPM of this offer can answer, JSON.

    Refused (77): an endorsement key that no maker whom you named certified, or an attestation key that may leave its
    TPM. What stderr shows of the TPM is what its maker certified: compare it with what you know of the machine, since
    any TPM of that maker gets this far. Other exit codes: 0; 64 wrong usage, or a file that is not what it should be.

    Example:

      ostiary tpm challenge web-1.offer.json --ek-root maker.pem --keep web-1.kept.json > web-1.challenge.json
    """
    import secrets

    from ostiary.evidence.roots import ek_root
    from ostiary.evidence.tpm.enrolment import make_challenge, parse_offer, pending_text, verify_offer

    try:
        from ostiary.evidence.tpm.credential import make_credential
    except ImportError as error:
        raise ConfigurationError(
            "`ostiary tpm challenge` needs a library that cannot be loaded", str(error), f"install {_LIBRARY}"
        ) from error
    now = datetime.now(UTC)
    verified = verify_offer(
        parse_offer(_read(offered)),
        certificates=_pem(certificates or []),
        roots=[ek_root(_read(path)) for path in ek_roots],
        now=now,
    )
    made, pending = make_challenge(verified, random=secrets.token_bytes, make_credential=make_credential, now=now)
    _create(keep, pending_text(pending))
    _show_certificate(verified.ek_certificate)
    print(made.decode("ascii"))


@app.command()
def answer(
    challenged: Annotated[Path, typer.Argument(metavar="CHALLENGE", help="What `challenge` printed at the owner's.")],
    device: _Device = None,
) -> None:
    """On the machine: print the answer that this TPM gives, JSON.

    Exit codes: 0; 64 not a challenge; 69 no TPM answers, or it refuses; 77 the challenge is for other keys.

    Example:

      ostiary tpm answer web-1.challenge.json > web-1.answer.json
    """
    from ostiary.attester.tpm import DEVICE
    from ostiary.attester.tpm_enrolment import make_answer

    with patience(_MAKES_KEYS):
        made = make_answer(_read(challenged), str(device or DEVICE))
    print(made.decode("ascii"))


@app.command()
def accept(
    answered: Annotated[Path, typer.Argument(metavar="ANSWER", help="What `answer` printed on the machine.")],
    kept: Annotated[Path, typer.Option("--kept", metavar="FILE", help="What `challenge --keep` noted.")],
) -> None:
    """At the owner's: print the attestation key, PEM, for `ostiary serve --trust-tpm-ak`.

    The key is in the TPM whose endorsement key the maker certified, and cannot leave it. Removes FILE: a challenge is
    accepted once. Exit codes: 0; 64 wrong usage, or a file that is not what it should be; 77 not the answer.

    Example:

      ostiary tpm accept web-1.answer.json --kept web-1.kept.json > web-1.ak.pem
    """
    from ostiary.evidence.tpm.enrolment import accept_answer, parse_pending

    pending = parse_pending(_read(kept))
    ak = accept_answer(_read(answered), pending, now=datetime.now(UTC))
    print(ak, end="", flush=True)
    _say("accepted", f"a key in the TPM of EK certificate {pending.ek_certificate_sha256.hex()}")
    try:
        kept.unlink()
    except OSError as error:
        _say("still there", f"{kept}, which nobody needs any more: {error.strerror}")


def _show_certificate(certificate: x509.Certificate) -> None:
    """What tells this TPM from others, for people."""
    from cryptography.hazmat.primitives import hashes

    from ostiary.evidence.tpm.endorsement_key import shown_tpm

    _say("EK certificate", certificate.fingerprint(hashes.SHA256()).hex())
    _say("serial number", f"{certificate.serial_number:x}")
    _say("issuer", certificate.issuer.rfc4514_string())
    for name, value in shown_tpm(certificate).items():
        _say(name, value)


def _say(name: str, value: str) -> None:
    print(f"{name:14}  {printable(value)}", file=sys.stderr)


def _pem(paths: list[Path]) -> bytes:
    """All certificates and revocation lists of some files."""
    from ostiary.evidence.bundle import pem_of

    return pem_of({f"{number:03} {path.name}": _read(path) for number, path in enumerate(paths)})


def _read(path: Path) -> bytes:
    return read_file(path, MAX_FILE_BYTES, "this is another file")


def _create(path: Path, content: bytes) -> None:
    """A new file of mode 0600."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already, expected a new file: name another one") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; choose a place that this process may write to") from error
    with open(descriptor, "wb") as file:
        file.write(content)
