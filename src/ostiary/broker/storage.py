"""Where a service keeps its state, and what vouches for it: the settings, read once at start. Pure.

In a configuration file these are tables below `ostiary`; an option of `ostiary serve` is one member of them:

    [ostiary.store]
    database = "postgresql://host/name"         absent: SQLite in the data directory; never with a password

    [ostiary.sealing]
    by = "keyfile" | "tpm" | "gramine" | "snp"  how the database key is kept
    tpm = "device:/dev/tpmrm0"                  tpm: where it is, as the TSS writes it
    pcrs = [7]                                  tpm: what must not change
    identity = "mrenclave" | "mrsigner"         gramine: who may unseal
    vmpl = 0                                    snp: the privilege level to mix in

    [ostiary.freshness]
    by = "none" | "file" | "witness" | "tpm"    what remembers how far the history went
    mode = "strict" | "bounded:MILLISECONDS"    whether a commit waits for it, or by how much it may be behind
    tpm = "device:/dev/tpmrm0"                  tpm: where it is
    index = 0x01804F53                          tpm: the NV index
    file = "/elsewhere/anchor"                  file: absent: in the data directory
    origin = "cas.example/log"                  witness: the name of this service's log
    witnesses = [{url = "…", key = "NAME+HASH+KEY", ca = "tls.pem"}]    ca absent: the system's certificates
    quorum = 2                                  witness: how many must cosign

What a kind does not name has no meaning for it and is refused, as is every unknown member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

from ostiary.errors import ConfigurationError

DEFAULT_TPM = "device:/dev/tpmrm0"
DEFAULT_PCRS = (7,)
"""Whether and with which keys the firmware checks what it starts; survives updates of kernel and firmware."""
DEFAULT_NV_INDEX = 0x01804F53
FIRST_NV_INDEX, LAST_NV_INDEX = 0x01800000, 0x01BFFFFF
MAX_PCR = 23
RESETTABLE_PCRS = frozenset({16, 23})
MAX_VMPL = 3
MAX_LAG_MILLISECONDS = 60_000
MAX_WITNESSES = 63

Document: TypeAlias = Mapping[str, object]
_Value = TypeVar("_Value")


class SealedBy(StrEnum):
    KEYFILE = "keyfile"
    TPM = "tpm"
    GRAMINE = "gramine"
    SNP = "snp"


class AnchoredBy(StrEnum):
    NONE = "none"
    FILE = "file"
    WITNESS = "witness"
    TPM = "tpm"


class EnclaveIdentity(StrEnum):
    MRENCLAVE = "mrenclave"
    MRSIGNER = "mrsigner"


@dataclass(frozen=True, kw_only=True)
class Sealing:
    """How the database key is kept; of the other members only those of `by` count."""

    by: SealedBy = SealedBy.KEYFILE
    tpm: str = DEFAULT_TPM
    pcrs: tuple[int, ...] = DEFAULT_PCRS
    identity: EnclaveIdentity = EnclaveIdentity.MRENCLAVE
    vmpl: int = 0


@dataclass(frozen=True, kw_only=True)
class Witness:
    """url: where it takes checkpoints, https. key: its verifier key, `NAME+HASH+KEY`. ca: PEM file; None: system's."""

    url: str
    key: str
    ca: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """What remembers the history; of the other members only those of `by` count.

    max_lag_seconds: 0 is the strict mode. file: None: in the data directory.
    """

    by: AnchoredBy = AnchoredBy.NONE
    max_lag_seconds: float = 0.0
    tpm: str = DEFAULT_TPM
    index: int = DEFAULT_NV_INDEX
    file: Path | None = None
    origin: str = ""
    witnesses: tuple[Witness, ...] = ()
    quorum: int = 0


@dataclass(frozen=True, kw_only=True)
class Storage:
    """directory: of the embedded database, of the kept key, and of what anchors write down. database: a PostgreSQL
    URL without password; "": SQLite in the directory.
    """

    directory: Path
    database: str = ""
    sealing: Sealing = Sealing()
    freshness: Freshness = Freshness()


