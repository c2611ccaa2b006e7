"""Places outside the database that remember how far its history went, so that nobody can turn it back unnoticed."""

from ostiary.freshness.file import FileAnchor
from ostiary.freshness.log_key import derive_log_key
from ostiary.freshness.witness import WitnessAnchor, WitnessServer

__all__ = ["FileAnchor", "WitnessAnchor", "WitnessServer", "derive_log_key"]
