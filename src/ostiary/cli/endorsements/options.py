"""Options that several commands have: whom to ask, whom to believe, and where the service's state lies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ostiary.cli.root_file import read_root
from ostiary.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

    from ostiary.broker.shelf import Shelf
    from ostiary.broker.vendors import Sources
    from ostiary.evidence.claims import Tee
    from ostiary.evidence.endorsements.piece import Anchors
    from ostiary.evidence.endorsements.vendors import Update
    from ostiary.evidence.roots import TrustedRoot
    from ostiary.store import Store

PcsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--pcs", metavar="URL", help="Ask this PCCS for endorsements of SGX and TDX; `intel`: Intel's own service."
    ),
]
KdsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--kds",
        metavar="URL",
        help="Ask this server for endorsements of SEV-SNP; `amd`: AMD's key distribution service.",
    ),
]
CaOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--endorsements-ca",
        metavar="CA.pem",
        help="Vouches for the servers of --pcs and --kds in place of the system's certificates.",
    ),
]
SecondsOption: TypeAlias = Annotated[
    float, typer.Option("--seconds", min=1, max=600, help="How long one answer may take.")
]
IntelRootOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--intel-root", metavar="ROOT.pem", help="Counts in place of Intel's root. Repeatable."),
]
AmdRootOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--amd-root", metavar="ROOT.pem", help="Counts in place of AMD's roots. Repeatable."),
]
DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The data directory of a service."),
]
ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="With --data: the settings of its state, as of `ostiary serve`."),
]
AtOption: TypeAlias = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="Judge at this time, RFC 3339; default: now.")
]


def sources_of(
    pcs: str | None, kds: str | None, ca: Path | None, *, seconds: float = 10.0, update: Update = "standard"
) -> Sources:
    """Whom to ask. Raises ConfigurationError, naming the option."""
    from ostiary.broker.vendors import Sources
    from ostiary.evidence.endorsements.vendors import AMD_KDS, INTEL_PCS, Places, place

    return Sources(
        places=Places(
            pcs=INTEL_PCS if pcs == "intel" else pcs and place(pcs, option="--pcs"),
            kds=AMD_KDS if kds == "amd" else kds and place(kds, option="--kds"),
            update=update,
        ),
        trusted=None if ca is None else _read(ca, "--endorsements-ca").decode("ascii", "replace"),
        seconds=seconds,
    )


def anchors_of(intel: Sequence[Path] | None, amd: Sequence[Path] | None) -> Anchors:
    """The pinned roots, or those of the files in their place. Raises ConfigurationError."""
    from ostiary.evidence.endorsements.piece import Anchors
    from ostiary.evidence.roots import amd_roots, intel_root

    return Anchors(
        intel=tuple(_root(path, "--intel-root", "sgx", "tdx") for path in intel) if intel else (intel_root(),),
        amd=tuple(_root(path, "--amd-root", "snp") for path in amd) if amd else amd_roots(),
    )


def time_of(text: str | None) -> datetime:
    """An aware time in UTC. Raises ConfigurationError."""
    from datetime import UTC, datetime

    if text is None:
        return _now()
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"--at {text}: expected a time such as 2026-12-31T12:00:00Z") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


@contextlib.contextmanager
def shelf_of(data: Path, config: Path | None, anchors: Anchors, now: datetime) -> Iterator[Shelf]:
    """The endorsements in a data directory. Raises ConfigurationError (no service ever ran there) and StoreError."""
    import os

    from ostiary.broker.session_encryption import RECORD
    from ostiary.broker.shelf import Shelf

    with open_state(data, config) as store:
        if store.version(RECORD) is None:
            raise ConfigurationError(
                f"--data {data}: no service of this version has run there; run `ostiary serve` once"
            )
        yield Shelf(store, anchors, now=lambda: now, random=os.urandom)


def open_state(data: Path, config: Path | None) -> Store:
    """The state of a service, as `ostiary serve --config` says. A mistake in typing makes no new one.

    Raises ConfigurationError (no such directory, wrong settings) and StoreError.
    """
    import os

    from ostiary.broker.open_storage import open_storage
    from ostiary.broker.storage import parse_storage
    from ostiary.cli.storage_options import StorageOptions, storage_document

    if not data.is_dir():
        raise ConfigurationError(f"--data {data}: no such directory; name the one of `ostiary serve --data`")
    storage = parse_storage(data, storage_document(StorageOptions(), config))
    return open_storage(storage, random=os.urandom, warn=lambda _: None)


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _root(path: Path, option: str, *tees: Tee) -> TrustedRoot:
    from ostiary.evidence.roots import software_root

    root = read_root(path, option, software_root, next_step="name a file with one root certificate")
    return replace(root, software=False, tees=frozenset(tees))


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}", "name a file with PEM certificates") from error
