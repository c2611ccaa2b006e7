"""A witness: it remembers, for each log, the newest head it saw, and signs that it never saw another history."""

from ostiary.witness.directory import init_witness, open_witness
from ostiary.witness.witness import Witness

__all__ = ["Witness", "init_witness", "open_witness"]
