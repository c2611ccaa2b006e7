"""Asks the SGX enclave that this process runs in, under Gramine, for a quote. Standard library only.

Source: Gramine, "Attestation and Secret Provisioning", "Low-level /dev/attestation interface".
"""

from __future__ import annotations

from ostiary.attester.binding import REPORT_DATA_BYTES
from ostiary.attester.evidence import Evidence
from ostiary.attester.program import Program
from ostiary.errors import OutsideError

DIRECTORY = "/dev/attestation"
MAX_QUOTE_BYTES = 64 * 1024
"""Gramine itself gives at most 8 KiB."""
MAX_TYPE_BYTES = 64

_REPORT_DATA = slice(48 + 320, 48 + 320 + REPORT_DATA_BYTES)
"""In a quote: behind the header of 48 bytes, the last 64 of the 384 bytes of the enclave report."""
_SET_DCAP = 'set sgx.remote_attestation = "dcap" in its manifest'


class GramineAttester:
    """The enclave whose files are in `directory`. They are of this process alone: no other can be mixed in."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory

    def unavailable(self) -> str | None:
        """Why no quote can be had, in one line; None if one can be asked for."""
        try:
            kind = self._read("attestation_type", MAX_TYPE_BYTES).strip().decode("ascii", "replace")
        except OSError as error:
            return f"{self._directory} has no attestation_type that can be read: {_reason(error)}"
        if kind == "none":
            return f"this Gramine enclave was built without remote attestation; {_SET_DCAP}"
        if kind != "dcap":
            return f"this Gramine enclave attests by {kind!r}, which nobody verifies any more; {_SET_DCAP}"
        return None

    def attest(self, report_data: bytes, program: Program | None) -> Evidence:  # noqa: ARG002 - the enclave is measured
        """An SGX quote over 64 bytes of `report_data`. Its collateral is for the service to have.

        Writes user_report_data in one piece, reads quote. `program` is not looked at: the enclave was measured with
        all that its manifest names as trusted.
        Guarantees that the quote holds `report_data`: the files know no transactions, and another thread might have
        written in between. Does not verify it.
        Raises OutsideError.
        """
        try:
            self._write("user_report_data", report_data)
            quote = self._read("quote", MAX_QUOTE_BYTES)
        except OSError as error:
            raise OutsideError(
                f"Gramine gives no quote in {self._directory}: {_reason(error)}",
                self.unavailable() or "look into the log of the quoting service (AESM) on the host",
            ) from error
        if quote[_REPORT_DATA] != report_data:
            raise OutsideError(
                f"the quote of {self._directory} is about other report data; another thread attests at the same time, "
                "start the program again"
            )
        return Evidence(tee="sgx", evidence=quote, endorsements=b"")

    def _write(self, name: str, data: bytes) -> None:
        with open(f"{self._directory}/{name}", "wb", buffering=0) as file:
            file.write(data)

    def _read(self, name: str, most: int) -> bytes:
        with open(f"{self._directory}/{name}", "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise OSError(f"{name} has more than {most} bytes")
        return data


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
