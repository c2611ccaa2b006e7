"""From the options that name a CAS and an identity to a client of it."""

from __future__ import annotations

import hmac
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ostiary.cli.arguments import Arguments, Option, UsageError
from ostiary.cli.configuration import KnownCas
from ostiary.cli.identity import Identity, key_hash, parse_identity
from ostiary.cli.terminal import Terminal
from ostiary.client import DEFAULT_RETRIES, Address, Client, parse_address
from ostiary.errors import ConfigurationError
from ostiary.session.base58 import decode_key_hash

UNVERIFIED = "--only_for_testing-disable-attestation-verification"
MAX_RETRIES = 1000
RETRIES_VARIABLE = "SCONE_CLI_RETRIES"

CAS = Option(
    flags=("-c", "--cas"),
    attribute="cas",
    metavar="CAS",
    help="The CAS: a name from `cas list`, or HOST[:PORT], or https://HOST[:PORT]. Default: the default CAS.",
)
CAS_CA = Option(
    flags=("--cas-ca",),
    attribute="cas_ca",
    metavar="FILE",
    help="The CAS must have this certificate (cas-ca.pem of `ostiary serve`), or one that it signed.",
)
IDENTITY = Option(
    flags=("--identity",),
    attribute="identity",
    metavar="FILE",
    help="Private key (PKCS#8) and certificate to use in place of those in the configuration, PEM in one file.",
)
RETRIES = Option(
    flags=("--retries",),
    attribute="retries",
    metavar="COUNT",
    help=f"Tries after a network failure, 0 for none. Default: {RETRIES_VARIABLE}, else {DEFAULT_RETRIES}.",
)
NOT_VERIFIED = Option(
    flags=(UNVERIFIED,),
    attribute="unverified",
    help="Talk to any server at that address. Whoever is on the way can read and change everything.",
)
CONNECTION = (CAS, CAS_CA, IDENTITY, NOT_VERIFIED, RETRIES)


def connect(arguments: Arguments, terminal: Terminal, *, identity: Identity | None = None) -> Client:
    """A client of the CAS that the options name. The service is known by a certificate, or by nothing if so asked.

    identity: who we are to it, if that is not `own_identity`.

    Raises ConfigurationError: no CAS is named, nothing says how to know it, a file cannot be used. Raises UsageError.
    """
    if arguments.unverified and arguments.cas_ca is not None:
        raise UsageError(f"--cas-ca and {UNVERIFIED} contradict each other; give one of them")
    address, entry = _find(arguments, terminal)
    anchors = None if arguments.unverified else _anchors(arguments, address, entry)
    if anchors is None:
        terminal.warn(f"CAS {address.authority} is not authenticated; do not trust what it says, nor send it secrets")
    wanted = arguments.value("cas_key")
    if wanted is not None:
        anchors = _of_key(wanted, anchors)
    return Client(
        address,
        anchors=anchors,
        identity=(identity or own_identity(arguments, terminal)).pem,
        retries=_retries(arguments, terminal),
    )


def own_identity(arguments: Arguments, terminal: Terminal) -> Identity:
    """The identity that `--identity` names, else the one in the configuration. Raises ConfigurationError."""
    if arguments.identity is None:
        return terminal.configuration.identity()
    return parse_identity(read_text(arguments.identity, "--identity"), f"--identity {arguments.identity}")


def find_known(name: str | None, known: tuple[KnownCas, ...]) -> KnownCas | None:
    """The entry of that name, or of that address; without a name the default."""
    if name is None:
        return next((entry for entry in known if entry.is_default), None)
    named = next((entry for entry in known if entry.name == name), None)
    return named or next((entry for entry in known if _same_address(entry, name)), None)


def read_text(file: str, option: str) -> str:
    """The text of a small file that an option names. Raises ConfigurationError."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{option} {file}: {error.strerror}") from error
    except ValueError:
        raise ConfigurationError(f"{option} {file}: it is no text in UTF-8") from None


def read_certificates(file: str) -> str:
    """The text of the file of `--cas-ca`, one or more certificates in PEM. Raises ConfigurationError."""
    text = read_text(file, "--cas-ca")
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ConfigurationError(
            f"--cas-ca {file}: no PEM certificate can be read", "give the cas-ca.pem that `ostiary serve` wrote"
        ) from None
    return text


def _find(arguments: Arguments, terminal: Terminal) -> tuple[Address, KnownCas | None]:
    entry = find_known(arguments.cas, terminal.configuration.known())
    if entry is not None:
        return parse_address(entry.url), entry
    if arguments.cas is None:
        raise ConfigurationError(
            "no CAS is named", f"there is no default CAS in {terminal.configuration.path}; give --cas HOST[:PORT]"
        )
    return parse_address(arguments.cas), None


def _same_address(entry: KnownCas, text: str) -> bool:
    try:
        return parse_address(entry.url) == parse_address(text)
    except ConfigurationError:
        return False


def _anchors(arguments: Arguments, address: Address, entry: KnownCas | None) -> str:
    if arguments.cas_ca is not None:
        return read_certificates(arguments.cas_ca)
    if entry is not None and entry.chain:
        return _root(entry)
    raise ConfigurationError(
        f"CAS {address.authority} was not attested, so nothing says who answers there",
        "give --cas-ca FILE with the certificate that `ostiary serve` wrote (cas-ca.pem)",
        f"only for tests: {UNVERIFIED}",
    )


def _root(entry: KnownCas) -> str:
    """The last certificate of the chain, the CAS key: what the first ones are worth is for it to say."""
    try:
        return x509.load_pem_x509_certificates(entry.chain.encode())[-1].public_bytes(Encoding.PEM).decode()
    except ValueError:
        raise ConfigurationError(f"the chain of cas_db entry {entry.name!r} is no PEM certificate") from None


def _of_key(wanted: str, anchors: str | None) -> str:
    """The one certificate that is compared with the wanted key: others in the same file must not vouch for the CAS."""
    if anchors is None:
        raise UsageError(f"--cas-key needs a certificate to compare with; it cannot go with {UNVERIFIED}")
    try:
        expected = decode_key_hash(wanted)
    except ValueError as error:
        raise UsageError(f"--cas-key {wanted}: expected a key hash, but {error}") from None
    if not hmac.compare_digest(expected, decode_key_hash(key_hash(anchors))):
        raise ConfigurationError("the CAS has another key than --cas-key says; ask its owner for the right one")
    return x509.load_pem_x509_certificates(anchors.encode())[0].public_bytes(Encoding.PEM).decode()


def _retries(arguments: Arguments, terminal: Terminal) -> int:
    text = arguments.retries if arguments.retries is not None else terminal.environment.get(RETRIES_VARIABLE)
    if text is None or not text:
        return DEFAULT_RETRIES
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > MAX_RETRIES:
        where = "--retries" if arguments.retries is not None else RETRIES_VARIABLE
        raise UsageError(f"{where} {text}: expected a number from 0 to {MAX_RETRIES}")
    return int(text)
