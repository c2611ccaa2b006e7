"""`ostiary endorsements import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostiary.cli.endorsements.options import AmdRootOption, ConfigOption, IntelRootOption, anchors_of, shelf_of, time_of


def import_(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file of `fetch` or `export`.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data directory of a service.")] = Path(
        "ostiary-data"
    ),
    config: ConfigOption = None,
    intel_root: IntelRootOption = None,
    amd_root: AmdRootOption = None,
) -> None:
    """Put the endorsements of a bundle into a service's data directory, and print the names of those that are new.

    Every one is verified before any is stored; a copy that is there is replaced by newer ones only. A service that runs
    takes a bundle without this command: see `ostiary serve --endorsements`.

    Example:

      ostiary endorsements import bundle.json --data ostiary-data
    """
    from ostiary.broker.kept_endorsements import import_bundle

    anchors, now = anchors_of(intel_root, amd_root), time_of(None)
    with shelf_of(data, config, anchors, now) as shelf:
        for part in import_bundle(shelf, anchors, bundle, now=now):
            print(part)
