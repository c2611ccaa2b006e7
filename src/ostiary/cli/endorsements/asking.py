"""Many endorsements fetched one after the other, with a progress bar on stderr when that takes over two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ostiary.broker.vendors import Vendors
from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, OstiaryError, OutsideError
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Endorsement

QUIET_SECONDS = 2.0


def in_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Each part once, and who issues the certificates of chips before those certificates."""
    wanted = set(parts)
    wanted |= {Part(kind="amd-chain", name=f"vcek/{part.words[0]}") for part in wanted if part.kind == "vcek"}
    return tuple(sorted(wanted, key=lambda part: (part.kind == "vcek", part)))


def fetch_all(
    vendors: Vendors, parts: Sequence[Part], held: Mapping[Part, Endorsement]
) -> tuple[list[Endorsement], dict[Part, OstiaryError]]:
    """What vendors have of `parts`, and why what is missing is missing. held: may have the chains of AMD."""
    fetched: dict[Part, Endorsement] = {}
    failed: dict[Part, OstiaryError] = {}
    with _progress(len(parts)) as advance:
        for part in in_order(parts):
            chain = b""
            if part.kind == "vcek":
                issuers = Part(kind="amd-chain", name=f"vcek/{part.words[0]}")
                known = fetched.get(issuers) or held.get(issuers)
                chain = b"" if known is None else known.piece.data
            try:
                fetched[part] = vendors.fetch(part, amd_chain=chain)
            except (OutsideError, EvidenceFormatError, EvidenceRefusedError) as error:
                failed[part] = error
            advance()
    return list(fetched.values()), failed


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    begun = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("asking vendors", total=total, visible=False)

        def advance() -> None:
            progress.update(task, advance=1, visible=time.monotonic() - begun > QUIET_SECONDS)

        yield advance
