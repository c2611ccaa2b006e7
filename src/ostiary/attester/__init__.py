"""Asks this machine's TEE for evidence. Standard library only: it runs before the program, inside its start."""

from ostiary.attester.evidence import Evidence
from ostiary.attester.program import Program, resolve_program
from ostiary.attester.software import SoftwareAttester

__all__ = ["Evidence", "Program", "SoftwareAttester", "resolve_program"]