_SEALING_MEMBERS: dict[SealedBy, frozenset[str]] = {
    SealedBy.KEYFILE: frozenset(),
    SealedBy.TPM: frozenset({"tpm", "pcrs"}),
    SealedBy.GRAMINE: frozenset({"identity"}),
    SealedBy.SNP: frozenset({"vmpl"}),
}
_FRESHNESS_MEMBERS: dict[AnchoredBy, frozenset[str]] = {
    AnchoredBy.NONE: frozenset(),
    AnchoredBy.FILE: frozenset({"mode", "file"}),
    AnchoredBy.WITNESS: frozenset({"mode", "origin", "witnesses", "quorum"}),
    AnchoredBy.TPM: frozenset({"mode", "tpm", "index"}),
}


def parse_storage(directory: Path, document: Document) -> Storage:
    """The settings that a document of the tables above states; what it leaves out has the default.

    Guarantees that every member belongs to what was chosen, and that no combination contradicts itself.
    Raises ConfigurationError, which names the member, what was found and what was expected.
    """
    _refuse_unknown(document, frozenset({"store", "sealing", "freshness"}), "ostiary")
    store = _table(document, "store", "ostiary.store")
    _refuse_unknown(store, frozenset({"database"}), "ostiary.store")
    return Storage(
        directory=directory,
        database=_database(store.get("database")),
        sealing=_sealing(_table(document, "sealing", "ostiary.sealing")),
        freshness=_freshness(_table(document, "freshness", "ostiary.freshness")),
    )


def _sealing(table: Document) -> Sealing:
    where = "ostiary.sealing"
    by = _choice(SealedBy, table.get("by", SealedBy.KEYFILE), f"{where}.by")
    _refuse_foreign(table, by, _SEALING_MEMBERS, where)
    return Sealing(
        by=by,
        tpm=_get(table, "tpm", _text, DEFAULT_TPM, where),
        pcrs=_get(table, "pcrs", _pcrs, DEFAULT_PCRS, where),
        identity=_get(table, "identity", _identity, EnclaveIdentity.MRENCLAVE, where),
        vmpl=_get(table, "vmpl", _number_between(0, MAX_VMPL), 0, where),
    )


def _freshness(table: Document) -> Freshness:
    where = "ostiary.freshness"
    by = _choice(AnchoredBy, table.get("by", AnchoredBy.NONE), f"{where}.by")
    _refuse_foreign(table, by, _FRESHNESS_MEMBERS, where)
    no_witnesses: tuple[Witness, ...] = ()
    witnesses = _get(table, "witnesses", _witnesses, no_witnesses, where)
    if by is AnchoredBy.WITNESS:
        _require_quorum(table, witnesses)
    file = _get(table, "file", _text, "", where)
    return Freshness(
        by=by,
        max_lag_seconds=_get(table, "mode", _mode, 0.0, where),
        tpm=_get(table, "tpm", _text, DEFAULT_TPM, where),
        index=_get(table, "index", _number_between(FIRST_NV_INDEX, LAST_NV_INDEX), DEFAULT_NV_INDEX, where),
        file=Path(file) if file else None,
        origin=_get(table, "origin", _text, "", where),
        witnesses=witnesses,
        quorum=_get(table, "quorum", _number_between(1, MAX_WITNESSES), 0, where),
    )


def _require_quorum(table: Document, witnesses: tuple[Witness, ...]) -> None:
    """No witness, or no number of them, vouches for nothing. Which numbers do is for `freshness.witness` to say."""
    if not witnesses:
        raise _wrong("ostiary.freshness.witnesses", "none", "one or more: without any, nothing vouches for the state")
    for name in ("origin", "quorum"):
        if name not in table:
            raise _wrong(f"ostiary.freshness.{name}", "none", "it, as the anchor is `witness`")


