"""Bundle files as the commands read and write them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from ostiary.broker.kept_endorsements import read_bundle_file
from ostiary.errors import ConfigurationError
from ostiary.evidence.endorsements.bundle_file import write_bundle
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement


def endorsements_in(path: Path, anchors: Anchors, now: datetime) -> tuple[Endorsement, ...]:
    """All endorsements of a bundle, verified. Raises as `read_bundle_file`."""
    return read_bundle_file(path, anchors, now=now)


def add_to_bundle(path: Path, held: Iterable[Endorsement], new: Iterable[Endorsement]) -> tuple[Part, ...]:
    """Write what is held with what is newer in its place; the parts that changed. Raises ConfigurationError."""
    kept = {one.part: one for one in held}
    better = [one for one in new if one.part not in kept or one.is_newer_than(kept[one.part])]
    if better:
        write_file(path, write_bundle({**kept, **{one.part: one for one in better}}.values()))
    return tuple(sorted(one.part for one in better))


def write_file(path: Path, data: bytes) -> None:
    """Put a whole file in the place of `path`, or leave it as it was. Raises ConfigurationError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigurationError(f"{path}: {error.strerror}") from error
