"""`ostiary serve`."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostiary.cli.address import parse_listen_address, show_address
from ostiary.cli.endorsements.options import CaOption, KdsOption, PcsOption, sources_of
from ostiary.cli.root_file import MADE_BY_PLATFORM, read_root
from ostiary.cli.storage_options import StorageOptions, storage_document
from ostiary.errors import ConfigurationError

if TYPE_CHECKING:
    from socket import socket

    from ostiary.broker.cas import Cas
    from ostiary.evidence.roots import TrustedRoot

CA_FILE = "cas-ca.pem"
GC_THRESHOLD = 10_000
"""New objects before the collector looks for cycles; a start makes some hundreds, nearly all without any."""

_STATE: dict[str, Any] = {"rich_help_panel": "State, and what vouches for it"}


def serve(
    data: Annotated[
        Path,
        typer.Option("--data", "--data-dir", metavar="DIR", help="Where the state lies; made at the first start."),
    ] = Path("ostiary-data"),
    client: Annotated[
        str, typer.Option("--client", metavar="HOST:PORT", help="Client API; port 0 takes a free one.")
    ] = "0.0.0.0:8081",
    enclave: Annotated[
        str, typer.Option("--enclave", metavar="HOST:PORT", help="Enclave API; port 0 takes a free one.")
    ] = "0.0.0.0:18765",
    trust_software_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust-software-root",
            metavar="ROOT.pem",
            help="Accept evidence of the software platform with this root; it protects nothing. Repeatable.",
        ),
    ] = None,
    trust_tpm_ak: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust-tpm-ak",
            metavar="AK.pem",
            help="Accept quotes of the TPM with this attestation key, a public key in PEM or DER. Repeatable.",
        ),
    ] = None,
    trust_tpm_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust-tpm-root",
            metavar="ROOT.pem",
            help="Accept quotes of TPMs whose keys this CA has certified; it must certify no other keys. Repeatable.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name", metavar="DNS", help="A DNS name of this service; default: cas and localhost. Repeatable."
        ),
    ] = None,
    azure_directory: Annotated[
        str | None,
        typer.Option(
            "--azure-directory",
            metavar="URL",
            help="Gives tokens for secrets of kind aad-token; default: https://login.microsoftonline.com.",
        ),
    ] = None,
    azure_vaults: Annotated[
        str | None,
        typer.Option(
            "--azure-vaults",
            metavar="DOMAIN[:PORT]",
            help="Key vaults are fetched from below this domain only; default: vault.azure.net.",
        ),
    ] = None,
    azure_ca: Annotated[
        Path | None,
        typer.Option(
            "--azure-ca", metavar="CA.pem", help="Vouches for Azure's servers in place of the system's certificates."
        ),
    ] = None,
    pcs: PcsOption = None,
    kds: KdsOption = None,
    endorsements_ca: CaOption = None,
    endorsements: Annotated[
        Path | None,
        typer.Option(
            "--endorsements",
            metavar="BUNDLE",
            help="Endorsements from `ostiary endorsements`; read at the start and whenever the file changes.",
        ),
    ] = None,
    webhook_host: Annotated[
        list[str] | None,
        typer.Option(
            "--webhook-host",
            metavar="HOST[:PORT]",
            help="Policy boards may have this host told of proposals, by their `notify`; default: none. Repeatable.",
        ),
    ] = None,
    webhook_ca: Annotated[
        Path | None,
        typer.Option(
            "--webhook-ca", metavar="CA.pem", help="Vouches for --webhook-host in place of the system's certificates."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings of the state, TOML; options go before them.", **_STATE),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="A PostgreSQL database, postgresql://…, in place of SQLite in DIR; the password comes from libpq's "
            "places, such as ~/.pgpass.",
            **_STATE,
        ),
    ] = None,
    sealing: Annotated[
        str | None,
        typer.Option(
            "--sealing",
            metavar="KIND",
            help="What keeps the database key: keyfile (default; for development), tpm, gramine or snp.",
            **_STATE,
        ),
    ] = None,
    freshness: Annotated[
        str | None,
        typer.Option(
            "--freshness",
            metavar="KIND",
            help="What remembers how far the history went: none (default), file (for development), witness or tpm.",
            **_STATE,
        ),
    ] = None,
    freshness_mode: Annotated[
        str | None,
        typer.Option(
            "--freshness-mode",
            metavar="MODE",
            help="strict (default): a commit waits for it; bounded:MILLISECONDS: it may be behind by that much.",
            **_STATE,
        ),
    ] = None,
    freshness_file: Annotated[
        Path | None,
        typer.Option("--freshness-file", metavar="FILE", help="file: where, best on another disk.", **_STATE),
    ] = None,
    tpm: Annotated[
        str | None,
        typer.Option("--tpm", metavar="TCTI", help="tpm: where it is. Default: device:/dev/tpmrm0.", **_STATE),
    ] = None,
    tpm_pcrs: Annotated[
        str | None,
        typer.Option("--tpm-pcrs", metavar="LIST", help="--sealing tpm: the PCRs, bank SHA-256. Default: 7.", **_STATE),
    ] = None,
    tpm_index: Annotated[
        str | None,
        typer.Option(
            "--tpm-index", metavar="HANDLE", help="--freshness tpm: the NV index. Default: 0x1804f53.", **_STATE
        ),
    ] = None,
    gramine_identity: Annotated[
        str | None,
        typer.Option(
            "--gramine-identity",
            metavar="KIND",
            help="--sealing gramine: mrenclave (default) or mrsigner may unseal.",
            **_STATE,
        ),
    ] = None,
    snp_vmpl: Annotated[
        int | None,
        typer.Option("--snp-vmpl", metavar="LEVEL", help="--sealing snp: the VMPL to mix in. Default: 0.", **_STATE),
    ] = None,
    log_origin: Annotated[
        str | None,
        typer.Option(
            "--log-origin",
            metavar="NAME",
            help="--freshness witness: the name of our log, such as cas.example/log.",
            **_STATE,
        ),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(
            "--witness",
            metavar="'URL NAME+HASH+KEY'",
            help="--freshness witness: one witness. Repeatable.",
            **_STATE,
        ),
    ] = None,
    witness_ca: Annotated[
        Path | None,
        typer.Option(
            "--witness-ca",
            metavar="FILE",
            help="--witness: PEM certificates that their TLS leads to. Default: the system's.",
            **_STATE,
        ),
    ] = None,
    witness_quorum: Annotated[
        int | None,
        typer.Option("--witness-quorum", metavar="K", help="--freshness witness: how many must cosign.", **_STATE),
    ] = None,
    owner: Annotated[
        Path | None,
        typer.Option(
            "--owner",
            metavar="PUBLIC.pem",
            help="The key that may accept a rollback, P-256 or Ed25519; recorded for ever at the first start with it.",
            **_STATE,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, print addresses and CA file as one JSON object.")
    ] = False,
) -> None:
    """Run the service: client API on 8081, enclave API on 18765, state in ./ostiary-data.

    Without --trust-software-root only evidence of genuine hardware is accepted: SGX, TDX, SEV-SNP, Nitro, and of TPMs
    as far as --trust-tpm-ak and --trust-tpm-root name them. The certificate that clients can pin is written to
    DIR/cas-ca.pem. Vendors are asked for endorsements only where --pcs or --kds names them. Log lines go to stderr.
    SIGTERM or ctrl-C end it in order.

    Examples:

      ostiary serve

      ostiary serve --client 127.0.0.1:8081 --enclave 127.0.0.1:18765 --trust-software-root ostiary-platform/root.pem

      ostiary serve --pcs intel --kds amd

      ostiary serve --pcs https://pccs.example:8081 --endorsements-ca pccs.pem --endorsements bundle.json

      ostiary serve --azure-directory https://login.microsoftonline.us --azure-vaults vault.usgovcloudapi.net

      ostiary serve --sealing tpm --tpm-pcrs 0,7 --freshness tpm

      ostiary serve --webhook-host hooks.example
    """
    client_address = parse_listen_address(client, "--client")
    enclave_address = parse_listen_address(enclave, "--enclave")
    from ostiary.broker.identity import DEFAULT_NAMES
    from ostiary.broker.open import close_cas, open_cas
    from ostiary.broker.storage import parse_storage
    from ostiary.cli.azure import azure_cloud
    from ostiary.cli.webhooks import webhook_hosts
    from ostiary.server.listen import bind

    options = StorageOptions(
        store=store,
        sealing=sealing,
        tpm=tpm,
        tpm_pcrs=tpm_pcrs,
        tpm_index=tpm_index,
        gramine_identity=gramine_identity,
        snp_vmpl=snp_vmpl,
        freshness=freshness,
        freshness_mode=freshness_mode,
        freshness_file=freshness_file,
        log_origin=log_origin,
        witnesses=witness or [],
        witness_ca=witness_ca,
        witness_quorum=witness_quorum,
    )
    storage = parse_storage(data, storage_document(options, config))
    owner_key = None if owner is None else _owner_key(owner)

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    roots = (*_roots(trust_software_root or []), *_tpm_roots(trust_tpm_root or []))
    aks = _aks(trust_tpm_ak or [])
    azure = azure_cloud(azure_directory, azure_vaults, azure_ca)
    sources = sources_of(pcs, kds, endorsements_ca) if pcs or kds else None
    hosts = webhook_hosts(webhook_host or [], webhook_ca)
    sockets = bind(*client_address), bind(*enclave_address)
    cas = open_cas(
        storage,
        roots=roots,
        warn=_warn,
        azure=azure,
        owner=owner_key,
        aks=aks,
        sources=sources,
        bundle=endorsements,
        webhook_hosts=hosts,
    )
    try:
        _serve(cas, data, sockets, tuple(name or DEFAULT_NAMES), as_json=as_json)
    finally:
        close_cas(cas)


def _warn(sentence: str) -> None:
    logging.getLogger("ostiary").warning("%s", sentence)


def _owner_key(path: Path) -> bytes:
    from ostiary.freshness.recovery import parse_owner_key

    try:
        return parse_owner_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"--owner {path}: {error.strerror}") from error


def _roots(software: list[Path]) -> tuple[TrustedRoot, ...]:
    from ostiary.evidence.roots import software_root, vendor_roots

    roots = [*vendor_roots()]
    for path in software:
        roots.append(read_root(path, "--trust-software-root", software_root, next_step=MADE_BY_PLATFORM))
        _warn(f"evidence of the software platform {path} is trusted by configuration: it protects nothing")
    return tuple(roots)


def _tpm_roots(paths: list[Path]) -> tuple[TrustedRoot, ...]:
    from ostiary.evidence.roots import ak_root

    step = "give the certificate of whoever certifies the TPMs' keys"
    return tuple(read_root(path, "--trust-tpm-root", ak_root, next_step=step) for path in paths)


def _aks(paths: list[Path]) -> frozenset[bytes]:
    from ostiary.evidence.tpm.verify import pinned_ak

    return frozenset(pinned_ak(_named(path, "--trust-tpm-ak")) for path in paths)


def _named(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}") from error


def _serve(
    cas: Cas,
    data: Path,
    sockets: tuple[socket, socket],
    names: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    import asyncio
    import gc
    import signal

    import uvloop
    from cryptography.hazmat.primitives.serialization import Encoding

    from ostiary.broker.background import background
    from ostiary.broker.identity import open_identity
    from ostiary.server.listen import serve
    from ostiary.server.service import make_listeners

    identity = open_identity(cas, names)
    ca_file = data / CA_FILE
    ca_file.write_bytes(identity.root.public_bytes(Encoding.PEM))
    listeners = make_listeners(cas, identity, client=sockets[0], enclave=sockets[1])
    addresses = [show_address(*listener.socket.getsockname()[:2]) for listener in listeners]
    # What lives as long as the process need not be looked through again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        logging.getLogger("ostiary").info(
            "client API on https://%s, enclave API on %s, CA certificate in %s", addresses[0], addresses[1], ca_file
        )
        if as_json:
            print(json.dumps({"client": addresses[0], "enclave": addresses[1], "ca": str(ca_file)}), flush=True)
        async with background(cas):
            await serve(listeners, stop)

    uvloop.run(run())
