"""The attesters there are, which of them this machine has, and which is taken. Standard library only.

Each start reads this, so an attester's own code is loaded only where its interface exists.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ostiary.errors import OutsideError

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from ostiary.attester.evidence import Evidence
    from ostiary.attester.program import Program

    class Attester(Protocol):
        """What makes evidence of this process, enclave or machine."""

        def unavailable(self) -> str | None:
            """Why no evidence can be had, in one line for a person; None if it can be asked for."""

        def attest(self, report_data: bytes, program: Program | None) -> Evidence:
            """Evidence over 64 bytes. Raises OutsideError, ConfigurationError."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attester. tees: whose evidence it may bring. hardware: not of the software platform.

    by_name: taken only where it is named, since its evidence is not what most machines that have it are asked for.
    path: what must exist for it. absent: why it may not. gives: what its evidence is about, for a person.
    """

    name: str
    tees: tuple[str, ...]
    hardware: bool
    path: str
    absent: str
    gives: str
    make: Callable[[str], Attester]
    by_name: bool = False

    def unavailable(self) -> str | None:
        """As `Attester.unavailable`; without loading the attester if nothing is at `path`."""
        if not os.path.exists(self.path):
            return f"there is no {self.path}; {self.absent}"
        return self.make(self.path).unavailable()


def _gramine(path: str) -> Attester:
    from ostiary.attester.gramine import GramineAttester  # noqa: PLC0415 - no start pays for what it does not use

    return GramineAttester(path)


def _configfs_tsm(path: str) -> Attester:
    from ostiary.attester.configfs_tsm import ConfigfsTsmAttester  # noqa: PLC0415 - see above

    return ConfigfsTsmAttester(path)


def _nitro(path: str) -> Attester:
    from ostiary.attester.nitro import NitroAttester  # noqa: PLC0415 - see above

    return NitroAttester(path)


def _tpm(path: str) -> Attester:
    from ostiary.attester.tpm import EVENT_LOG, TpmAttester  # noqa: PLC0415 - see above

    return TpmAttester(path, event_log=EVENT_LOG)


def _software(path: str) -> Attester:
    from ostiary.attester.software import SoftwareAttester  # noqa: PLC0415 - see above

    return SoftwareAttester(path)


ATTESTERS = (
    Row(
        name="gramine",
        tees=("sgx",),
        hardware=True,
        path="/dev/attestation",
        absent="a process in a Gramine SGX enclave has it",
        gives="an SGX quote of this enclave",
        make=_gramine,
    ),
    Row(
        name="configfs-tsm",
        tees=("tdx", "snp"),
        hardware=True,
        path="/sys/kernel/config/tsm/report",
        absent="a TDX or SEV-SNP guest with Linux 6.7 or later has it, once configfs is mounted",
        gives="a TDX quote or SEV-SNP report of this virtual machine",
        make=_configfs_tsm,
    ),
    Row(
        name="nitro",
        tees=("nitro",),
        hardware=True,
        path="/dev/nsm",
        absent="an AWS Nitro enclave has it",
        gives="an attestation document of this Nitro enclave",
        make=_nitro,
    ),
    Row(
        name="tpm",
        tees=("tpm",),
        hardware=True,
        path="/dev/tpmrm0",
        absent="a machine with a TPM 2.0 and its driver has it",
        gives="a quote of this machine's TPM over what it started with; taken only if it is named",
        make=_tpm,
        by_name=True,
    ),
    Row(
        name="software",
        tees=("sgx",),
        hardware=False,
        path="/run/ostiary/platform.sock",
        absent="`ostiary platform serve` makes one, and --platform-socket names it",
        gives="a quote of the software platform over launcher and program; it protects nothing",
        make=_software,
    ),
)
"""In the order in which they are tried: the innermost first, and what protects nothing last."""
NAMES = tuple(row.name for row in ATTESTERS)


def rows_at(paths: dict[str, str]) -> tuple[Row, ...]:
    """ATTESTERS with other paths, by name."""
    return tuple(replace(row, path=paths[row.name]) if row.name in paths else row for row in ATTESTERS)


def candidates(rows: Sequence[Row], *, name: str | None, hardware: bool) -> tuple[Row, ...]:
    """Those that may be taken, the best first: the one named, or all that need not be; hardware: not the software's."""
    if name is not None:
        return tuple(row for row in rows if row.name == name)
    return tuple(row for row in rows if not row.by_name and (row.hardware or not hardware))


def choose(rows: Sequence[Row], *, name: str | None, hardware: bool) -> Row:
    """The attester named, without looking whether it is there; without name the first candidate that is available.

    A named one is not doubted: its `attest` says what it lacks.
    Raises OutsideError if none is available, with the line of each.
    """
    considered = candidates(rows, name=name, hardware=hardware)
    if name is not None:
        return considered[0]
    reasons = []
    for row in considered:
        reason = row.unavailable()
        if reason is None:
            return row
        reasons.append(f"{row.name}: {reason}")
    raise OutsideError(
        "SCONE_MODE asks for hardware evidence, and this machine has no TEE that gives any"
        if hardware
        else "this machine has nothing that gives evidence",
        *reasons,
    )
