"""Options and configuration file of `ostiary serve`, brought into the one document that `broker.storage` reads."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostiary.errors import ConfigurationError

MAX_FILE_BYTES = 1024 * 1024

Tables = dict[str, dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """What the command line says, as texts; None and empty: nothing."""

    store: str | None = None
    sealing: str | None = None
    tpm: str | None = None
    tpm_pcrs: str | None = None
    tpm_index: str | None = None
    gramine_identity: str | None = None
    snp_vmpl: int | None = None
    freshness: str | None = None
    freshness_mode: str | None = None
    freshness_file: Path | None = None
    log_origin: str | None = None
    witnesses: Sequence[str] = ()
    witness_ca: Path | None = None
    witness_quorum: int | None = None


def storage_document(options: StorageOptions, file: Path | None) -> Tables:
    """The tables `store`, `sealing` and `freshness` of the file, with the options put in.

    An option goes before the same member of the file; one that chooses a kind (--sealing, --freshness) goes before the
    whole table, as the file's other members belong to another choice. Raises ConfigurationError.
    """
    tables = _read(file) if file is not None else {}
    sealing = _present(
        by=options.sealing,
        pcrs=_numbers(options.tpm_pcrs, "--tpm-pcrs"),
        identity=options.gramine_identity,
        vmpl=options.snp_vmpl,
    )
    freshness = _present(
        by=options.freshness,
        mode=options.freshness_mode,
        index=_number(options.tpm_index, "--tpm-index"),
        file=None if options.freshness_file is None else str(options.freshness_file),
        origin=options.log_origin,
        witnesses=[_witness(text, options.witness_ca) for text in options.witnesses] or None,
        quorum=options.witness_quorum,
    )
    merged = {
        **tables,
        "store": {**tables.get("store", {}), **_present(database=options.store)},
        "sealing": _over(tables.get("sealing", {}), sealing),
        "freshness": _over(tables.get("freshness", {}), freshness),
    }
    if options.witness_ca is not None and not options.witnesses:
        raise ConfigurationError("--witness-ca is for --witness, and there is none", "leave it out")
    if options.tpm is not None:
        _put_tpm(merged, options.tpm)
    return merged


def _put_tpm(tables: Tables, tpm: str) -> None:
    """One TPM for all that use one."""
    using = [name for name in ("sealing", "freshness") if tables[name].get("by") == "tpm"]
    if not using:
        raise ConfigurationError("--tpm names a TPM, and neither --sealing nor --freshness is tpm", "leave it out")
    for name in using:
        tables[name]["tpm"] = tpm


def _over(file: dict[str, object], options: dict[str, object]) -> dict[str, object]:
    return {**({} if "by" in options else file), **options}


def _present(**members: object) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _read(path: Path) -> Tables:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"--config {path}: {error.strerror}") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigurationError(f"--config {path}: over {MAX_FILE_BYTES} bytes, expected a short TOML file")
    try:
        document = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path}: it is not TOML", str(error)) from error
    for name in document:
        if name != "ostiary":
            raise ConfigurationError(f"--config {path}: found [{name}], expected tables below [ostiary] only")
    tables = document.get("ostiary", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(f"--config {path}: found another value, expected tables such as [ostiary.sealing]")
    return tables


def _numbers(text: str | None, option: str) -> list[int] | None:
    return None if text is None else [_required_number(part.strip(), option) for part in text.split(",")]


def _number(text: str | None, option: str) -> int | None:
    return None if text is None else _required_number(text, option)


def _required_number(text: str, option: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ConfigurationError(f"{option}: found {text!r}, expected a number such as 7 or 0x1804f53") from None


def _witness(text: str, ca: Path | None) -> dict[str, object]:
    url, _, key = text.strip().partition(" ")
    return {"url": url, "key": key.strip(), **_present(ca=None if ca is None else str(ca))}
