"""From settings to an open store: which database, which sealing, which anchor. One table for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ostiary.audit import Frontier
from ostiary.audit.note import VerifierKey, parse_verifier_key
from ostiary.broker.storage import AnchoredBy, Freshness, SealedBy, Sealing, Storage
from ostiary.errors import ConfigurationError, InputError, StoreError
from ostiary.https import trusting
from ostiary.store import Anchor, Backend, Store, open_store
from ostiary.store.lock import opening
from ostiary.store.opening import DATABASE_NAME, LOCK_NAME
from ostiary.store.sealing import KeyFile
from ostiary.store.sealing import Sealing as KeptKey
from ostiary.store.sqlite import SqliteBackend

KEY_NAMES = {
    SealedBy.KEYFILE: "database.key",
    SealedBy.TPM: "database.key.tpm",
    SealedBy.GRAMINE: "database.key.sgx",
    SealedBy.SNP: "database.key.snp",
}
"""In the directory: the file of each way to keep the key."""
ANCHOR_NAMES = {AnchoredBy.FILE: "anchor.file", AnchoredBy.TPM: "anchor.tpm"}
"""In the directory: what those anchors write down that write something."""

_TPM_EXTRA = (
    "ostiary[tpm], and of the system libtss2-esys, libtss2-mu, libtss2-tctildr and libtss2-tcti-device (Debian's names)"
)
_NO_ANCHOR = (
    "nothing outside the database remembers how far its history went, so an older copy of the whole database would not "
    "be noticed: choose what does with --freshness"
)


def open_storage(storage: Storage, *, random: Callable[[int], bytes], warn: Callable[[str], None]) -> Store:
    """The store of these settings, verified, its anchor settled.

    random, warn: as `open_store`. Raises ConfigurationError: settings that do not fit what lies in the directory, or
    want what is not installed; otherwise as `open_store`.
    """
    _require_key_of(storage)
    store = open_store(
        storage.directory,
        random=random,
        log=Frontier(),
        warn=warn,
        sealing=_sealing_of(storage),
        open_backend=_backend_of(storage.database),
        make_anchor=_anchor_maker(storage),
        max_lag_seconds=storage.freshness.max_lag_seconds,
    )
    if storage.freshness.by is AnchoredBy.NONE:
        warn(_NO_ANCHOR)
    return store


def kept_key(storage: Storage) -> bytes:
    """The database key of these settings, for those who look at the database without a service.

    Raises ConfigurationError as `open_storage`; StoreError if there is no key, or not for this machine or program.
    """
    _require_key_of(storage)
    sealing = _sealing_of(storage)
    key = sealing.kept()
    if key is None:
        raise StoreError(
            f"there is no database key kept by {storage.sealing.by}: {sealing.place} is absent, expected the "
            "service's; name its --data directory"
        )
    return key


def _sealing_of(storage: Storage) -> KeptKey:
    by = storage.sealing.by
    return _SEALINGS[by](storage.directory / KEY_NAMES[by], storage.sealing)


def anchor_identity(settings: Freshness) -> str:
    """What of the settings must not change behind the owner's back, one line; "" if nothing is anchored."""
    match settings.by:
        case AnchoredBy.NONE:
            return ""
        case AnchoredBy.FILE:
            return "file"
        case AnchoredBy.TPM:
            return f"tpm {settings.index:#010x}"
        case AnchoredBy.WITNESS:
            from ostiary.freshness.witness import witness_identity

            keys = [_verifier_key(witness.key) for witness in settings.witnesses]
            return witness_identity(settings.origin, settings.quorum, keys)


def open_for_recovery(storage: Storage, *, random: Callable[[int], bytes]) -> tuple[Store, Backend, bytes]:
    """The store of these settings without its anchor, which does not accept it; the database once more, and its key.

    The caller closes both. Raises as `open_storage`; StoreError if there is no store.
    """
    key = kept_key(storage)
    connect = _backend_of(storage.database) or (lambda: SqliteBackend(storage.directory / DATABASE_NAME))
    with opening(storage.directory / LOCK_NAME, alone=False):
        backend = connect()
        try:
            store = Store.resume(backend, key, random=random, log=Frontier())
        except BaseException:
            backend.close()
            raise
        try:
            return store, connect(), key
        except BaseException:
            store.close()
            raise


def make_anchor(storage: Storage, key: bytes) -> Anchor | None:
    """The anchor of these settings; None: none."""
    make = _anchor_maker(storage)
    return None if make is None else make(key)


