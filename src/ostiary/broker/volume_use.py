"""Which volume of which session an image means, and how its service may use it. Pure.

Source: session language, sections 10.1 and 10.3.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from ostiary.errors import ReleaseRefusedError
from ostiary.session import ParsedSession
from ostiary.session.model import ImportedVolume, Volume, VolumeExport

ROLLBACK_PROTECTED = "rollback_protected"
EPHEMERAL = "ephemeral"
NO_ROLLBACK_PROTECTION = "no_rollback_protection"

# What the exporter says, what the importer's image says, and how the volume is then used. What is not here is refused.
# The exporter's `ephemeral` overrides the importer's default, as the language has it, and admits nothing weaker.
_PERMITTED: Mapping[str, Mapping[str, str]] = {
    EPHEMERAL: {ROLLBACK_PROTECTED: EPHEMERAL, EPHEMERAL: EPHEMERAL},
    ROLLBACK_PROTECTED: {ROLLBACK_PROTECTED: ROLLBACK_PROTECTED, EPHEMERAL: EPHEMERAL},
    NO_ROLLBACK_PROTECTION: {
        ROLLBACK_PROTECTED: ROLLBACK_PROTECTED,
        EPHEMERAL: EPHEMERAL,
        NO_ROLLBACK_PROTECTION: NO_ROLLBACK_PROTECTION,
    },
}


def permitted_policy(wanted: str, *, limit: str) -> str:
    """The update policy under which an importer uses a volume.

    wanted: `update_policy` of its image. limit: `update_policy` of the export.
    Guarantees: the result protects no less than both ask for. Raises ReleaseRefusedError: `wanted` is beyond `limit`.
    """
    permitted = _PERMITTED[limit].get(wanted)
    if permitted is None:
        raise ReleaseRefusedError(
            f"it is mounted with update_policy {wanted}, and the exporting session allows {_listed(limit)} only",
            f"set update_policy in the image to {limit}, or ask the owner of the volume for more",
        )
    return permitted


def exported_volume(
    exporter: ParsedSession, wanted: ImportedVolume, importer: ParsedSession
) -> tuple[Volume, VolumeExport]:
    """The volume of `exporter` that `wanted`, a volume of `importer`, means, and the export that admits it.

    Both are current versions. Guarantees: both sides agree. The importer names this session and, if it gives a hash,
    this very version of it; exactly one export names the importer, by its name or its very version, and shows it the
    volume under the name that the importer uses: the alias where the export has one, and no other.
    Raises ReleaseRefusedError, for those who may read the sessions.
    """
    session = exporter.session
    if wanted.session_hash is not None and not hmac.compare_digest(wanted.session_hash, exporter.hash):
        raise ReleaseRefusedError(
            f"session {session.name} is no longer the version with session_hash {wanted.session_hash.hex()}",
            "read it, see whether you still trust it, and correct session_hash in the import",
        )
    found = [
        (volume, export)
        for volume in session.volumes
        if isinstance(volume, Volume)
        for export in volume.exports
        if _names(export, importer) and (export.volume_alias or volume.name) == wanted.volume
    ]
    name = importer.session.name
    if not found:
        raise ReleaseRefusedError(
            f"session {session.name} exports no volume {wanted.volume!r} to session {name}",
            f"its owner can add {{session: {name}}} to the volume's export; where the export has a volume_alias, the "
            "import must use that",
        )
    if len(found) > 1:
        raise ReleaseRefusedError(
            f"session {session.name} exports several volumes to session {name} as {wanted.volume!r}",
            "its owner can give each of them another volume_alias",
        )
    return found[0]


def _names(export: VolumeExport, importer: ParsedSession) -> bool:
    version = export.session_hash is None or hmac.compare_digest(export.session_hash, importer.hash)
    return export.session == importer.session.name and version


def _listed(limit: str) -> str:
    return " and ".join(sorted(set(_PERMITTED[limit].values())))
