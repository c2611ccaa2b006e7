"""`ostiary endorsements export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ostiary.cli.endorsements.options import AmdRootOption, ConfigOption, IntelRootOption, anchors_of, shelf_of, time_of


def export(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data directory of a service.")] = Path(
        "ostiary-data"
    ),
    config: ConfigOption = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="BUNDLE", help="Write here; default: stdout.")] = None,
    intel_root: IntelRootOption = None,
    amd_root: AmdRootOption = None,
) -> None:
    """Write all endorsements that a service keeps to a bundle, for another service or for `forecast`.

    Example:

      ostiary endorsements export --data ostiary-data --to bundle.json
    """
    from ostiary.cli.endorsements.bundle import write_file
    from ostiary.evidence.endorsements.bundle_file import write_bundle

    with shelf_of(data, config, anchors_of(intel_root, amd_root), time_of(None)) as shelf:
        found = [kept.endorsement for part in shelf.parts() if (kept := shelf.held(part)) is not None]
    bundle = write_bundle(found)
    if to is None:
        sys.stdout.write(bundle.decode("ascii"))
    else:
        write_file(to, bundle)
