"""Asks this machine's TEE for evidence. Standard library only: it runs before the program, inside its start."""

from ostiary.attester.evidence import Evidence
from ostiary.attester.program import Program, resolve_program
from ostiary.attester.software import SoftwareAttester
from ostiary.attester.tpm import TpmAttester

__all__ = ["Evidence", "Program", "SoftwareAttester", "TpmAttester", "resolve_program"]
