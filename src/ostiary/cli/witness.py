"""`ostiary witness`: remember the heads of logs for others, and sign for it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostiary.cli.address import parse_listen_address, show_address
from ostiary.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from OpenSSL import SSL

    from ostiary.audit.note import VerifierKey

app = typer.Typer(
    help="A witness (C2SP tlog-witness): it remembers how far the logs of others have come, so that nobody can turn "
    "their databases back.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Directory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where its key and memory lie.")]
_DIRECTORY = Path("ostiary-witness")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.command()
def init(
    name: Annotated[str, typer.Option("--name", help="Its name in signatures, for example witness.example/w1.")],
    directory: _Directory = _DIRECTORY,
) -> None:
    """Make the key and the empty memory of a witness, and print its verifier key, for those who run the logs.

    The memory must never be put back to an earlier state. If it is lost, so is the witness: make another one.

    Example:

      ostiary witness init --name witness.example/w1
    """
    from ostiary.witness import init_witness

    print(init_witness(directory, name))


@app.command()
def serve(
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="VERIFIER-KEY",
            help="The key of a log to witness; its name is the log's origin. Repeatable.",
        ),
    ] = None,
    directory: _Directory = _DIRECTORY,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes a free one.")
    ] = "0.0.0.0:8443",
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE.pem", help="Its chain, own certificate first.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE.pem", help="The certificate's key, P-256 or RSA.")
    ] = None,
    behind_proxy: Annotated[
        bool,
        typer.Option("--behind-proxy", help="Plain HTTP on a loopback address, for a proxy that does TLS and limits."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, print address and verifier key as one JSON object.")
    ] = False,
) -> None:
    """Answer POST /add-checkpoint for the named logs, and GET /HASH/checkpoint for whoever looks after them.

    Every head is durable before its cosignature leaves; the process may be killed at any time. When the owner of a log
    accepts a rollback, the log goes on under another name: put the new verifier key in place of the old one.

    Examples:

      ostiary witness serve --tls-certificate w.pem --tls-key w.key --log cas.example/log+fe1e89aa+AZsf...

      ostiary witness serve --behind-proxy --listen 127.0.0.1:8080 --log cas.example/log+...
    """
    host, port = parse_listen_address(listen, "--listen")
    keys = [_log_key(text) for text in log or []]
    context = _context(tls_certificate, tls_key, host, behind_proxy=behind_proxy)

    import asyncio
    import signal

    from ostiary.server.listen import Listener, bind
    from ostiary.server.listen import serve as answer
    from ostiary.server.witness_api import witness_api
    from ostiary.witness import open_witness

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    witness = open_witness(directory, keys, now=lambda: datetime.now(UTC))
    try:
        listener = Listener(app=witness_api(witness), socket=bind(host, port), context=context)
        address = show_address(*listener.socket.getsockname()[:2])

        async def run() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            logging.getLogger("ostiary.witness").info(
                "%s listens on %s for %s", witness.verifier_key, address, ", ".join(sorted(witness.logs))
            )
            if as_json:
                print(json.dumps({"address": address, "key": str(witness.verifier_key)}), flush=True)
            await answer([listener], stop)

        asyncio.run(run())
    finally:
        witness.close()


def _log_key(text: str) -> VerifierKey:
    from ostiary.audit.note import parse_verifier_key

    try:
        return parse_verifier_key(text)
    except InputError as error:
        raise ConfigurationError(f"--log {text[:80]}", *error.chain) from error


def _context(certificate: Path | None, key: Path | None, host: str, *, behind_proxy: bool) -> SSL.Context | None:
    if behind_proxy:
        if certificate or key:
            raise ConfigurationError("--behind-proxy and a TLS certificate exclude each other: the proxy has it")
        if host not in _LOOPBACK:
            raise ConfigurationError(
                f"--behind-proxy on {host}, expected a loopback address: plain HTTP is for a proxy"
            )
        return None
    if certificate is None or key is None:
        raise ConfigurationError(
            "expected --tls-certificate and --tls-key, or --behind-proxy", "logs come over HTTPS only"
        )
    return _tls(certificate, key)


def _tls(certificate: Path, key: Path) -> SSL.Context:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from OpenSSL import SSL

    from ostiary.server.tls import server_context

    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), None)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{certificate} and {key}: expected certificates, and a private key without a password, in PEM"
        ) from error
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigurationError(f"{key}: expected a P-256 or RSA key")
    try:
        return server_context(private, chain)
    except SSL.Error as error:
        raise ConfigurationError(f"{key} is not the key of {certificate}") from error
