"""`ostiary endorsements fetch`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostiary.cli.endorsements.options import (
    AmdRootOption,
    CaOption,
    ConfigOption,
    DataOption,
    IntelRootOption,
    KdsOption,
    PcsOption,
    SecondsOption,
    anchors_of,
    shelf_of,
    sources_of,
    time_of,
)
from ostiary.errors import ConfigurationError, EvidenceFormatError

if TYPE_CHECKING:
    from ostiary.evidence.endorsements.part import Part
    from ostiary.evidence.endorsements.vendors import Update

EXIT_OUTSIDE = 69


def fetch(
    evidence: Annotated[
        list[Path] | None,
        typer.Argument(metavar="EVIDENCE", help="Files with quotes or SNP reports of the platforms, raw."),
    ] = None,
    fmspc: Annotated[
        list[str] | None,
        typer.Option("--fmspc", metavar="HEX", help="A kind of Intel platform, for SGX and TDX. Repeatable."),
    ] = None,
    chip: Annotated[
        list[str] | None,
        typer.Option("--chip", metavar="PRODUCT/CHIP/TCB", help="An AMD chip: Milan/<chip id>/<TCB>, hex. Repeatable."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also everything that the bundle or the service has already.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="BUNDLE", help="Add to this file; made if it is not there.")
    ] = None,
    data: DataOption = None,
    config: ConfigOption = None,
    pcs: PcsOption = "intel",
    kds: KdsOption = "amd",
    endorsements_ca: CaOption = None,
    seconds: SecondsOption = 10.0,
    early: Annotated[
        bool, typer.Option("--early", help="TCB data that Intel has published and that does not count yet.")
    ] = False,
    intel_root: IntelRootOption = None,
    amd_root: AmdRootOption = None,
) -> None:
    """Fetch endorsements from Intel and AMD, verify them, and put them into a bundle or a service's data directory.

    A copy that is there is replaced by newer ones only. Prints the names of what is new. Exit code 69: some could not
    be had, and stderr says which; the others are stored. A service that runs takes them from a bundle: see
    `ostiary serve --endorsements`.

    Examples:

      ostiary endorsements fetch --fmspc 00606a000000 --to bundle.json

      ostiary endorsements fetch quote.bin report.bin --to bundle.json

      ostiary endorsements fetch --again --to bundle.json --pcs https://pccs.example:8081 --endorsements-ca pccs.pem
    """
    from ostiary.broker.vendors import Vendors
    from ostiary.cli.endorsements.asking import fetch_all
    from ostiary.cli.endorsements.bundle import add_to_bundle, endorsements_in

    if (to is None) == (data is None):
        raise ConfigurationError("name either a bundle with --to or a data directory with --data")
    if early and data is not None:
        raise ConfigurationError(
            "--early with --data: a service would refuse by data that does not count yet",
            "fetch it with --to, for `ostiary endorsements forecast --given`",
        )
    anchors = anchors_of(intel_root, amd_root)
    now = time_of(None)
    parts = _parts(evidence or [], fmspc or [], chip or [])
    update: Update = "early" if early else "standard"
    sources = sources_of(pcs, kds, endorsements_ca, seconds=seconds, update=update)
    vendors = Vendors(sources, anchors, now=lambda: time_of(None))
    if data is not None:
        with shelf_of(data, config, anchors, now) as shelf:
            held = {part: kept.endorsement for part in shelf.parts() if (kept := shelf.held(part)) is not None}
            fetched, failed = fetch_all(vendors, _wanted(parts, list(shelf.parts()) if again else []), held)
            new = shelf.put(fetched, "vendor")
    elif to is not None:
        held = {one.part: one for one in endorsements_in(to, anchors, now)} if to.exists() else {}
        fetched, failed = fetch_all(vendors, _wanted(parts, list(held) if again else []), held)
        new = add_to_bundle(to, held.values(), fetched)
    for part in new:
        print(part)
    for part, error in failed.items():
        print(f"ostiary: {part}: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(EXIT_OUTSIDE)


def _parts(evidence: Sequence[Path], fmspc: Sequence[str], chip: Sequence[str]) -> list[Part]:
    from ostiary.cli.endorsements.evidence_file import read_evidence
    from ostiary.evidence.endorsements.choice import parts_of, parts_of_platform
    from ostiary.evidence.endorsements.part import Part

    found = [part for path in evidence for part in parts_of(*read_evidence(path))]
    for text in fmspc:
        try:
            for tee in ("sgx", "tdx"):
                found += parts_of_platform(tee, text, "processor", "platform")
        except EvidenceFormatError:
            raise ConfigurationError(f"--fmspc {text!r}: expected 12 hex digits, such as 00606a000000") from None
    for text in chip:
        try:
            part = Part(kind="vcek", name=text)
        except EvidenceFormatError:
            raise ConfigurationError(
                f"--chip {text!r}: expected PRODUCT/CHIP/TCB in lower-case hex digits",
                "128 for the chip, of Turin 16, and 16 for the TCB; or name its report as EVIDENCE",
            ) from None
        found += [part, Part(kind="amd-crl", name=part.words[0])]
    return found


def _wanted(named: list[Part], again: list[Part]) -> list[Part]:
    if not named and not again:
        raise ConfigurationError("nothing to fetch: name EVIDENCE files, --fmspc, --chip or --again")
    return [*named, *again]