def _require_key_of(storage: Storage) -> None:
    """A key kept in another way than configured: this start would find none, and must not look like a loss."""
    wanted = storage.sealing.by
    for other, name in KEY_NAMES.items():
        path = storage.directory / name
        if other is not wanted and path.is_file():
            raise ConfigurationError(
                f"the database key in {storage.directory} is kept by {other} ({name}), and the configuration says "
                f"{wanted}",
                f"start with --sealing {other}; a key is not moved from one way to another in this version",
            )


def _backend_of(database: str) -> Callable[[], Backend] | None:
    """None: SQLite in the directory."""
    if not database:
        return None

    def connect() -> Backend:
        with _extra("--store", "ostiary[postgresql]"):
            from ostiary.store.postgresql import PostgresqlBackend
        return PostgresqlBackend(database)

    return connect


@contextmanager
def _extra(option: str, wanted: str) -> Iterator[None]:
    """What is imported in this block comes with an extra."""
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"{option} needs a library that cannot be loaded", str(error), f"install {wanted}"
        ) from error


def _seal_by_file(path: Path, _: Sealing) -> KeptKey:
    return KeyFile(path)


def _seal_by_tpm(path: Path, settings: Sealing) -> KeptKey:
    with _extra("--sealing tpm", _TPM_EXTRA):
        from ostiary.store.sealing.tpm import TpmSealing

    return TpmSealing(path, tcti=settings.tpm, pcrs=settings.pcrs)


def _seal_by_gramine(path: Path, settings: Sealing) -> KeptKey:
    from ostiary.store.sealing.gramine import Identity, gramine_sealing

    return gramine_sealing(path, identity=Identity(settings.identity))


def _seal_by_snp(path: Path, settings: Sealing) -> KeptKey:
    from ostiary.store.sealing.snp import snp_sealing

    return snp_sealing(path, vmpl=settings.vmpl)


_SEALINGS: dict[SealedBy, Callable[[Path, Sealing], KeptKey]] = {
    SealedBy.KEYFILE: _seal_by_file,
    SealedBy.TPM: _seal_by_tpm,
    SealedBy.GRAMINE: _seal_by_gramine,
    SealedBy.SNP: _seal_by_snp,
}


def _anchor_maker(storage: Storage) -> Callable[[bytes], Anchor] | None:
    """From the database key to the anchor. Raises ConfigurationError now for what cannot be, whatever the key is."""
    make = _ANCHORS[storage.freshness.by]
    return None if make is None else make(storage.directory, storage.freshness)


def _anchor_in_file(directory: Path, settings: Freshness) -> Callable[[bytes], Anchor]:
    from ostiary.freshness import FileAnchor

    path = settings.file or directory / ANCHOR_NAMES[AnchoredBy.FILE]
    return lambda _: FileAnchor(path)


def _anchor_by_witnesses(_: Path, settings: Freshness) -> Callable[[bytes], Anchor]:
    from ostiary.freshness import WitnessAnchor, WitnessServer, derive_log_key
    from ostiary.freshness.witness import check_quorum

    servers = [
        WitnessServer(url=witness.url, key=_verifier_key(witness.key), trust=trusting(_pem(witness.ca)))
        for witness in settings.witnesses
    ]
    check_quorum(settings.quorum, [server.key for server in servers])
    return lambda key: WitnessAnchor(
        origin=settings.origin, key=derive_log_key(key), witnesses=servers, quorum=settings.quorum
    )


def _verifier_key(text: str) -> VerifierKey:
    try:
        return parse_verifier_key(text)
    except InputError as error:
        raise ConfigurationError("the key of a witness cannot be used", *error.chain) from error


def _pem(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"the certificates {path} that a witness is known by: {reason}") from error


def _anchor_in_tpm(directory: Path, settings: Freshness) -> Callable[[bytes], Anchor]:
    with _extra("--freshness tpm", _TPM_EXTRA):
        from ostiary.freshness.tpm import TpmAnchor

    path = directory / ANCHOR_NAMES[AnchoredBy.TPM]
    return lambda key: TpmAnchor(path, database_key=key, tcti=settings.tpm, index=settings.index)


_ANCHORS: dict[AnchoredBy, Callable[[Path, Freshness], Callable[[bytes], Anchor]] | None] = {
    AnchoredBy.NONE: None,
    AnchoredBy.FILE: _anchor_in_file,
    AnchoredBy.WITNESS: _anchor_by_witnesses,
    AnchoredBy.TPM: _anchor_in_tpm,
}