def _database(value: object) -> str:
    if value is None:
        return ""
    where = "ostiary.store.database"
    url = _text(value, where)
    # The URL itself is not shown: it may be wrong for holding a password.
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        raise _wrong(where, "no URL", "postgresql://[USER@]HOST[:PORT]/DATABASE") from None
    if parts.scheme not in {"postgresql", "postgres"}:
        raise _wrong(where, f"the scheme {parts.scheme!r}", "postgresql://[USER@]HOST[:PORT]/DATABASE")
    if secret:
        raise _wrong(where, "a password", "none: libpq takes it from PGPASSFILE, ~/.pgpass or a client certificate")
    return url


def _mode(value: object, where: str) -> float:
    text = _text(value, where)
    if text == "strict":
        return 0.0
    kind, _, number = text.partition(":")
    if kind != "bounded" or not (number.isascii() and number.isdigit()):
        raise _wrong(where, repr(text), "strict or bounded:MILLISECONDS")
    milliseconds = int(number) if len(number) <= len(str(MAX_LAG_MILLISECONDS)) else MAX_LAG_MILLISECONDS + 1
    if not 1 <= milliseconds <= MAX_LAG_MILLISECONDS:
        raise _wrong(where, repr(text), f"bounded by 1 to {MAX_LAG_MILLISECONDS} ms")
    return milliseconds / 1000


def _pcrs(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong(where, repr(value), "a list of one or more numbers of PCRs")
    numbers = tuple(sorted({_number_between(0, MAX_PCR)(item, where) for item in value}))
    if RESETTABLE_PCRS & set(numbers):
        raise _wrong(where, repr(value), "none of 16 and 23, which anybody on the machine may reset")
    return numbers


def _identity(value: object, where: str) -> EnclaveIdentity:
    return _choice(EnclaveIdentity, value, where)


def _witnesses(value: object, where: str) -> tuple[Witness, ...]:
    if not isinstance(value, list) or len(value) > MAX_WITNESSES:
        raise _wrong(where, type(value).__name__, f"a list of at most {MAX_WITNESSES} tables with url and key")
    return tuple(_witness(item, f"{where}[{number}]") for number, item in enumerate(value))


def _witness(value: object, where: str) -> Witness:
    if not isinstance(value, Mapping):
        raise _wrong(where, type(value).__name__, "a table with url and key")
    _refuse_unknown(value, frozenset({"url", "key", "ca"}), where)
    ca = _get(value, "ca", _text, "", where)
    return Witness(
        url=_text(value.get("url"), f"{where}.url"),
        key=_text(value.get("key"), f"{where}.key"),
        ca=Path(ca) if ca else None,
    )


def _get(table: Document, name: str, read: Callable[[object, str], _Value], default: _Value, where: str) -> _Value:
    return read(table[name], f"{where}.{name}") if name in table else default


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(where, repr(value), "a text that is not empty")
    return value


def _number_between(least: int, most: int) -> Callable[[object, str], int]:
    def read(value: object, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _wrong(where, repr(value), f"a number from {least} to {most}")
        return value

    return read


_Kind = TypeVar("_Kind", bound=StrEnum)


def _choice(kinds: type[_Kind], value: object, where: str) -> _Kind:
    for kind in kinds:
        if value == kind:
            return kind
    raise _wrong(where, repr(value), "one of " + ", ".join(kinds))


def _table(document: Document, name: str, where: str) -> Document:
    table = document.get(name, {})
    if not isinstance(table, Mapping):
        raise _wrong(where, type(table).__name__, "a table")
    return table


def _refuse_unknown(table: Document, known: frozenset[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise _wrong(f"{where}.{name}", "an unknown member", "one of " + ", ".join(sorted(known)))


def _refuse_foreign(table: Document, by: _Kind, members: Mapping[_Kind, frozenset[str]], where: str) -> None:
    """A member of another kind would look as if it did something."""
    _refuse_unknown(table, frozenset({"by"}).union(*members.values()), where)
    for name in table.keys() - {"by"} - members[by]:
        kinds = ", ".join(kind for kind, names in members.items() if name in names)
        raise _wrong(f"{where}.{name}", f"it beside by = {str(by)!r}", f"it only with {kinds}: leave it out")


def _wrong(where: str, found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{where}: found {found}, expected {expected}")
