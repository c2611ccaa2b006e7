"""`cas`: the services in our configuration."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.configuration import KnownCas
from ostiary.cli.connection import CAS_CA, IDENTITY, NOT_VERIFIED, RETRIES, connect, find_known
from ostiary.cli.identity import key_hash
from ostiary.cli.terminal import Terminal
from ostiary.errors import ConfigurationError


def _list(_arguments: Arguments, terminal: Terminal) -> Outcome:
    lines = [f"{'*' if cas.is_default else ' '} {cas.name}: {cas.url}\n" for cas in terminal.configuration.known()]
    return Outcome(stdout="".join(lines))


def _set_default(arguments: Arguments, terminal: Terminal) -> Outcome:
    wanted = arguments.words[0]
    cas = find_known(wanted, terminal.configuration.known())
    terminal.configuration.set_default(wanted if cas is None else cas.name)
    return Outcome(stdout="")


def _show_certificate(arguments: Arguments, terminal: Terminal) -> Outcome:
    chain = _known(arguments, terminal).chain
    return Outcome(stdout=chain if chain.endswith("\n") else f"{chain}\n")


def _show_identification(arguments: Arguments, terminal: Terminal) -> Outcome:
    given = [option.attribute for option in _IDENTIFICATIONS if getattr(arguments, option.attribute)]
    if len(given) > 1:
        raise UsageError("these options each ask for one value; give one of them")
    wanted = given[0] if given else "certificate_chain"
    if wanted == "session_encryption_key":
        arguments.cas = arguments.words[0] if arguments.words else None
        return Outcome(stdout=f"{connect(arguments, terminal).session_encryption_key().hex()}\n")
    if wanted == "certificate_chain":
        return _show_certificate(arguments, terminal)
    certificate = _certificate(_known(arguments, terminal), of_software=wanted.startswith("cas_software"))
    return Outcome(stdout=f"{key_hash(certificate)}\n" if wanted.endswith("hash") else certificate)


def _certificate(cas: KnownCas, *, of_software: bool) -> str:
    """The last certificate of the chain is that of the CAS key, the one before it that of the software key."""
    try:
        chain = x509.load_pem_x509_certificates(cas.chain.encode())
    except ValueError:
        raise ConfigurationError(f"the chain of cas_db entry {cas.name!r} is no PEM certificate") from None
    if of_software and len(chain) == 1:
        raise ConfigurationError(f"the configuration has no certificate of the software key of CAS {cas.name!r}")
    return chain[-2 if of_software else -1].public_bytes(Encoding.PEM).decode()


def _known(arguments: Arguments, terminal: Terminal) -> KnownCas:
    """The entry that is named, or the default, which must have a certificate. Raises ConfigurationError."""
    wanted = arguments.words[0] if arguments.words else None
    cas = find_known(wanted, terminal.configuration.known())
    if cas is None:
        shown = "there is no default CAS" if wanted is None else f"CAS {wanted!r} is not known"
        raise ConfigurationError(shown, "`ostiary serve` writes the certificate of its service to cas-ca.pem")
    if not cas.chain:
        raise ConfigurationError(f"the configuration has no certificate of CAS {cas.name!r}")
    return cas


_IDENTIFICATIONS = (
    Option(flags=("-c", "--cas-key-hash"), attribute="cas_key_hash", help="The hash of the CAS key."),
    Option(flags=("-C", "--cas-certificate"), attribute="cas_certificate", help="The certificate of the CAS key."),
    Option(
        flags=("-s", "--cas-software-key-hash"),
        attribute="cas_software_key_hash",
        help="The hash of the CAS software key.",
    ),
    Option(
        flags=("-S", "--cas-software-certificate"),
        attribute="cas_software_certificate",
        help="The certificate of the CAS software key.",
    ),
    Option(
        flags=("--session-encryption-key",),
        attribute="session_encryption_key",
        help="The key for which `session encrypt` encrypts, 64 hex digits. The CAS is asked for it.",
    ),
    Option(
        flags=("-T", "--certificate-chain"),
        attribute="certificate_chain",
        help="The certificate chain, PEM, the root last. The default.",
    ),
)

COMMANDS = (
    Command(
        words=("cas", "list"),
        summary="Print the services that we know, one a line; * marks the default.",
        run=_list,
        failing="Listing the services failed",
        examples=("cas list",),
    ),
    Command(
        words=("cas", "set-default"),
        summary="Make a service that we know the default.",
        run=_set_default,
        failing="Setting the default CAS failed",
        positionals=("CAS",),
        examples=("cas set-default cas.example.com",),
    ),
    Command(
        words=("cas", "show-certificate"),
        summary="Print the certificate chain of a service that we know, PEM, the root last.",
        run=_show_certificate,
        failing="Showing the certificate failed",
        positionals=("[CAS]",),
        examples=("cas show-certificate cas.example.com > chain.pem",),
    ),
    Command(
        words=("cas", "show-identification"),
        summary="Print one value by which a service that we know is told from others.",
        run=_show_identification,
        failing="Showing the identification failed",
        positionals=("[CAS]",),
        options=(*_IDENTIFICATIONS, CAS_CA, IDENTITY, NOT_VERIFIED, RETRIES),
        details=(
            "Certificates and hashes come from our configuration. The session encryption key comes from the CAS, over "
            "a connection whose server is known by its certificate; the other options are for that."
        ),
        examples=("cas show-identification --cas-key-hash", "cas show-identification --session-encryption-key"),
    ),
)
