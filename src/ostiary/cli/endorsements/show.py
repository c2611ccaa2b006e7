"""`ostiary endorsements show`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostiary.cli.endorsements.options import (
    AmdRootOption,
    AtOption,
    ConfigOption,
    DataOption,
    IntelRootOption,
    anchors_of,
    shelf_of,
    time_of,
)
from ostiary.errors import ConfigurationError, EvidenceRefusedError

if TYPE_CHECKING:
    from datetime import datetime

    from ostiary.evidence.endorsements.choice import Kept


def show(
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE", help="A file of `fetch` or `export`.")] = None,
    data: DataOption = None,
    config: ConfigOption = None,
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of JSON objects.")] = False,
    intel_root: IntelRootOption = None,
    amd_root: AmdRootOption = None,
) -> None:
    """Print which endorsements are there, of which day, and until when they can be used.

    Columns: name, state (`ok`, `ended` or `future`), number, day of issue, end, and who brought it. With --json the
    same as `part`, `state`, `number`, `issued`, `until`, `origin`.

    Examples:

      ostiary endorsements show bundle.json

      ostiary endorsements show --data ostiary-data --json --at 2026-12-31T00:00:00Z
    """
    from ostiary.cli.endorsements.bundle import endorsements_in
    from ostiary.evidence.endorsements.choice import Kept

    if (bundle is None) == (data is None):
        raise ConfigurationError("name either a bundle or a data directory with --data")
    anchors, now = anchors_of(intel_root, amd_root), time_of(at)
    if bundle is not None:
        found = [Kept(endorsement=one, origin="vendor") for one in endorsements_in(bundle, anchors, now)]
    elif data is not None:
        with shelf_of(data, config, anchors, now) as shelf:
            found = [kept for part in shelf.parts() if (kept := shelf.held(part)) is not None]
    rows = [_row(kept, now) for kept in sorted(found, key=lambda kept: kept.endorsement.part)]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        print("no endorsements are there", file=sys.stderr)
    for row in rows:
        print(f"{row['part']}  {row['state']}  {row['number']}  {row['issued']}  {row['until']}  {row['origin']}")


def _row(kept: Kept, now: datetime) -> dict[str, str | int]:
    one = kept.endorsement
    try:
        one.require(now, None)
        state = "ok"
    except EvidenceRefusedError:
        state = "future" if now < one.issued else "ended"
    return {
        "part": str(one.part),
        "state": state,
        "number": one.number,
        "issued": f"{one.issued:%Y-%m-%dT%H:%M:%SZ}",
        "until": f"{one.last_use(None):%Y-%m-%dT%H:%M:%SZ}",
        "origin": kept.origin,
    }
