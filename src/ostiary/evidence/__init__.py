"""Evidence bytes to verified claims: is it authentic? Whether we accept it is decided in `appraisal`."""

from ostiary.evidence.claims import Claims
from ostiary.evidence.roots import TrustedRoot, intel_root, software_root

__all__ = ["Claims", "TrustedRoot", "intel_root", "software_root"]
